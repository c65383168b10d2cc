// SPDX-License-Identifier: Apache-2.0
//
// Integer arithmetic, logic, shifts and bit fields.

#include <algorithm>
#include <type_traits>

#include "kernels-cuda/emulator/decoder.h"
#include "kernels-cuda/emulator/lanes.h"

namespace nibble::cuda::emulator {

namespace {

template <class T>
using Unsigned = typename std::make_unsigned<T>::type;
template <class T>
struct WideOf;
template <>
struct WideOf<int16_t> {
  using Type = int32_t;
};
template <>
struct WideOf<uint16_t> {
  using Type = uint32_t;
};
template <>
struct WideOf<int32_t> {
  using Type = int64_t;
};
template <>
struct WideOf<uint32_t> {
  using Type = uint64_t;
};
template <>
struct WideOf<int64_t> {
  using Type = __int128;
};
template <>
struct WideOf<uint64_t> {
  using Type = unsigned __int128;
};
template <class T>
using Wide = typename WideOf<T>::Type;

// Sums and products wrap: they are formed in unsigned 64-bit or the type's own unsigned numbers.
template <class T>
struct Add {
  static T Run(T a, T b) { return static_cast<T>(Unsigned<T>(a) + Unsigned<T>(b)); }
};
template <class T>
struct Subtract {
  static T Run(T a, T b) { return static_cast<T>(Unsigned<T>(a) - Unsigned<T>(b)); }
};
template <class T>
struct AddSaturated {
  static T Run(T a, T b) {
    const int64_t sum = static_cast<int64_t>(a) + b;
    return static_cast<T>(std::clamp<int64_t>(sum, INT32_MIN, INT32_MAX));
  }
};
template <class T>
struct SubtractSaturated {
  static T Run(T a, T b) {
    const int64_t difference = static_cast<int64_t>(a) - b;
    return static_cast<T>(std::clamp<int64_t>(difference, INT32_MIN, INT32_MAX));
  }
};
template <class T>
struct MultiplyLow {
  static T Run(T a, T b) {
    return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  }
};
template <class T>
struct MultiplyHigh {
  static T Run(T a, T b) { return static_cast<T>((Wide<T>(a) * Wide<T>(b)) >> (8 * sizeof(T))); }
};
template <class T>
struct MultiplyWide {
  static Wide<T> Run(T a, T b) {
    return static_cast<Wide<T>>(Unsigned<T>(0)) + Wide<T>(a) * Wide<T>(b);
  }
};
template <class T>
struct MultiplyAddLow {
  static T Run(T a, T b, T c) {
    return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b) +
                          static_cast<uint64_t>(c));
  }
};
template <class T>
struct MultiplyAddHigh {
  static T Run(T a, T b, T c) { return Add<T>::Run(MultiplyHigh<T>::Run(a, b), c); }
};
template <class T>
struct MultiplyAddHighSaturated {
  static T Run(T a, T b, T c) { return AddSaturated<T>::Run(MultiplyHigh<T>::Run(a, b), c); }
};
template <class T>
struct MultiplyAddWide {
  static Wide<T> Run(T a, T b, Wide<T> c) {
    using U = Unsigned<Wide<T>>;
    return static_cast<Wide<T>>(static_cast<U>(Wide<T>(a) * Wide<T>(b)) + static_cast<U>(c));
  }
};
template <class T>
int64_t Low24(T a) {
  return std::is_signed<T>::value
             ? static_cast<int64_t>(static_cast<int32_t>(static_cast<uint32_t>(a) << 8) >> 8)
             : static_cast<int64_t>(static_cast<uint32_t>(a) & 0xFFFFFF);
}
template <class T>
struct Multiply24 {
  static T Run(T a, T b) { return static_cast<T>(Low24(a) * Low24(b)); }
};
template <class T>
struct Multiply24High {
  static T Run(T a, T b) { return static_cast<T>(Low24(a) * Low24(b) >> 16); }
};
template <class T>
struct MultiplyAdd24 {
  static T Run(T a, T b, T c) { return Add<T>::Run(Multiply24<T>::Run(a, b), c); }
};
// Division by zero and the quotient that does not fit are undefined in PTX: all bits set.
template <class T>
struct Divide {
  static T Run(T a, T b) {
    if (b == 0) return static_cast<T>(~T(0));
    if (std::is_signed<T>::value && b == static_cast<T>(-1)) return Subtract<T>::Run(0, a);
    return static_cast<T>(a / b);
  }
};
template <class T>
struct Remainder {
  static T Run(T a, T b) {
    if (b == 0) return a;
    if (std::is_signed<T>::value && b == static_cast<T>(-1)) return 0;
    return static_cast<T>(a % b);
  }
};
template <class T>
struct Minimum {
  static T Run(T a, T b) { return a < b ? a : b; }
};
template <class T>
struct Maximum {
  static T Run(T a, T b) { return a > b ? a : b; }
};
template <class T>
struct Negate {
  static T Run(T a) { return Subtract<T>::Run(0, a); }
};
template <class T>
struct Absolute {
  static T Run(T a) { return a < 0 ? Subtract<T>::Run(0, a) : a; }
};
template <class T>
struct SumOfDifference {
  static T Run(T a, T b, T c) {
    return Add<T>::Run(c, a < b ? Subtract<T>::Run(b, a) : Subtract<T>::Run(a, b));
  }
};
template <class T>
struct And {
  static T Run(T a, T b) { return a & b; }
};
template <class T>
struct Or {
  static T Run(T a, T b) { return a | b; }
};
template <class T>
struct Xor {
  static T Run(T a, T b) { return a ^ b; }
};
template <class T>
struct Not {
  static T Run(T a) { return static_cast<T>(~a); }
};
template <class T>
struct LogicalNot {
  static T Run(T a) { return a == 0; }
};
// Shift counts beyond the width act as the width.
template <class T>
struct ShiftLeft {
  static T Run(T a, uint32_t n) {
    return n >= 8 * sizeof(T) ? T(0) : static_cast<T>(Unsigned<T>(a) << n);
  }
};
template <class T>
struct ShiftRight {
  static T Run(T a, uint32_t n) {
    const uint32_t last = 8 * sizeof(T) - 1;
    if (!std::is_signed<T>::value) return n > last ? T(0) : static_cast<T>(a >> n);
    return static_cast<T>(a >> (n > last ? last : n));
  }
};
template <class T>
struct CountOnes {
  static uint32_t Run(T a) { return __builtin_popcountll(static_cast<Unsigned<T>>(a)); }
};
template <class T>
struct LeadingZeros {
  static uint32_t Run(T a) {
    return a == 0 ? 8 * sizeof(T)
                  : __builtin_clzll(static_cast<uint64_t>(a)) - (64 - 8 * sizeof(T));
  }
};
template <class T>
struct Reverse {
  static T Run(T a) {
    T r = 0;
    for (unsigned i = 0; i < 8 * sizeof(T); ++i) r = static_cast<T>(r << 1 | (a >> i & 1));
    return r;
  }
};
template <class T>
struct FindBit {  // most significant bit that is not a copy of the sign
  static uint32_t Run(T a) {
    const Unsigned<T> v = static_cast<Unsigned<T>>(std::is_signed<T>::value && a < 0 ? ~a : a);
    return v == 0 ? 0xFFFFFFFFu : static_cast<uint32_t>(63 - __builtin_clzll(v));
  }
};
template <class T>
struct FindBitShift {
  static uint32_t Run(T a) {
    const uint32_t at = FindBit<T>::Run(a);
    return at == 0xFFFFFFFFu ? at : static_cast<uint32_t>(8 * sizeof(T) - 1 - at);
  }
};
template <class T>
struct ExtractField {
  static T Run(T a, uint32_t b, uint32_t c) {
    const uint32_t position = b & 0xFF, length = c & 0xFF;
    const uint32_t last = 8 * sizeof(T) - 1;
    Unsigned<T> result = 0;
    const uint32_t sign_at = std::min(position + length - 1, last);
    const bool sign =
        std::is_signed<T>::value && length != 0 && (Unsigned<T>(a) >> sign_at & 1) != 0;
    for (uint32_t i = 0; i <= last; ++i) {
      const bool bit =
          i < length && position + i <= last ? (Unsigned<T>(a) >> (position + i) & 1) != 0 : sign;
      result |= static_cast<Unsigned<T>>(bit) << i;
    }
    return static_cast<T>(result);
  }
};
template <class T>
T InsertField(T a, T b, uint32_t c, uint32_t d) {
  const uint32_t position = c & 0xFF, length = d & 0xFF;
  constexpr uint32_t kBits = 8 * sizeof(T);
  if (position >= kBits || length == 0) return b;
  const T ones = length >= kBits ? static_cast<T>(~T(0)) : static_cast<T>((T(1) << length) - 1);
  const T field = static_cast<T>(ones << position);
  return static_cast<T>((b & ~field) | (static_cast<T>(a << position) & field));
}
struct MaskClamp {
  static uint32_t Run(uint32_t a, uint32_t b) {
    if (a >= 32) return 0;
    const uint64_t ones = b >= 32 ? 0xFFFFFFFFull : (uint64_t{1} << b) - 1;
    return static_cast<uint32_t>(ones << a);
  }
};
struct MaskWrap {
  static uint32_t Run(uint32_t a, uint32_t b) {
    return static_cast<uint32_t>((((uint64_t{1} << (b & 31)) - 1)) << (a & 31));
  }
};
struct FunnelLeftClamp {
  static uint32_t Run(uint32_t a, uint32_t b, uint32_t c) {
    const uint32_t n = std::min(c, 32u);
    return static_cast<uint32_t>(((uint64_t{b} << 32 | a) << n) >> 32);
  }
};
struct FunnelLeftWrap {
  static uint32_t Run(uint32_t a, uint32_t b, uint32_t c) {
    return static_cast<uint32_t>(((uint64_t{b} << 32 | a) << (c & 31)) >> 32);
  }
};
struct FunnelRightClamp {
  static uint32_t Run(uint32_t a, uint32_t b, uint32_t c) {
    return static_cast<uint32_t>((uint64_t{b} << 32 | a) >> std::min(c, 32u));
  }
};
struct FunnelRightWrap {
  static uint32_t Run(uint32_t a, uint32_t b, uint32_t c) {
    return static_cast<uint32_t>((uint64_t{b} << 32 | a) >> (c & 31));
  }
};
struct FindNthSet {
  static uint32_t Run(uint32_t mask, uint32_t base, int32_t offset) {
    if (offset == 0) return base < 32 && (mask >> base & 1) != 0 ? base : 0xFFFFFFFFu;
    int32_t left = offset > 0 ? offset : -offset;
    const int step = offset > 0 ? 1 : -1;
    for (int i = static_cast<int>(base); i >= 0 && i < 32; i += step) {
      if ((mask >> i & 1) != 0 && --left == 0) return static_cast<uint32_t>(i);
    }
    return 0xFFFFFFFFu;
  }
};
template <class A, class B>
struct Dot4 {
  static uint32_t Run(uint32_t a, uint32_t b, uint32_t c) {
    for (int i = 0; i < 4; ++i) {
      c += static_cast<uint32_t>(static_cast<int32_t>(static_cast<A>(a >> 8 * i)) *
                                 static_cast<int32_t>(static_cast<B>(b >> 8 * i)));
    }
    return c;
  }
};
template <class A, class B, int kHigh>
struct Dot2 {
  static uint32_t Run(uint32_t a, uint32_t b, uint32_t c) {
    for (int i = 0; i < 2; ++i) {
      c += static_cast<uint32_t>(static_cast<int64_t>(static_cast<A>(a >> 16 * i)) *
                                 static_cast<int64_t>(static_cast<B>(b >> (8 * i + 16 * kHigh))));
    }
    return c;
  }
};

