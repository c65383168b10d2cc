// SPDX-License-Identifier: Apache-2.0
//
// cp.async: the copy happens when it is waited for, and not before. Until then its destination
// holds poison, and any access to it is an error.

#include <algorithm>

#include "kernels-cuda/emulator/decoder.h"
#include "kernels-cuda/emulator/lanes.h"

namespace nibble::cuda::emulator {

namespace {

void RunCopy(Warp& warp, const Instruction& instruction, uint32_t mask) {
  Block& block = *warp.block;
  const int bytes = instruction.option;
  // The source's address registers stand in list[0] (64 bits) with its offset in target.
  uint64_t destinations[kLanes];
  Addresses(warp, instruction, destinations);
  uint8_t* sources[kLanes] = {};
  const uint32_t* sizes = instruction.b >= 0 ? warp.Reg<uint32_t>(instruction.b) : nullptr;
  const uint32_t ignored = instruction.c >= 0 ? warp.Pred(instruction.c) : 0;
  Instruction source = instruction;
  source.space = static_cast<uint8_t>(StateSpace::kGlobal);
  source.mode = 64;
  source.a = instruction.list[0];
  source.immediate = instruction.target;
  uint64_t addresses[kLanes];
  Addresses(warp, source, addresses);
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    uint32_t size = sizes != nullptr ? sizes[l] : static_cast<uint32_t>(bytes);
    if ((ignored >> l & 1) != 0) size = 0;
    if (size > static_cast<uint32_t>(bytes)) {
      block.Fail(warp, &instruction, l,
                 "src-size " + std::to_string(size) + " above cp-size " + std::to_string(bytes));
    }
    if (addresses[l] % bytes != 0) {
      block.Fail(warp, &instruction, l,
                 "the source is not on a boundary of " + std::to_string(bytes) + " bytes");
    }
    if (size > 0) {
      const Allocation* found = warp.cached[0];
      if (found == nullptr || addresses[l] - found->address >= found->bytes ||
          size > found->bytes - (addresses[l] - found->address)) {
        found = block.launch->memory->Find(addresses[l], size);
      }
      if (found == nullptr)
        block.Fail(warp, &instruction, l,
                   "copy of " + block.launch->memory->Explain(addresses[l], size));
      warp.cached[0] = found;
      sources[l] = found->data + (addresses[l] - found->address);
    }
    uint64_t address = destinations[l];
    if (instruction.space == kGenericSpace) address -= kSharedWindow;
    const uint32_t offset = SharedOffset(warp, instruction, l, address, bytes);
    if (block.checked) {
      // The copy may write at any time from now on.
      const std::string race =
          block.shadow.Touch(warp, l, instruction.line, offset, bytes, SharedShadow::Kind::kWrite);
      if (!race.empty()) block.Fail(warp, &instruction, l, race);
      block.shadow.Pend(offset, bytes, instruction.line);
    }
    std::memset(block.shared.data() + offset, 0xFF, bytes);
    warp.copies.push_back({warp.copy_group[l], offset, sources[l], static_cast<uint8_t>(bytes),
                           static_cast<uint8_t>(size), static_cast<uint8_t>(l), instruction.line});
  }
}

void RunCommit(Warp& warp, const Instruction&, uint32_t mask) {
  for (int l = 0; l < kLanes; ++l) warp.copy_group[l] += mask >> l & 1;
}

void RunWaitGroup(Warp& warp, const Instruction& instruction, uint32_t mask) {
  CompleteCopies(warp, mask, static_cast<uint32_t>(instruction.immediate), false);
}

void RunWaitAll(Warp& warp, const Instruction&, uint32_t mask) {
  CompleteCopies(warp, mask, 0, true);
}

}  // namespace

void CompleteCopies(Warp& warp, uint32_t mask, uint32_t allowed_groups, bool all) {
  Block& block = *warp.block;
  size_t kept = 0;
  for (PendingCopy& copy : warp.copies) {
    const bool mine = (mask >> copy.lane & 1) != 0;
    // Groups are numbered from 0; copy_group is the open one. wait_group N leaves the N newest
    // closed ones (and what is not committed).
    const uint32_t open = warp.copy_group[copy.lane];
    const bool done = mine && (all || (copy.group < open && open - copy.group > allowed_groups));
    if (!done) {
      warp.copies[kept++] = copy;
      continue;
    }
    uint8_t* to = block.shared.data() + copy.destination;
    if (copy.source_bytes > 0) std::memcpy(to, copy.source, copy.source_bytes);
    std::memset(to + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
    if (block.checked) {
      block.shadow.Arrive(copy.destination, copy.bytes);
      const std::string race = block.shadow.Touch(warp, copy.lane, copy.line, copy.destination,
                                                  copy.bytes, SharedShadow::Kind::kWrite);
      if (!race.empty()) {
        Instruction at;
        at.line = copy.line;
        block.Fail(warp, &at, copy.lane, "on arrival of the copy, " + race);
      }
    }
  }
  warp.copies.resize(kept);
}

bool DecodeAsyncCopy(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  if (statement.opcode[0] != "cp") return false;
  Modifiers modifiers(statement);
  if (!modifiers.Take("async")) modifiers.Unknown();
  if (modifiers.Take("commit_group")) {
    modifiers.Finish();
    instruction->run = RunCommit;
    return true;
  }
  if (modifiers.Take("wait_group")) {
    modifiers.Finish();
    instruction->immediate = static_cast<int64_t>(decoder.operand(0).integer);
    instruction->run = RunWaitGroup;
    return true;
  }
  if (modifiers.Take("wait_all")) {
    modifiers.Finish();
    instruction->run = RunWaitAll;
    return true;
  }
  const std::string cache = modifiers.TakeOf({"ca", "cg"});
  if (cache.empty()) modifiers.Unknown();
  const std::string space = modifiers.TakeOf({"shared::cta", "shared"});
  if (space.empty() || !modifiers.Take("global")) modifiers.Unknown();
  modifiers.TakeOf({"L2::64B", "L2::128B", "L2::256B"});
  modifiers.Finish();
  const int64_t bytes = static_cast<int64_t>(decoder.operand(2).integer);
  if (cache == "cg" ? bytes != 16 : bytes != 4 && bytes != 8 && bytes != 16) {
    decoder.Fail("a copy of " + std::to_string(bytes) + " bytes");
  }
  Instruction source;
  decoder.Address(1, &source);
  if (source.mode != 64) decoder.Fail("the source must be a 64-bit address");
  instruction->list = decoder.Keep({source.a});
  instruction->target = static_cast<int32_t>(source.immediate);
  instruction->option = static_cast<uint8_t>(bytes);
  instruction->space = static_cast<uint8_t>(StateSpace::kShared);
  if (decoder.count() > 3) {
    const Operand& size = decoder.operand(3);
    if (size.kind == Operand::Kind::kName && decoder.RegisterBits(size.name) == 1) {
      if (size.negated) decoder.Fail("a negated predicate");
      instruction->c = decoder.Source(3, 1);
    } else {
      instruction->b = decoder.Source(3, 32);
    }
  }
  decoder.Address(0, instruction);
  instruction->run = RunCopy;
  return true;
}

}  // namespace nibble::cuda::emulator
