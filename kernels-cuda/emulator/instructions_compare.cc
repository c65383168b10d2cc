// SPDX-License-Identifier: Apache-2.0
//
// setp and set over all types.

#include <cmath>

#include "kernels-cuda/emulator/decoder.h"
#include "kernels-cuda/emulator/lanes.h"
#include "kernels-cuda/emulator/small_floats.h"

namespace nibble::cuda::emulator {

namespace {

enum class Test : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kNum, kNan };
enum Combine : uint8_t { kNone, kAnd, kOr, kXor };

template <Test kTest, class T>
bool Holds(T a, T b) {
  switch (kTest) {
    case Test::kEq:
      return a == b;
    case Test::kNe:
      return a < b || a > b;  // ordered: false with a NaN
    case Test::kLt:
      return a < b;
    case Test::kLe:
      return a <= b;
    case Test::kGt:
      return a > b;
    case Test::kGe:
      return a >= b;
    case Test::kNum:
      return a == a && b == b;
    default:
      return a != a || b != b;
  }
}

template <class T>
struct Plain {
  using Stored = T;
  using Value = T;
  static T Get(T v) { return v; }
};
struct FlushedSingle {
  using Stored = float;
  using Value = float;
  static float Get(float v) { return std::fabs(v) < 0x1p-126f ? 0.0f : v; }
};
struct HalfValue {
  using Stored = uint16_t;
  using Value = float;
  static float Get(uint16_t v) { return HalfToFloat(v); }
};
struct BrainValue {
  using Stored = uint16_t;
  using Value = float;
  static float Get(uint16_t v) { return BrainToFloat(v); }
};

// mode: bit 0 also true with a NaN ("unordered" tests); option: how c combines; target bit 0: c
// is negated. list: the second predicate or nothing.
template <class V, Test kTest>
uint32_t TestLanes(Warp& warp, const Instruction& instruction) {
  using S = typename V::Stored;
  const S* a = warp.Reg<S>(instruction.a);
  const S* b = warp.Reg<S>(instruction.b);
  uint32_t result = 0;
  const bool unordered = (instruction.mode & 1) != 0;
  for (int l = 0; l < kLanes; ++l) {
    const auto x = V::Get(a[l]);
    const auto y = V::Get(b[l]);
    const bool nan = x != x || y != y;
    result |= static_cast<uint32_t>(Holds<kTest>(x, y) || (unordered && nan)) << l;
  }
  return result;
}

uint32_t Combined(Warp& warp, const Instruction& instruction, uint32_t value) {
  if (instruction.option == kNone) return value;
  const uint32_t c = instruction.target != 0 ? ~warp.Pred(instruction.c) : warp.Pred(instruction.c);
  return instruction.option == kAnd ? value & c : instruction.option == kOr ? value | c : value ^ c;
}

template <class V, Test kTest>
void RunTest(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const uint32_t value = TestLanes<V, kTest>(warp, instruction);
  const uint32_t first = Combined(warp, instruction, value);
  const uint32_t second = Combined(warp, instruction, ~value);
  uint32_t& p = warp.Pred(instruction.d);
  p = (p & ~mask) | (first & mask);
  if (instruction.list != nullptr) {
    uint32_t& q = warp.Pred(instruction.list[0]);
    q = (q & ~mask) | (second & mask);
  }
}

// set: all ones or 1.0 (immediate bit 0) where the test holds.
template <class V, Test kTest>
void RunSet(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const uint32_t value = Combined(warp, instruction, TestLanes<V, kTest>(warp, instruction));
  uint32_t* d = warp.Reg<uint32_t>(instruction.d);
  const uint32_t yes = instruction.immediate != 0 ? 0x3F800000u : 0xFFFFFFFFu;
  NIBBLE_EMULATOR_LANES(d[l] = (value >> l & 1) != 0 ? yes : 0)
}

// f16x2 and bf16x2: a predicate for each half.
template <class V, Test kTest>
void RunTestPair(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const uint32_t* a = warp.Reg<uint32_t>(instruction.a);
  const uint32_t* b = warp.Reg<uint32_t>(instruction.b);
  uint32_t results[2] = {0, 0};
  for (int l = 0; l < kLanes; ++l) {
    for (int h = 0; h < 2; ++h) {
      const auto x = V::Get(static_cast<uint16_t>(a[l] >> 16 * h));
      const auto y = V::Get(static_cast<uint16_t>(b[l] >> 16 * h));
      const bool nan = x != x || y != y;
      results[h] |=
          static_cast<uint32_t>(Holds<kTest>(x, y) || ((instruction.mode & 1) != 0 && nan)) << l;
    }
  }
  uint32_t& p = warp.Pred(instruction.d);
  p = (p & ~mask) | (Combined(warp, instruction, results[0]) & mask);
  uint32_t& q = warp.Pred(instruction.list[0]);
  q = (q & ~mask) | (Combined(warp, instruction, results[1]) & mask);
}

enum class Form { kPredicate, kSet, kPair };

template <class V, Test kTest>
Handler PickForm(Form form) {
  if (form == Form::kPredicate) return RunTest<V, kTest>;
  if (form == Form::kSet) return RunSet<V, kTest>;
  if constexpr (sizeof(typename V::Stored) == 2) return RunTestPair<V, kTest>;
  return nullptr;
}

template <class V>
Handler PickTest(Test test, Form form) {
  switch (test) {
    case Test::kEq:
      return PickForm<V, Test::kEq>(form);
    case Test::kNe:
      return PickForm<V, Test::kNe>(form);
    case Test::kLt:
      return PickForm<V, Test::kLt>(form);
    case Test::kLe:
      return PickForm<V, Test::kLe>(form);
    case Test::kGt:
      return PickForm<V, Test::kGt>(form);
    case Test::kGe:
      return PickForm<V, Test::kGe>(form);
    case Test::kNum:
      return PickForm<V, Test::kNum>(form);
    default:
      return PickForm<V, Test::kNan>(form);
  }
}

Handler PickType(const std::string& type, Test test, Form form, bool flush) {
  if (type == "f16" || type == "f16x2") return PickTest<HalfValue>(test, form);
  if (type == "bf16" || type == "bf16x2") return PickTest<BrainValue>(test, form);
  if (form == Form::kPair) return nullptr;
  if (type == "f32")
    return flush ? PickTest<FlushedSingle>(test, form) : PickTest<Plain<float>>(test, form);
  if (type == "f64") return PickTest<Plain<double>>(test, form);
  if (type == "s16") return PickTest<Plain<int16_t>>(test, form);
  if (type == "s32") return PickTest<Plain<int32_t>>(test, form);
  if (type == "s64") return PickTest<Plain<int64_t>>(test, form);
  if (type == "u16" || type == "b16") return PickTest<Plain<uint16_t>>(test, form);
  if (type == "u32" || type == "b32") return PickTest<Plain<uint32_t>>(test, form);
  if (type == "u64" || type == "b64") return PickTest<Plain<uint64_t>>(test, form);
  return nullptr;
}

}  // namespace