// prmt: the generic form takes each byte's source from a nibble of c, whose bit 3 asks for the
// byte's sign instead.
struct Permute {
  static uint32_t Run(uint32_t a, uint32_t b, uint32_t c) {
    const uint64_t both = uint64_t{b} << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; ++i) {
      const uint32_t pick = c >> 4 * i & 0xF;
      uint32_t byte = static_cast<uint32_t>(both >> 8 * (pick & 7)) & 0xFF;
      if ((pick & 8) != 0) byte = (byte & 0x80) != 0 ? 0xFF : 0;
      r |= byte << 8 * i;
    }
    return r;
  }
};
template <class F>
struct PermuteMode {
  static uint32_t Run(uint32_t a, uint32_t b, uint32_t c) {
    const uint64_t both = uint64_t{b} << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; ++i)
      r |= (static_cast<uint32_t>(both >> 8 * F::Pick(c & 3, i)) & 0xFF) << 8 * i;
    return r;
  }
};
struct Forward4 {
  static int Pick(int c, int i) { return c + i; }
};
struct Backward4 {
  static int Pick(int c, int i) { return (c - i) & 7; }
};
struct Replicate8 {
  static int Pick(int c, int) { return c; }
};
struct EdgeLeft {
  static int Pick(int c, int i) { return std::max(c, i); }
};
struct EdgeRight {
  static int Pick(int c, int i) { return std::min(c, i); }
};
struct Replicate16 {
  static int Pick(int c, int i) { return 2 * (c & 1) + (i & 1); }
};

