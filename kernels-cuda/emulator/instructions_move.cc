// SPDX-License-Identifier: Apache-2.0
//
// mov (with packing and unpacking of vectors), cvta, isspacep, selp, slct, prmt and the clocks.

#include "kernels-cuda/emulator/decoder.h"
#include "kernels-cuda/emulator/lanes.h"

namespace nibble::cuda::emulator {

namespace {

struct Same {
  template <class T>
  static T Run(T a) {
    return a;
  }
};

void RunMovePredicate(Warp& warp, const Instruction& instruction, uint32_t mask) {
  uint32_t value = warp.Pred(instruction.a);
  if (instruction.option != 0) value = ~value;
  uint32_t& d = warp.Pred(instruction.d);
  d = (d & ~mask) | (value & mask);
}

// {part, part, ...} <-> one register. Parts of type P, the whole of type W.
template <class P, class W>
void RunPack(Warp& warp, const Instruction& instruction, uint32_t mask) {
  constexpr int kParts = sizeof(W) / sizeof(P);
  W* d = warp.Reg<W>(instruction.d);
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    W value = 0;
    for (int p = 0; p < kParts; ++p) {
      value |= static_cast<W>(warp.Reg<P>(instruction.list[p])[l]) << (8 * sizeof(P) * p);
    }
    d[l] = value;
  }
}

template <class P, class W>
void RunUnpack(Warp& warp, const Instruction& instruction, uint32_t mask) {
  constexpr int kParts = sizeof(W) / sizeof(P);
  const W* a = warp.Reg<W>(instruction.a);
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    const W value = a[l];
    for (int p = 0; p < kParts; ++p) {
      warp.Reg<P>(instruction.list[p])[l] = static_cast<P>(value >> (8 * sizeof(P) * p));
    }
  }
}

void RunClock(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const uint64_t now = warp.steps * 4;
  if (instruction.option == 64) {
    uint64_t* d = warp.Reg<uint64_t>(instruction.d);
    NIBBLE_EMULATOR_LANES(d[l] = now)
  } else {
    uint32_t* d = warp.Reg<uint32_t>(instruction.d);
    NIBBLE_EMULATOR_LANES(d[l] = static_cast<uint32_t>(now))
  }
}

// cvta and its inverse: windows have a high part of their own.
void RunAddWindow(Warp& warp, const Instruction& instruction, uint32_t mask) {
  uint64_t* d = warp.Reg<uint64_t>(instruction.d);
  const uint64_t* a = warp.Reg<uint64_t>(instruction.a);
  const uint64_t window = static_cast<uint64_t>(instruction.immediate);
  NIBBLE_EMULATOR_LANES(d[l] = a[l] + window)
}

void RunIsSpace(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const uint64_t* a = warp.Reg<uint64_t>(instruction.a);
  uint32_t in = 0;
  for (int l = 0; l < kLanes; ++l) {
    const bool shared = a[l] - kSharedWindow < kWindowBytes;
    const bool local = a[l] - kLocalWindow < kWindowBytes;
    const bool is = instruction.space == static_cast<uint8_t>(StateSpace::kShared) ? shared
                    : instruction.space == static_cast<uint8_t>(StateSpace::kLocal)
                        ? local
                        : !shared && !local;
    in |= static_cast<uint32_t>(is) << l;
  }
  uint32_t& d = warp.Pred(instruction.d);
  d = (d & ~mask) | (in & mask);
}

template <class T>
void RunSelect(Warp& warp, const Instruction& instruction, uint32_t mask) {
  T* d = warp.Reg<T>(instruction.d);
  const T* a = warp.Reg<T>(instruction.a);
  const T* b = warp.Reg<T>(instruction.b);
  const uint32_t p = instruction.option != 0 ? ~warp.Pred(instruction.c) : warp.Pred(instruction.c);
  NIBBLE_EMULATOR_LANES(d[l] = (p >> l & 1) != 0 ? a[l] : b[l])
}

template <class T, class C>
struct SelectBySign {
  static T Run(T a, T b, C c) { return c >= 0 ? a : b; }
};

Handler MoveOf(int bits) {
  switch (bits) {
    case 16:
      return RunUnary<Same, uint16_t, uint16_t>;
    case 32:
      return RunUnary<Same, uint32_t, uint32_t>;
    case 64:
      return RunUnary<Same, uint64_t, uint64_t>;
    default:
      return nullptr;
  }
}

void DecodeVectorMove(Decoder& decoder, Instruction* instruction, int whole_bits) {
  const bool pack = decoder.operand(1).kind == Operand::Kind::kVector;
  const size_t at = pack ? 1 : 0;
  const int parts = static_cast<int>(decoder.operand(at).parts.size());
  const int bits = whole_bits / parts;
  instruction->list = decoder.Keep(decoder.List(at, bits == 8 ? 0 : bits, !pack));
  if (pack) {
    instruction->d = decoder.Destination(0, whole_bits);
  } else {
    instruction->a = decoder.Source(1, whole_bits);
  }
  Handler run = nullptr;
  if (whole_bits == 32 && bits == 16)
    run = pack ? RunPack<uint16_t, uint32_t> : RunUnpack<uint16_t, uint32_t>;
  if (whole_bits == 64 && bits == 32)
    run = pack ? RunPack<uint32_t, uint64_t> : RunUnpack<uint32_t, uint64_t>;
  if (whole_bits == 64 && bits == 16)
    run = pack ? RunPack<uint16_t, uint64_t> : RunUnpack<uint16_t, uint64_t>;
  if (run == nullptr) decoder.Fail("a vector of " + std::to_string(parts) + " parts");
  instruction->run = run;
}

}  // namespace