bool DecodeCompare(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  const std::string& name = statement.opcode[0];
  if (name != "setp" && name != "set") return false;
  Modifiers modifiers(statement);
  const std::string test =
      modifiers.TakeOf({"equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan", "eq", "ne", "lt",
                        "le", "gt", "ge", "lo", "ls", "hi", "hs"});
  const std::string combine = modifiers.TakeOf({"and", "or", "xor"});
  const bool flush = modifiers.Take("ftz");
  std::string result;
  if (name == "set") result = modifiers.TakeType();
  const std::string type = modifiers.TakeType();
  modifiers.Finish();
  Test which;
  const std::string base = test.substr(0, 2);
  if (test == "num")
    which = Test::kNum;
  else if (test == "nan")
    which = Test::kNan;
  else if (base == "eq")
    which = Test::kEq;
  else if (base == "ne")
    which = Test::kNe;
  else if (base == "lt" || base == "lo")
    which = Test::kLt;
  else if (base == "le" || base == "ls")
    which = Test::kLe;
  else if (base == "gt" || base == "hi")
    which = Test::kGt;
  else if (base == "ge" || base == "hs")
    which = Test::kGe;
  else
    modifiers.Unknown("no comparison");
  const bool is_float =
      type[0] == 'f' || type[0] == 'b' ? type != "b16" && type != "b32" && type != "b64" : false;
  if (is_float && (base == "lo" || base == "ls" || base == "hi" || base == "hs"))
    modifiers.Unknown("." + test + " of ." + type);
  instruction->mode = test.size() == 3 && test != "num" && test != "nan" ? 1 : 0;
  instruction->target = 0;
  const bool pair = type == "f16x2" || type == "bf16x2";
  const int bits = BitsOf(type);
  const Form form = name == "set" ? Form::kSet : pair ? Form::kPair : Form::kPredicate;
  if (name == "set") {
    if (pair || (result != "u32" && result != "s32" && result != "b32" && result != "f32"))
      modifiers.Unknown("result ." + result);
    instruction->d = decoder.Destination(0, 32);
    instruction->immediate = result == "f32";
  } else {
    instruction->d = decoder.Destination(0, 1);
    const std::string& second = decoder.operand(0).second;
    if (!second.empty() && second != "_") {
      Operand q;
      q.name = second;
      instruction->list = decoder.Keep({decoder.DestinationOf(q, 1)});
    } else if (pair) {
      instruction->list = decoder.Keep({decoder.Temporary(1)});
    }
  }
  instruction->a = decoder.Source(1, bits);
  instruction->b = decoder.Source(2, bits);
  if (!combine.empty()) {
    bool negated = false;
    instruction->c = decoder.SourcePredicate(decoder.operand(3), &negated);
    instruction->target = negated;
    instruction->option = combine == "and" ? kAnd : combine == "or" ? kOr : kXor;
  }
  instruction->run = PickType(type, which, form, flush);
  if (instruction->run == nullptr) modifiers.Unknown("type ." + type);
  return true;
}

}  // namespace nibble::cuda::emulator