void RunLookup3(Warp& warp, const Instruction& instruction, uint32_t mask) {
  uint32_t* d = warp.Reg<uint32_t>(instruction.d);
  const uint32_t* a = warp.Reg<uint32_t>(instruction.a);
  const uint32_t* b = warp.Reg<uint32_t>(instruction.b);
  const uint32_t* c = warp.Reg<uint32_t>(instruction.c);
  const uint32_t table = static_cast<uint32_t>(instruction.immediate);
  uint32_t term[8];
  for (int i = 0; i < 8; ++i) term[i] = (table >> i & 1) != 0 ? 0xFFFFFFFFu : 0;
  NIBBLE_EMULATOR_LANES(const uint32_t x = a[l]; const uint32_t y = b[l]; const uint32_t z = c[l];
                        d[l] = (term[0] & ~x & ~y & ~z) | (term[1] & ~x & ~y & z) |
                               (term[2] & ~x & y & ~z) | (term[3] & ~x & y & z) |
                               (term[4] & x & ~y & ~z) | (term[5] & x & ~y & z) |
                               (term[6] & x & y & ~z) | (term[7] & x & y & z))
}

template <class T>
void RunInsertField(Warp& warp, const Instruction& instruction, uint32_t mask) {
  T* d = warp.Reg<T>(instruction.d);
  const T* a = warp.Reg<T>(instruction.a);
  const T* b = warp.Reg<T>(instruction.b);
  const uint32_t* c = warp.Reg<uint32_t>(instruction.c);
  const uint32_t* e = warp.Reg<uint32_t>(instruction.list[0]);
  NIBBLE_EMULATOR_LANES(d[l] = InsertField<T>(a[l], b[l], c[l], e[l]))
}