bool DecodeMove(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  const std::string& name = statement.opcode[0];
  Modifiers modifiers(statement);
  if (name == "mov") {
    const std::string type = modifiers.TakeType();
    modifiers.Finish();
    if (type == "pred") {
      bool negated = false;
      instruction->d = decoder.Destination(0, 1);
      instruction->a = decoder.SourcePredicate(decoder.operand(1), &negated);
      instruction->option = negated;
      instruction->run = RunMovePredicate;
      return true;
    }
    const int bits = BitsOf(type);
    if (decoder.operand(0).kind == Operand::Kind::kVector ||
        decoder.operand(1).kind == Operand::Kind::kVector) {
      DecodeVectorMove(decoder, instruction, bits);
      return true;
    }
    const std::string& source = decoder.operand(1).name;
    if (source == "%clock" || source == "%clock_hi" || source == "%clock64" ||
        source == "%globaltimer") {
      instruction->d = decoder.Destination(0, bits);
      instruction->option = static_cast<uint8_t>(bits);
      instruction->run = RunClock;
      return true;
    }
    instruction->d = decoder.Destination(0, bits);
    const Decoder::Parameter* parameter = source.empty() ? nullptr : decoder.FindParameter(source);
    if (parameter != nullptr) {
      instruction->a = decoder.Constant(
          static_cast<uint64_t>(parameter->offset) + decoder.operand(1).integer, bits);
    } else {
      instruction->a = decoder.Source(1, bits);
    }
    instruction->run = MoveOf(bits);
    if (instruction->run == nullptr) modifiers.Unknown("type ." + type);
    return true;
  }
  if (name == "cvta") {
    const bool to = modifiers.Take("to");
    const std::string space =
        modifiers.TakeOf({"shared::cta", "shared", "local", "global", "const"});
    const std::string type = modifiers.TakeType();
    modifiers.Finish();
    if (space.empty() || type != "u64") modifiers.Unknown("space or type");
    instruction->d = decoder.Destination(0, 64);
    instruction->a = decoder.Source(1, 64);
    uint64_t window = space == "local"                ? kLocalWindow
                      : space.rfind("shared", 0) == 0 ? kSharedWindow
                                                      : 0;
    if (to) window = 0 - window;
    instruction->immediate = static_cast<int64_t>(window);
    instruction->run = RunAddWindow;
    return true;
  }
  if (name == "isspacep") {
    const std::string space = modifiers.TakeOf({"shared::cta", "shared", "local", "global"});
    modifiers.Finish();
    instruction->space = static_cast<uint8_t>(space == "local"    ? StateSpace::kLocal
                                              : space == "global" ? StateSpace::kGlobal
                                                                  : StateSpace::kShared);
    instruction->d = decoder.Destination(0, 1);
    instruction->a = decoder.Source(1, 64);
    instruction->run = RunIsSpace;
    return true;
  }
  if (name == "selp") {
    const std::string type = modifiers.TakeType();
    modifiers.Finish();
    const int bits = BitsOf(type);
    bool negated = false;
    instruction->d = decoder.Destination(0, bits);
    instruction->a = decoder.Source(1, bits);
    instruction->b = decoder.Source(2, bits);
    instruction->c = decoder.SourcePredicate(decoder.operand(3), &negated);
    instruction->option = negated;
    instruction->run = bits == 16   ? RunSelect<uint16_t>
                       : bits == 32 ? RunSelect<uint32_t>
                                    : RunSelect<uint64_t>;
    return true;
  }
  if (name == "slct") {
    modifiers.Take("ftz");
    const std::string type = modifiers.TakeType();
    const std::string by = modifiers.TakeType();
    modifiers.Finish();
    const int bits = BitsOf(type);
    instruction->d = decoder.Destination(0, bits);
    instruction->a = decoder.Source(1, bits);
    instruction->b = decoder.Source(2, bits);
    instruction->c = decoder.Source(3, 32);
    const bool single = by == "f32";
    if (bits == 16)
      instruction->run =
          single
              ? RunTernary<SelectBySign<uint16_t, float>, uint16_t, uint16_t, uint16_t, float>
              : RunTernary<SelectBySign<uint16_t, int32_t>, uint16_t, uint16_t, uint16_t, int32_t>;
    if (bits == 32)
      instruction->run =
          single
              ? RunTernary<SelectBySign<uint32_t, float>, uint32_t, uint32_t, uint32_t, float>
              : RunTernary<SelectBySign<uint32_t, int32_t>, uint32_t, uint32_t, uint32_t, int32_t>;
    if (bits == 64)
      instruction->run =
          single
              ? RunTernary<SelectBySign<uint64_t, float>, uint64_t, uint64_t, uint64_t, float>
              : RunTernary<SelectBySign<uint64_t, int32_t>, uint64_t, uint64_t, uint64_t, int32_t>;
    return true;
  }
  return false;
}

}  // namespace nibble::cuda::emulator
