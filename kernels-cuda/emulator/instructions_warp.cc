// SPDX-License-Identifier: Apache-2.0
//
// Instructions through which the lanes of a warp see each other: shfl, vote, match, redux,
// activemask, elect.

#include "kernels-cuda/emulator/decoder.h"
#include "kernels-cuda/emulator/lanes.h"

namespace nibble::cuda::emulator {

namespace {

// The lanes that execute must be exactly those that the membermask names: a lane named and not
// there is waited for for ever by hardware, one there and not named is undefined.
void RequireMembers(Warp& warp, const Instruction& instruction, uint32_t mask, int32_t members) {
  const uint32_t* masks = warp.Reg<uint32_t>(members);
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    if (masks[l] != mask) {
      char text[112];
      std::snprintf(text, sizeof(text), "the membermask is 0x%08x, but the lanes here are 0x%08x",
                    masks[l], mask);
      warp.block->Fail(warp, &instruction, l, text);
    }
  }
}

enum Shuffle : uint8_t { kUp, kDown, kButterfly, kIndex };

void RunShuffle(Warp& warp, const Instruction& instruction, uint32_t mask) {
  RequireMembers(warp, instruction, mask, instruction.list[0]);
  uint32_t* d = warp.Reg<uint32_t>(instruction.d);
  const uint32_t* a = warp.Reg<uint32_t>(instruction.a);
  const uint32_t* b = warp.Reg<uint32_t>(instruction.b);
  const uint32_t* c = warp.Reg<uint32_t>(instruction.c);
  uint32_t result[kLanes];
  uint32_t valid = 0;
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    const int clamp = c[l] & 31, segment = c[l] >> 8 & 31, by = b[l] & 31;
    const int highest = (l & segment) | (clamp & ~segment);
    const int lowest = l & segment;
    int from = l;
    bool inside = false;
    switch (instruction.option) {
      case kUp:
        from = l - by;
        inside = from >= highest;
        break;
      case kDown:
        from = l + by;
        inside = from <= highest;
        break;
      case kButterfly:
        from = l ^ by;
        inside = from <= highest;
        break;
      default:
        from = lowest | (by & ~segment);
        inside = from <= highest;
        break;
    }
    if (!inside) from = l;
    if ((mask >> from & 1) == 0) {
      warp.block->Fail(warp, &instruction, l,
                       "reads from lane " + std::to_string(from) + ", which does not take part");
    }
    result[l] = a[from];
    valid |= static_cast<uint32_t>(inside) << l;
  }
  NIBBLE_EMULATOR_LANES(d[l] = result[l])
  if (instruction.target >= 0) {
    uint32_t& p = warp.Pred(instruction.target);
    p = (p & ~mask) | (valid & mask);
  }
}

enum Vote : uint8_t { kAll, kAny, kUniform, kBallot };

void RunVote(Warp& warp, const Instruction& instruction, uint32_t mask) {
  if (instruction.list != nullptr) RequireMembers(warp, instruction, mask, instruction.list[0]);
  uint32_t p = warp.Pred(instruction.a);
  if (instruction.mode != 0) p = ~p;
  p &= mask;
  if (instruction.option == kBallot) {
    uint32_t* d = warp.Reg<uint32_t>(instruction.d);
    NIBBLE_EMULATOR_LANES(d[l] = p)
    return;
  }
  const bool yes = instruction.option == kAll   ? p == mask
                   : instruction.option == kAny ? p != 0
                                                : p == 0 || p == mask;
  uint32_t& d = warp.Pred(instruction.d);
  d = yes ? d | mask : d & ~mask;
}

template <class T>
void RunMatch(Warp& warp, const Instruction& instruction, uint32_t mask) {
  RequireMembers(warp, instruction, mask, instruction.list[0]);
  uint32_t* d = warp.Reg<uint32_t>(instruction.d);
  const T* a = warp.Reg<T>(instruction.a);
  uint32_t result[kLanes];
  bool all = true;
  for (int l = 0; l < kLanes; ++l) {
    uint32_t same = 0;
    for (int m = 0; m < kLanes; ++m) {
      if ((mask >> m & 1) != 0 && a[m] == a[l]) same |= 1u << m;
    }
    result[l] = same;
    if ((mask >> l & 1) != 0 && same != mask) all = false;
  }
  const bool match_all = instruction.option != 0;
  NIBBLE_EMULATOR_LANES(d[l] = match_all ? (all ? mask : 0) : result[l])
  if (match_all && instruction.target >= 0) {
    uint32_t& p = warp.Pred(instruction.target);
    p = all ? p | mask : p & ~mask;
  }
}

enum Reduce : uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor };

template <class T>
void RunReduce(Warp& warp, const Instruction& instruction, uint32_t mask) {
  RequireMembers(warp, instruction, mask, instruction.list[0]);
  const T* a = warp.Reg<T>(instruction.a);
  T* d = warp.Reg<T>(instruction.d);
  T r = a[__builtin_ctz(mask)];
  for (int l = __builtin_ctz(mask) + 1; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    const T v = a[l];
    switch (instruction.option) {
      case kAdd:
        r = static_cast<T>(static_cast<uint32_t>(r) + static_cast<uint32_t>(v));
        break;
      case kMin:
        r = v < r ? v : r;
        break;
      case kMax:
        r = v > r ? v : r;
        break;
      case kAnd:
        r &= v;
        break;
      case kOr:
        r |= v;
        break;
      default:
        r ^= v;
        break;
    }
  }
  NIBBLE_EMULATOR_LANES(d[l] = r)
}

void RunActiveMask(Warp& warp, const Instruction& instruction, uint32_t mask) {
  uint32_t* d = warp.Reg<uint32_t>(instruction.d);
  NIBBLE_EMULATOR_LANES(d[l] = mask)
}

void RunElect(Warp& warp, const Instruction& instruction, uint32_t mask) {
  RequireMembers(warp, instruction, mask, instruction.list[0]);
  uint32_t* d = warp.Reg<uint32_t>(instruction.d);
  const uint32_t leader = __builtin_ctz(mask);
  NIBBLE_EMULATOR_LANES(d[l] = leader)
  uint32_t& p = warp.Pred(instruction.target);
  p = (p & ~mask) | 1u << leader;
}

// The second result of a destination d|p.
int SecondPredicate(Decoder& decoder) {
  const std::string& second = decoder.operand(0).second;
  if (second.empty() || second == "_") return -1;
  Operand p;
  p.name = second;
  return decoder.DestinationOf(p, 1);
}

}  // namespace

bool DecodeWarp(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  const std::string& name = statement.opcode[0];
  if (name != "shfl" && name != "vote" && name != "match" && name != "redux" &&
      name != "activemask" && name != "elect")
    return false;
  Modifiers modifiers(statement);
  if (name == "activemask") {
    modifiers.TakeType();
    modifiers.Finish();
    instruction->d = decoder.Destination(0, 32);
    instruction->run = RunActiveMask;
    return true;
  }
  if (!modifiers.Take("sync")) modifiers.Unknown("without .sync");
  const auto members = [&](size_t i) { instruction->list = decoder.Keep({decoder.Source(i, 32)}); };
  if (name == "shfl") {
    const std::string mode = modifiers.TakeOf({"up", "down", "bfly", "idx"});
    if (mode.empty()) modifiers.Unknown();
    modifiers.TakeType();
    instruction->option = mode == "up"     ? kUp
                          : mode == "down" ? kDown
                          : mode == "bfly" ? kButterfly
                                           : kIndex;
    instruction->d = decoder.Destination(0, 32);
    instruction->target = SecondPredicate(decoder);
    instruction->a = decoder.Source(1, 32);
    instruction->b = decoder.Source(2, 32);
    instruction->c = decoder.Source(3, 32);
    members(4);
    instruction->run = RunShuffle;
  } else if (name == "vote") {
    const std::string mode = modifiers.TakeOf({"all", "any", "uni", "ballot"});
    if (mode.empty()) modifiers.Unknown();
    modifiers.TakeType();
    instruction->option = mode == "all"   ? kAll
                          : mode == "any" ? kAny
                          : mode == "uni" ? kUniform
                                          : kBallot;
    instruction->d = decoder.Destination(0, mode == "ballot" ? 32 : 1);
    bool negated = false;
    instruction->a = decoder.SourcePredicate(decoder.operand(1), &negated);
    instruction->mode = negated;
    members(2);
    instruction->run = RunVote;
  } else if (name == "match") {
    const std::string mode = modifiers.TakeOf({"all", "any"});
    if (mode.empty()) modifiers.Unknown();
    const int bits = BitsOf(modifiers.TakeType());
    instruction->option = mode == "all";
    instruction->d = decoder.Destination(0, 32);
    instruction->target = SecondPredicate(decoder);
    instruction->a = decoder.Source(1, bits);
    members(2);
    instruction->run = bits == 32 ? RunMatch<uint32_t> : RunMatch<uint64_t>;
  } else if (name == "redux") {
    const std::string mode = modifiers.TakeOf({"add", "min", "max", "and", "or", "xor"});
    if (mode.empty()) modifiers.Unknown();
    const std::string type = modifiers.TakeType();
    if (type == "f32") modifiers.Unknown();
    instruction->option = mode == "add"   ? kAdd
                          : mode == "min" ? kMin
                          : mode == "max" ? kMax
                          : mode == "and" ? kAnd
                          : mode == "or"  ? kOr
                                          : kXor;
    instruction->d = decoder.Destination(0, 32);
    instruction->a = decoder.Source(1, 32);
    members(2);
    instruction->run = type == "s32" ? RunReduce<int32_t> : RunReduce<uint32_t>;
  } else {
    instruction->d = decoder.Destination(0, 32);
    instruction->target = SecondPredicate(decoder);
    if (instruction->target < 0) instruction->target = decoder.Temporary(1);
    members(1);
    instruction->run = RunElect;
  }
  modifiers.Finish();
  return true;
}

}  // namespace nibble::cuda::emulator