// Predicates are masks, so logic on them is one operation.
enum Logic : uint8_t { kAnd, kOr, kXor, kNot };
void RunPredicateLogic(Warp& warp, const Instruction& instruction, uint32_t mask) {
  uint32_t a = warp.Pred(instruction.a);
  uint32_t b = instruction.b >= 0 ? warp.Pred(instruction.b) : 0;
  if ((instruction.mode & 1) != 0) a = ~a;
  if ((instruction.mode & 2) != 0) b = ~b;
  const uint32_t value = instruction.option == kAnd   ? a & b
                         : instruction.option == kOr  ? a | b
                         : instruction.option == kXor ? a ^ b
                                                      : ~a;
  uint32_t& d = warp.Pred(instruction.d);
  d = (d & ~mask) | (value & mask);
}

// add.cc, addc, sub.cc, subc, mad.cc, madc: mode bit 0 takes the carry, bit 1 sets it.
template <class T, bool kSubtract>
void RunCarryAdd(Warp& warp, const Instruction& instruction, uint32_t mask) {
  T* d = warp.Reg<T>(instruction.d);
  const T* a = warp.Reg<T>(instruction.a);
  const T* b = warp.Reg<T>(instruction.b);
  const uint32_t in = (instruction.mode & 1) != 0 ? warp.carry : 0;
  uint32_t out = 0;
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    const unsigned carry = in >> l & 1;
    using W = unsigned __int128;
    const W sum = kSubtract ? W{a[l]} - b[l] - carry : W{a[l]} + b[l] + carry;
    out |= static_cast<uint32_t>((sum >> (8 * sizeof(T))) & 1) << l;
    d[l] = static_cast<T>(sum);
  }
  if ((instruction.mode & 2) != 0) warp.carry = (warp.carry & ~mask) | out;
}

template <class T, bool kHigh>
void RunCarryMultiplyAdd(Warp& warp, const Instruction& instruction, uint32_t mask) {
  T* d = warp.Reg<T>(instruction.d);
  const T* a = warp.Reg<T>(instruction.a);
  const T* b = warp.Reg<T>(instruction.b);
  const T* c = warp.Reg<T>(instruction.c);
  const uint32_t in = (instruction.mode & 1) != 0 ? warp.carry : 0;
  uint32_t out = 0;
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    using W = unsigned __int128;
    const T product = kHigh ? MultiplyHigh<T>::Run(a[l], b[l]) : MultiplyLow<T>::Run(a[l], b[l]);
    const W sum =
        W{static_cast<Unsigned<T>>(product)} + static_cast<Unsigned<T>>(c[l]) + (in >> l & 1);
    out |= static_cast<uint32_t>((sum >> (8 * sizeof(T))) & 1) << l;
    d[l] = static_cast<T>(sum);
  }
  if ((instruction.mode & 2) != 0) warp.carry = (warp.carry & ~mask) | out;
}

template <template <class> class Op>
Handler Binary(const std::string& type) {
  if (type == "s16") return RunBinary<Op<int16_t>, int16_t, int16_t>;
  if (type == "s32") return RunBinary<Op<int32_t>, int32_t, int32_t>;
  if (type == "s64") return RunBinary<Op<int64_t>, int64_t, int64_t>;
  if (type == "u16" || type == "b16") return RunBinary<Op<uint16_t>, uint16_t, uint16_t>;
  if (type == "u32" || type == "b32") return RunBinary<Op<uint32_t>, uint32_t, uint32_t>;
  if (type == "u64" || type == "b64") return RunBinary<Op<uint64_t>, uint64_t, uint64_t>;
  return nullptr;
}
template <template <class> class Op>
Handler Ternary(const std::string& type) {
  if (type == "s16") return RunTernary<Op<int16_t>, int16_t, int16_t>;
  if (type == "s32") return RunTernary<Op<int32_t>, int32_t, int32_t>;
  if (type == "s64") return RunTernary<Op<int64_t>, int64_t, int64_t>;
  if (type == "u16" || type == "b16") return RunTernary<Op<uint16_t>, uint16_t, uint16_t>;
  if (type == "u32" || type == "b32") return RunTernary<Op<uint32_t>, uint32_t, uint32_t>;
  if (type == "u64" || type == "b64") return RunTernary<Op<uint64_t>, uint64_t, uint64_t>;
  return nullptr;
}
template <template <class> class Op>
Handler UnarySame(const std::string& type) {
  if (type == "s16") return RunUnary<Op<int16_t>, int16_t, int16_t>;
  if (type == "s32") return RunUnary<Op<int32_t>, int32_t, int32_t>;
  if (type == "s64") return RunUnary<Op<int64_t>, int64_t, int64_t>;
  if (type == "u16" || type == "b16") return RunUnary<Op<uint16_t>, uint16_t, uint16_t>;
  if (type == "u32" || type == "b32") return RunUnary<Op<uint32_t>, uint32_t, uint32_t>;
  if (type == "u64" || type == "b64") return RunUnary<Op<uint64_t>, uint64_t, uint64_t>;
  return nullptr;
}
template <template <class> class Op>
Handler ToCount(const std::string& type) {
  if (type == "s32") return RunUnary<Op<int32_t>, uint32_t, int32_t>;
  if (type == "s64") return RunUnary<Op<int64_t>, uint32_t, int64_t>;
  if (type == "u32" || type == "b32") return RunUnary<Op<uint32_t>, uint32_t, uint32_t>;
  if (type == "u64" || type == "b64") return RunUnary<Op<uint64_t>, uint32_t, uint64_t>;
  return nullptr;
}
template <template <class> class Op>
Handler WidenTwo(const std::string& type) {
  if (type == "s16") return RunBinary<Op<int16_t>, int32_t, int16_t>;
  if (type == "u16") return RunBinary<Op<uint16_t>, uint32_t, uint16_t>;
  if (type == "s32") return RunBinary<Op<int32_t>, int64_t, int32_t>;
  if (type == "u32") return RunBinary<Op<uint32_t>, uint64_t, uint32_t>;
  return nullptr;
}
template <template <class> class Op>
Handler WidenThree(const std::string& type) {
  if (type == "s16") return RunTernary<Op<int16_t>, int32_t, int16_t>;
  if (type == "u16") return RunTernary<Op<uint16_t>, uint32_t, uint16_t>;
  if (type == "s32") return RunTernary<Op<int32_t>, int64_t, int32_t>;
  if (type == "u32") return RunTernary<Op<uint32_t>, uint64_t, uint32_t>;
  return nullptr;
}
template <template <class> class Op>
Handler Shift(const std::string& type) {
  if (type == "s16") return RunBinary<Op<int16_t>, int16_t, int16_t, uint32_t>;
  if (type == "s32") return RunBinary<Op<int32_t>, int32_t, int32_t, uint32_t>;
  if (type == "s64") return RunBinary<Op<int64_t>, int64_t, int64_t, uint32_t>;
  if (type == "u16" || type == "b16") return RunBinary<Op<uint16_t>, uint16_t, uint16_t, uint32_t>;
  if (type == "u32" || type == "b32") return RunBinary<Op<uint32_t>, uint32_t, uint32_t, uint32_t>;
  if (type == "u64" || type == "b64") return RunBinary<Op<uint64_t>, uint64_t, uint64_t, uint32_t>;
  return nullptr;
}

bool IsInteger(const std::string& type) {
  return type == "s16" || type == "s32" || type == "s64" || type == "u16" || type == "u32" ||
         type == "u64";
}

// The last modifier names the type.
std::string LastType(const Statement& statement) {
  return statement.opcode.size() > 1 ? statement.opcode.back() : "";
}

void Operands(Decoder& decoder, Instruction* instruction, int d,
              std::initializer_list<int> sources) {
  instruction->d = decoder.Destination(0, d);
  int32_t* const fields[] = {&instruction->a, &instruction->b, &instruction->c};
  size_t i = 0;
  for (int bits : sources) {
    *fields[i] = decoder.Source(i + 1, bits);
    ++i;
  }
}

bool DecodeArithmetic(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  const std::string& name = statement.opcode[0];
  const std::string last = LastType(statement);
  if (!IsInteger(last)) return false;
  Modifiers modifiers(statement);
  const std::string type = modifiers.TakeType();
  const int bits = BitsOf(type);
  const auto done = [&](Handler run) {
    modifiers.Finish();
    if (run == nullptr) modifiers.Unknown("type ." + type);
    instruction->run = run;
    return true;
  };
  if (name == "add" || name == "sub" || name == "addc" || name == "subc") {
    Operands(decoder, instruction, bits, {bits, bits});
    const bool subtract = name[0] == 's';
    const bool sets = modifiers.Take("cc");
    if (sets || name.size() == 4) {
      instruction->mode = static_cast<uint8_t>((name.size() == 4 ? 1 : 0) | (sets ? 2 : 0));
      return done(bits == 32
                      ? (subtract ? RunCarryAdd<uint32_t, true> : RunCarryAdd<uint32_t, false>)
                      : (subtract ? RunCarryAdd<uint64_t, true> : RunCarryAdd<uint64_t, false>));
    }
    if (modifiers.Take("sat")) {
      if (type != "s32") modifiers.Unknown("saturation of ." + type);
      return done(subtract ? RunBinary<SubtractSaturated<int32_t>, int32_t, int32_t>
                           : RunBinary<AddSaturated<int32_t>, int32_t, int32_t>);
    }
    return done(subtract ? Binary<Subtract>(type) : Binary<Add>(type));
  }
  if (name == "mul" || name == "mad" || name == "madc") {
    const bool mad = name != "mul";
    if (modifiers.Take("wide")) {
      Operands(decoder, instruction, 2 * bits, {bits, bits});
      if (mad) instruction->c = decoder.Source(3, 2 * bits);
      return done(mad ? WidenThree<MultiplyAddWide>(type) : WidenTwo<MultiplyWide>(type));
    }
    const bool high = modifiers.Take("hi");
    if (!high && !modifiers.Take("lo")) modifiers.Unknown("neither .lo, .hi nor .wide");
    Operands(decoder, instruction, bits, {bits, bits});
    if (!mad) return done(high ? Binary<MultiplyHigh>(type) : Binary<MultiplyLow>(type));
    instruction->c = decoder.Source(3, bits);
    const bool sets = modifiers.Take("cc");
    if (sets || name == "madc") {
      instruction->mode = static_cast<uint8_t>((name == "madc" ? 1 : 0) | (sets ? 2 : 0));
      if (type == "u32")
        return done(high ? RunCarryMultiplyAdd<uint32_t, true>
                         : RunCarryMultiplyAdd<uint32_t, false>);
      if (type == "s32")
        return done(high ? RunCarryMultiplyAdd<int32_t, true>
                         : RunCarryMultiplyAdd<int32_t, false>);
      if (type == "u64")
        return done(high ? RunCarryMultiplyAdd<uint64_t, true>
                         : RunCarryMultiplyAdd<uint64_t, false>);
      return done(high ? RunCarryMultiplyAdd<int64_t, true> : RunCarryMultiplyAdd<int64_t, false>);
    }
    if (modifiers.Take("sat")) {
      if (type != "s32" || !high) modifiers.Unknown();
      return done(RunTernary<MultiplyAddHighSaturated<int32_t>, int32_t, int32_t>);
    }
    return done(high ? Ternary<MultiplyAddHigh>(type) : Ternary<MultiplyAddLow>(type));
  }
  if (name == "mul24" || name == "mad24") {
    const bool high = modifiers.Take("hi");
    if (!high) modifiers.Take("lo");
    Operands(decoder, instruction, 32, {32, 32});
    const bool is_signed = type == "s32";
    if (name == "mul24") {
      return done(high ? (is_signed ? RunBinary<Multiply24High<int32_t>, int32_t, int32_t>
                                    : RunBinary<Multiply24High<uint32_t>, uint32_t, uint32_t>)
                       : (is_signed ? RunBinary<Multiply24<int32_t>, int32_t, int32_t>
                                    : RunBinary<Multiply24<uint32_t>, uint32_t, uint32_t>));
    }
    if (high) modifiers.Unknown(".hi");
    instruction->c = decoder.Source(3, 32);
    return done(is_signed ? RunTernary<MultiplyAdd24<int32_t>, int32_t, int32_t>
                          : RunTernary<MultiplyAdd24<uint32_t>, uint32_t, uint32_t>);
  }
  if (name == "div" || name == "rem" || name == "min" || name == "max") {
    Operands(decoder, instruction, bits, {bits, bits});
    return done(name == "div"   ? Binary<Divide>(type)
                : name == "rem" ? Binary<Remainder>(type)
                : name == "min" ? Binary<Minimum>(type)
                                : Binary<Maximum>(type));
  }
  if (name == "neg" || name == "abs") {
    Operands(decoder, instruction, bits, {bits});
    if (name == "neg") return done(UnarySame<Negate>(type));
    return done(type == "s16"   ? RunUnary<Absolute<int16_t>, int16_t, int16_t>
                : type == "s32" ? RunUnary<Absolute<int32_t>, int32_t, int32_t>
                : type == "s64" ? RunUnary<Absolute<int64_t>, int64_t, int64_t>
                                : nullptr);
  }
  if (name == "sad") {
    Operands(decoder, instruction, bits, {bits, bits, bits});
    return done(Ternary<SumOfDifference>(type));
  }
  return false;
}

bool DecodeDot(Decoder& decoder, Instruction* instruction) {
  const std::string& name = decoder.statement().opcode[0];
  if (name != "dp4a" && name != "dp2a") return false;
  Modifiers modifiers(decoder.statement());
  const bool high = name == "dp2a" && modifiers.Take("hi");
  if (name == "dp2a" && !high && !modifiers.Take("lo")) modifiers.Unknown();
  const std::string a = modifiers.TakeType();
  const std::string b = modifiers.TakeType();
  modifiers.Finish();
  Operands(decoder, instruction, 32, {32, 32, 32});
  const int which = (a == "s32" ? 2 : 0) + (b == "s32" ? 1 : 0);
  using U = uint32_t;
  static const Handler kDot4[] = {
      RunTernary<Dot4<uint8_t, uint8_t>, U, U>, RunTernary<Dot4<uint8_t, int8_t>, U, U>,
      RunTernary<Dot4<int8_t, uint8_t>, U, U>, RunTernary<Dot4<int8_t, int8_t>, U, U>};
  static const Handler kLow[] = {
      RunTernary<Dot2<uint16_t, uint8_t, 0>, U, U>, RunTernary<Dot2<uint16_t, int8_t, 0>, U, U>,
      RunTernary<Dot2<int16_t, uint8_t, 0>, U, U>, RunTernary<Dot2<int16_t, int8_t, 0>, U, U>};
  static const Handler kHigh[] = {
      RunTernary<Dot2<uint16_t, uint8_t, 1>, U, U>, RunTernary<Dot2<uint16_t, int8_t, 1>, U, U>,
      RunTernary<Dot2<int16_t, uint8_t, 1>, U, U>, RunTernary<Dot2<int16_t, int8_t, 1>, U, U>};
  instruction->run = name == "dp4a" ? kDot4[which] : high ? kHigh[which] : kLow[which];
  return true;
}

bool DecodeLogic(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  const std::string& name = statement.opcode[0];
  if (name != "and" && name != "or" && name != "xor" && name != "not" && name != "cnot" &&
      name != "lop3")
    return false;
  Modifiers modifiers(statement);
  if (name == "lop3") {
    if (modifiers.TakeType() != "b32") modifiers.Unknown();
    modifiers.Finish();
    Operands(decoder, instruction, 32, {32, 32, 32});
    instruction->immediate = static_cast<int64_t>(decoder.operand(4).integer);
    instruction->run = RunLookup3;
    return true;
  }
  const std::string type = modifiers.TakeType();
  modifiers.Finish();
  if (type == "pred") {
    bool negated_a = false, negated_b = false;
    instruction->d = decoder.Destination(0, 1);
    instruction->a = decoder.SourcePredicate(decoder.operand(1), &negated_a);
    if (name != "not") instruction->b = decoder.SourcePredicate(decoder.operand(2), &negated_b);
    instruction->mode = static_cast<uint8_t>((negated_a ? 1 : 0) | (negated_b ? 2 : 0));
    instruction->option = name == "and" ? kAnd : name == "or" ? kOr : name == "xor" ? kXor : kNot;
    instruction->run = RunPredicateLogic;
    return true;
  }
  const int bits = BitsOf(type);
  if (name == "not" || name == "cnot") {
    Operands(decoder, instruction, bits, {bits});
    instruction->run = name == "not" ? UnarySame<Not>(type) : UnarySame<LogicalNot>(type);
  } else {
    Operands(decoder, instruction, bits, {bits, bits});
    instruction->run = name == "and"  ? Binary<And>(type)
                       : name == "or" ? Binary<Or>(type)
                                      : Binary<Xor>(type);
  }
  if (instruction->run == nullptr) modifiers.Unknown("type ." + type);
  return true;
}

bool DecodeBits(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  const std::string& name = statement.opcode[0];
  Modifiers modifiers(statement);
  const auto done = [&](Handler run) {
    modifiers.Finish();
    if (run == nullptr) modifiers.Unknown();
    instruction->run = run;
    return true;
  };
  using U = uint32_t;
  if (name == "shl" || name == "shr") {
    const std::string type = modifiers.TakeType();
    const int bits = BitsOf(type);
    Operands(decoder, instruction, bits, {bits, 32});
    return done(name == "shl" ? Shift<ShiftLeft>(type) : Shift<ShiftRight>(type));
  }
  if (name == "shf") {
    const bool left = modifiers.Take("l");
    if (!left && !modifiers.Take("r")) modifiers.Unknown();
    const bool wrap = modifiers.Take("wrap");
    if (!wrap && !modifiers.Take("clamp")) modifiers.Unknown();
    modifiers.TakeType();
    Operands(decoder, instruction, 32, {32, 32, 32});
    return done(
        left ? (wrap ? RunTernary<FunnelLeftWrap, U, U> : RunTernary<FunnelLeftClamp, U, U>)
             : (wrap ? RunTernary<FunnelRightWrap, U, U> : RunTernary<FunnelRightClamp, U, U>));
  }
  if (name == "popc" || name == "clz" || name == "bfind") {
    const bool shift = modifiers.Take("shiftamt");
    const std::string type = modifiers.TakeType();
    Operands(decoder, instruction, 32, {BitsOf(type)});
    return done(name == "popc"  ? ToCount<CountOnes>(type)
                : name == "clz" ? ToCount<LeadingZeros>(type)
                : shift         ? ToCount<FindBitShift>(type)
                                : ToCount<FindBit>(type));
  }
  if (name == "brev") {
    const std::string type = modifiers.TakeType();
    Operands(decoder, instruction, BitsOf(type), {BitsOf(type)});
    return done(type == "b32" ? RunUnary<Reverse<U>, U, U>
                              : RunUnary<Reverse<uint64_t>, uint64_t, uint64_t>);
  }
  if (name == "bfe") {
    const std::string type = modifiers.TakeType();
    Operands(decoder, instruction, BitsOf(type), {BitsOf(type), 32, 32});
    return done(type == "u32"   ? RunTernary<ExtractField<U>, U, U, U, U>
                : type == "s32" ? RunTernary<ExtractField<int32_t>, int32_t, int32_t, U, U>
                : type == "u64" ? RunTernary<ExtractField<uint64_t>, uint64_t, uint64_t, U, U>
                                : RunTernary<ExtractField<int64_t>, int64_t, int64_t, U, U>);
  }
  if (name == "bfi") {
    const std::string type = modifiers.TakeType();
    Operands(decoder, instruction, BitsOf(type), {BitsOf(type), BitsOf(type), 32});
    instruction->list = decoder.Keep({decoder.Source(4, 32)});
    return done(type == "b32" ? RunInsertField<U> : RunInsertField<uint64_t>);
  }
  if (name == "bmsk") {
    const bool wrap = modifiers.Take("wrap");
    if (!wrap && !modifiers.Take("clamp")) modifiers.Unknown();
    modifiers.TakeType();
    Operands(decoder, instruction, 32, {32, 32});
    return done(wrap ? RunBinary<MaskWrap, U, U> : RunBinary<MaskClamp, U, U>);
  }
  if (name == "fns") {
    modifiers.TakeType();
    Operands(decoder, instruction, 32, {32, 32, 32});
    return done(RunTernary<FindNthSet, U, U, U, int32_t>);
  }
  if (name == "prmt") {
    modifiers.TakeType();
    Operands(decoder, instruction, 32, {32, 32, 32});
    const std::string mode = modifiers.TakeOf({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
    return done(mode.empty()    ? RunTernary<Permute, U, U>
                : mode == "f4e" ? RunTernary<PermuteMode<Forward4>, U, U>
                : mode == "b4e" ? RunTernary<PermuteMode<Backward4>, U, U>
                : mode == "rc8" ? RunTernary<PermuteMode<Replicate8>, U, U>
                : mode == "ecl" ? RunTernary<PermuteMode<EdgeLeft>, U, U>
                : mode == "ecr" ? RunTernary<PermuteMode<EdgeRight>, U, U>
                                : RunTernary<PermuteMode<Replicate16>, U, U>);
  }
  return false;
}

}  // namespace

bool DecodeInteger(Decoder& decoder, Instruction* instruction) {
  return DecodeArithmetic(decoder, instruction) || DecodeDot(decoder, instruction) ||
         DecodeLogic(decoder, instruction) || DecodeBits(decoder, instruction);
}

}  // namespace nibble::cuda::emulator
