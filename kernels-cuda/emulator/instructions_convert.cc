// SPDX-License-Identifier: Apache-2.0
//
// cvt in all its forms, and cvt.pack.

#include <cfenv>
#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels-cuda/emulator/decoder.h"
#include "kernels-cuda/emulator/lanes.h"
#include "kernels-cuda/emulator/small_floats.h"

namespace nibble::cuda::emulator {

namespace {

float FlushSingle(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

// ---- integer to integer -----------------------------------------------------------------------

template <class To, class From>
struct Widen {
  static To Run(From a) { return static_cast<To>(a); }
};
// .sat clamps to the destination's range. R is the register that holds the result.
template <class R, class To, class From>
struct Clamp {
  static R Run(From a) {
    using Wide = __int128;
    const Wide low = std::numeric_limits<To>::min(), high = std::numeric_limits<To>::max();
    const Wide value = a;
    return static_cast<R>(static_cast<To>(value < low ? low : value > high ? high : value));
  }
};
// A register may be wider than the type: the source is cut to it first, the result extended.
template <class R, class To, class S, class From>
struct Integer {
  static R Run(S a) { return static_cast<R>(static_cast<To>(static_cast<From>(a))); }
};
template <class R, class To, class S, class From>
struct IntegerClamped {
  static R Run(S a) { return Clamp<R, To, From>::Run(static_cast<From>(a)); }
};

template <class R, class To, class S, class From>
Handler PickClamp(bool clamp) {
  return clamp ? RunUnary<IntegerClamped<R, To, S, From>, R, S>
               : RunUnary<Integer<R, To, S, From>, R, S>;
}
template <class S, class From>
Handler ToInteger(const std::string& to, int bits, bool clamp) {
  if (to == "u8")
    return bits == 16   ? PickClamp<uint16_t, uint8_t, S, From>(clamp)
           : bits == 32 ? PickClamp<uint32_t, uint8_t, S, From>(clamp)
                        : PickClamp<uint64_t, uint8_t, S, From>(clamp);
  if (to == "s8")
    return bits == 16   ? PickClamp<uint16_t, int8_t, S, From>(clamp)
           : bits == 32 ? PickClamp<uint32_t, int8_t, S, From>(clamp)
                        : PickClamp<uint64_t, int8_t, S, From>(clamp);
  if (to == "u16" && bits == 16) return PickClamp<uint16_t, uint16_t, S, From>(clamp);
  if (to == "s16" && bits == 16) return PickClamp<uint16_t, int16_t, S, From>(clamp);
  if (to == "u16" && bits == 32) return PickClamp<uint32_t, uint16_t, S, From>(clamp);
  if (to == "s16" && bits == 32) return PickClamp<uint32_t, int16_t, S, From>(clamp);
  if (to == "u32" && bits == 32) return PickClamp<uint32_t, uint32_t, S, From>(clamp);
  if (to == "s32" && bits == 32) return PickClamp<uint32_t, int32_t, S, From>(clamp);
  if (to == "u32" && bits == 64) return PickClamp<uint64_t, uint32_t, S, From>(clamp);
  if (to == "s32" && bits == 64) return PickClamp<uint64_t, int32_t, S, From>(clamp);
  if (to == "u64" && bits == 64) return PickClamp<uint64_t, uint64_t, S, From>(clamp);
  if (to == "s64" && bits == 64) return PickClamp<uint64_t, int64_t, S, From>(clamp);
  return nullptr;
}
template <class S>
Handler FromInteger(const std::string& from, const std::string& to, int bits, bool clamp) {
  if (from == "u8") return ToInteger<S, uint8_t>(to, bits, clamp);
  if (from == "s8") return ToInteger<S, int8_t>(to, bits, clamp);
  if (from == "u16") return ToInteger<S, uint16_t>(to, bits, clamp);
  if (from == "s16") return ToInteger<S, int16_t>(to, bits, clamp);
  if constexpr (sizeof(S) >= 4) {
    if (from == "u32") return ToInteger<S, uint32_t>(to, bits, clamp);
    if (from == "s32") return ToInteger<S, int32_t>(to, bits, clamp);
  }
  if constexpr (sizeof(S) >= 8) {
    if (from == "u64") return ToInteger<S, uint64_t>(to, bits, clamp);
    if (from == "s64") return ToInteger<S, int64_t>(to, bits, clamp);
  }
  return nullptr;
}

// ---- everything with a floating-point side ----------------------------------------------------

enum class Number : uint8_t { kInteger, kSmall, kSingle, kDouble };

struct Conversion {
  std::string from, to;
  Number from_kind, to_kind;
  SmallFormat from_small{}, to_small{};
  int from_bits = 0, to_bits = 0;  // of the registers
  int from_type_bits = 0, to_type_bits = 0;
  bool from_signed = false, to_signed = false;
  Rounding rounding = Rounding::kToZero;
  bool integral = false;  // .rni and the like on a floating-point result
  bool flush = false, saturate = false, relu = false, satfinite = false;
};

double RoundIntegral(double x, Rounding rounding) {
  switch (rounding) {
    case Rounding::kNearestEven:
      return std::nearbyint(x);
    case Rounding::kNearestAway:
      return std::round(x);
    case Rounding::kToZero:
      return std::trunc(x);
    case Rounding::kDown:
      return std::floor(x);
    default:
      return std::ceil(x);
  }
}

// F32 from a double that is exact, or from a 64-bit integer through one rounding.
template <class From>
float RoundSingle(From value, Rounding rounding) {
  const int mode = rounding == Rounding::kToZero ? FE_TOWARDZERO
                   : rounding == Rounding::kDown ? FE_DOWNWARD
                   : rounding == Rounding::kUp   ? FE_UPWARD
                                                 : FE_TONEAREST;
  if (mode == FE_TONEAREST) return static_cast<float>(value);
  std::fesetround(mode);
  volatile From v = value;
  volatile float r = static_cast<float>(v);
  std::fesetround(FE_TONEAREST);
  return r;
}
template <class From>
double RoundDouble(From value, Rounding rounding) {
  const int mode = rounding == Rounding::kToZero ? FE_TOWARDZERO
                   : rounding == Rounding::kDown ? FE_DOWNWARD
                   : rounding == Rounding::kUp   ? FE_UPWARD
                                                 : FE_TONEAREST;
  if (mode == FE_TONEAREST) return static_cast<double>(value);
  std::fesetround(mode);
  volatile From v = value;
  volatile double r = static_cast<double>(v);
  std::fesetround(FE_TONEAREST);
  return r;
}

uint64_t FloatToInteger(const Conversion& c, double x) {
  // A NaN becomes 0, or the top bit alone for 64 bits.
  if (x != x)
    return c.to_type_bits == 64 ? uint64_t{1} << 63 : c.to_type_bits == 32 || true ? 0 : 0;
  x = RoundIntegral(x, c.rounding);
  const int bits = c.to_type_bits;
  if (c.to_signed) {
    const double limit = std::ldexp(1.0, bits - 1);
    if (x >= limit) return (uint64_t{1} << (bits - 1)) - 1;
    if (x <= -limit) return ~uint64_t{0} << (bits - 1);
    return static_cast<uint64_t>(static_cast<int64_t>(x));
  }
  if (x <= 0) return 0;
  if (x >= std::ldexp(1.0, bits)) return bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
  return static_cast<uint64_t>(x);
}

uint64_t ConvertOne(const Conversion& c, uint64_t raw) {
  double x = 0;
  bool integer = false;
  __int128 whole = 0;
  switch (c.from_kind) {
    case Number::kInteger: {
      const int shift = 64 - c.from_type_bits;
      integer = true;
      whole = c.from_signed ? static_cast<__int128>(static_cast<int64_t>(raw << shift) >> shift)
                            : static_cast<__int128>(raw << shift >> shift);
      break;
    }
    case Number::kSmall:
      x = DecodeSmall(c.from_small, static_cast<uint32_t>(raw) & ((1u << c.from_small.bits()) - 1));
      break;
    case Number::kSingle: {
      float f = Bits<float>(static_cast<uint32_t>(raw));
      if (c.flush) f = FlushSingle(f);
      x = f;
      break;
    }
    case Number::kDouble:
      x = Bits<double>(raw);
      break;
  }
  if (integer) {
    const bool is_signed = c.from_signed;
    if (c.to_kind == Number::kSingle) {
      const float f = is_signed ? RoundSingle(static_cast<int64_t>(whole), c.rounding)
                                : RoundSingle(static_cast<uint64_t>(whole), c.rounding);
      return Bits<uint32_t>(f);
    }
    if (c.to_kind == Number::kDouble) {
      const double d = is_signed ? RoundDouble(static_cast<int64_t>(whole), c.rounding)
                                 : RoundDouble(static_cast<uint64_t>(whole), c.rounding);
      return Bits<uint64_t>(d);
    }
    // To 16 bits: a 64-bit integer in double may round; toward odd keeps the second rounding right.
    const double toward_zero = is_signed
                                   ? RoundDouble(static_cast<int64_t>(whole), Rounding::kToZero)
                                   : RoundDouble(static_cast<uint64_t>(whole), Rounding::kToZero);
    double d = toward_zero;
    if (static_cast<__int128>(toward_zero) != whole) d = Bits<double>(Bits<uint64_t>(d) | 1);
    return EncodeSmall(c.to_small, d, c.rounding, c.satfinite);
  }
  if (c.to_kind == Number::kInteger) {
    const uint64_t value = FloatToInteger(c, x);
    return value;
  }
  if (c.integral) x = RoundIntegral(x, c.rounding);
  if (c.saturate) x = !(x > 0) ? 0.0 : x > 1 ? 1.0 : x;
  if (c.relu && x < 0) x = 0;
  if (c.relu && x == 0) x = 0;
  switch (c.to_kind) {
    case Number::kSmall:
      return EncodeSmall(c.to_small, x, c.rounding, c.satfinite);
    case Number::kSingle: {
      if (x != x) return 0x7FFFFFFFu;
      float f = RoundSingle(x, c.integral ? Rounding::kNearestEven : c.rounding);
      if (c.flush) f = FlushSingle(f);
      return Bits<uint32_t>(f);
    }
    default:
      return x != x ? uint64_t{0xFFF8000000000000u} : Bits<uint64_t>(x);
  }
}

uint64_t ReadLane(Warp& warp, int32_t offset, int bits, int lane) {
  return bits == 16   ? warp.Reg<uint16_t>(offset)[lane]
         : bits == 32 ? warp.Reg<uint32_t>(offset)[lane]
                      : warp.Reg<uint64_t>(offset)[lane];
}
void WriteLane(Warp& warp, int32_t offset, int bits, int lane, uint64_t value) {
  if (bits == 16)
    warp.Reg<uint16_t>(offset)[lane] = static_cast<uint16_t>(value);
  else if (bits == 32)
    warp.Reg<uint32_t>(offset)[lane] = static_cast<uint32_t>(value);
  else
    warp.Reg<uint64_t>(offset)[lane] = value;
}

void RunConvert(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const Conversion& c = *static_cast<const Conversion*>(instruction.extra);
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    WriteLane(warp, instruction.d, c.to_bits, l,
              ConvertOne(c, ReadLane(warp, instruction.a, c.from_bits, l)));
  }
}

// Two numbers to a pair: operand a goes to the upper half, b to the lower.
void RunConvertPair(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const Conversion& c = *static_cast<const Conversion*>(instruction.extra);
  const int half = c.to_small.bits() <= 8 && c.to_type_bits == 8 ? 4 : c.to_type_bits / 2;
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    const uint64_t high = ConvertOne(c, ReadLane(warp, instruction.a, 32, l));
    const uint64_t low = ConvertOne(c, ReadLane(warp, instruction.b, 32, l));
    WriteLane(warp, instruction.d, c.to_bits, l, high << half | low);
  }
}

// A pair to a pair (e4m3x2 <-> f16x2): halves keep their places.
void RunConvertHalves(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const Conversion& c = *static_cast<const Conversion*>(instruction.extra);
  const int from_half = c.from_type_bits / 2, to_half = c.to_type_bits / 2;
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    const uint64_t pair = ReadLane(warp, instruction.a, c.from_bits, l);
    const uint64_t low = ConvertOne(c, pair & ((uint64_t{1} << from_half) - 1));
    const uint64_t high = ConvertOne(c, pair >> from_half & ((uint64_t{1} << from_half) - 1));
    WriteLane(warp, instruction.d, c.to_bits, l, high << to_half | low);
  }
}

// The conversions that inner loops do, without the switchboard above.
struct SingleToBrainPair {
  static uint32_t Run(float a, float b) {
    return static_cast<uint32_t>(FloatToBrain(a)) << 16 | FloatToBrain(b);
  }
};
struct SingleToHalfPair {
  static uint32_t Run(float a, float b) {
    return static_cast<uint32_t>(FloatToHalf(a)) << 16 | FloatToHalf(b);
  }
};
struct SingleToBrain {
  static uint16_t Run(float a) { return FloatToBrain(a); }
};
struct SingleToHalf {
  static uint16_t Run(float a) { return FloatToHalf(a); }
};
template <class F>
struct CanonicalNan {
  static float Run(uint16_t a) {
    const float f = F::Get(a);
    return f != f ? Bits<float>(0x7FFFFFFFu) : f;
  }
};
struct HalfGet {
  static float Get(uint16_t a) { return HalfToFloat(a); }
};
struct BrainGet {
  static float Get(uint16_t a) { return BrainToFloat(a); }
};
struct SignedToSingle {
  static float Run(int32_t a) { return static_cast<float>(a); }
};
struct UnsignedToSingle {
  static float Run(uint32_t a) { return static_cast<float>(a); }
};

void RunE4M3ToHalves(Warp& warp, const Instruction& instruction, uint32_t mask) {
  static const uint16_t* const kTable = [] {
    static uint16_t table[256];
    for (uint32_t i = 0; i < 256; ++i)
      table[i] = static_cast<uint16_t>(
          EncodeSmall(kF16, DecodeSmall(kE4M3, i), Rounding::kNearestEven, false));
    return table;
  }();
  uint32_t* d = warp.Reg<uint32_t>(instruction.d);
  const uint16_t* a = warp.Reg<uint16_t>(instruction.a);
  NIBBLE_EMULATOR_LANES(d[l] = kTable[a[l] & 0xFF] | static_cast<uint32_t>(kTable[a[l] >> 8]) << 16)
}

bool SmallOf(const std::string& type, SmallFormat* format) {
  if (type == "f16" || type == "f16x2")
    *format = kF16;
  else if (type == "bf16" || type == "bf16x2")
    *format = kBF16;
  else if (type == "tf32")
    *format = kTF32;
  else if (type == "e4m3x2" || type == "e4m3")
    *format = kE4M3;
  else if (type == "e5m2x2" || type == "e5m2")
    *format = kE5M2;
  else if (type == "e3m2x2" || type == "e3m2")
    *format = kE3M2;
  else if (type == "e2m3x2" || type == "e2m3")
    *format = kE2M3;
  else if (type == "e2m1x2" || type == "e2m1")
    *format = kE2M1;
  else
    return false;
  return true;
}

Number KindOf(const std::string& type, SmallFormat* format, const Modifiers& modifiers) {
  if (SmallOf(type, format)) return Number::kSmall;
  if (type == "f32") return Number::kSingle;
  if (type == "f64") return Number::kDouble;
  if (type[0] != 'u' && type[0] != 's') modifiers.Unknown("type ." + type);
  return Number::kInteger;
}

bool IsPair(const std::string& type) {
  return type.size() > 2 && type.substr(type.size() - 2) == "x2";
}

Handler Fast(const Conversion& c, bool pair) {
  if (c.saturate || c.relu || c.satfinite || c.flush || c.integral ||
      c.rounding != Rounding::kNearestEven)
    return nullptr;
  if (pair && c.from == "f32") {
    if (c.to == "bf16x2") return RunBinary<SingleToBrainPair, uint32_t, float>;
    if (c.to == "f16x2") return RunBinary<SingleToHalfPair, uint32_t, float>;
    return nullptr;
  }
  if (pair && c.from == "e4m3x2" && c.to == "f16x2") return RunE4M3ToHalves;
  if (pair) return nullptr;
  if (c.from == "f32" && c.to == "bf16" && c.to_bits == 16)
    return RunUnary<SingleToBrain, uint16_t, float>;
  if (c.from == "f32" && c.to == "f16" && c.to_bits == 16)
    return RunUnary<SingleToHalf, uint16_t, float>;
  if (c.to == "f32" && c.to_bits == 32 && c.from_bits == 16 && c.from == "f16")
    return RunUnary<CanonicalNan<HalfGet>, float, uint16_t>;
  if (c.to == "f32" && c.to_bits == 32 && c.from_bits == 16 && c.from == "bf16")
    return RunUnary<CanonicalNan<BrainGet>, float, uint16_t>;
  if (c.to == "f32" && c.from == "s32" && c.from_bits == 32)
    return RunUnary<SignedToSingle, float, int32_t>;
  if (c.to == "f32" && c.from == "u32" && c.from_bits == 32)
    return RunUnary<UnsignedToSingle, float, uint32_t>;
  return nullptr;
}

// cvt.pack.sat.{u8,s8,..}.s32.b32: saturates a and b to the small type and shifts them into c.
void RunPackSaturated(Warp& warp, const Instruction& instruction, uint32_t mask) {
  uint32_t* d = warp.Reg<uint32_t>(instruction.d);
  const int32_t* a = warp.Reg<int32_t>(instruction.a);
  const int32_t* b = warp.Reg<int32_t>(instruction.b);
  const uint32_t* c = instruction.c >= 0 ? warp.Reg<uint32_t>(instruction.c) : nullptr;
  const int bits = instruction.option;
  const bool is_signed = instruction.mode != 0;
  const int64_t low = is_signed ? -(int64_t{1} << (bits - 1)) : 0;
  const int64_t high = is_signed ? (int64_t{1} << (bits - 1)) - 1 : (int64_t{1} << bits) - 1;
  const uint32_t ones = (1u << bits) - 1;
  NIBBLE_EMULATOR_LANES(const int64_t x = a[l] < low    ? low
                                          : a[l] > high ? high
                                                        : a[l];
                        const int64_t y = b[l] < low    ? low
                                          : b[l] > high ? high
                                                        : b[l];
                        const uint32_t rest = c != nullptr ? c[l] << 2 * bits : 0;
                        d[l] = rest | (static_cast<uint32_t>(x) & ones) << bits |
                               (static_cast<uint32_t>(y) & ones))
}

bool DecodePack(Decoder& decoder, Modifiers* modifiers, Instruction* instruction) {
  if (!modifiers->Take("sat")) modifiers->Unknown();
  const std::string to = modifiers->TakeType();
  if (modifiers->TakeType() != "s32") modifiers->Unknown();
  const bool third = !modifiers->empty();
  if (third && modifiers->TakeType() != "b32") modifiers->Unknown();
  modifiers->Finish();
  instruction->d = decoder.Destination(0, 32);
  instruction->a = decoder.Source(1, 32);
  instruction->b = decoder.Source(2, 32);
  if (third) instruction->c = decoder.Source(3, 32);
  const int bits = BitsOf(to);
  if (bits != 8 && bits != 16 && bits != 4 && bits != 2) modifiers->Unknown("type ." + to);
  instruction->option = static_cast<uint8_t>(bits);
  instruction->mode = to[0] == 's';
  instruction->run = RunPackSaturated;
  return true;
}

}  // namespace

bool DecodeConvert(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  if (statement.opcode[0] != "cvt") return false;
  Modifiers modifiers(statement);
  if (modifiers.Take("pack")) return DecodePack(decoder, &modifiers, instruction);
  Conversion* c = decoder.Extra<Conversion>();
  const std::string integral = modifiers.TakeOf({"rni", "rzi", "rmi", "rpi"});
  const std::string rounding = modifiers.TakeOf({"rna", "rn", "rz", "rm", "rp"});
  c->flush = modifiers.Take("ftz");
  c->saturate = modifiers.Take("sat");
  c->relu = modifiers.Take("relu");
  c->satfinite = modifiers.Take("satfinite");
  c->to = modifiers.TakeType();
  c->from = modifiers.TakeType();
  modifiers.Finish();
  c->to_kind = KindOf(c->to, &c->to_small, modifiers);
  c->from_kind = KindOf(c->from, &c->from_small, modifiers);
  c->to_type_bits = BitsOf(c->to);
  c->from_type_bits = BitsOf(c->from);
  c->to_signed = c->to[0] == 's';
  c->from_signed = c->from[0] == 's';
  const std::string mode = integral.empty() ? rounding : integral;
  c->rounding = mode == "rna"                    ? Rounding::kNearestAway
                : mode.empty() || mode[1] == 'n' ? Rounding::kNearestEven
                : mode[1] == 'z'                 ? Rounding::kToZero
                : mode[1] == 'm'                 ? Rounding::kDown
                                                 : Rounding::kUp;
  c->integral = !integral.empty() && c->to_kind != Number::kInteger;
  const bool pair = IsPair(c->to);
  const auto width = [&](size_t i, int type_bits) {
    const int bits = decoder.operand(i).kind == Operand::Kind::kName
                         ? decoder.RegisterBits(decoder.operand(i).name)
                         : 0;
    const int needed = std::max(type_bits, 16);
    if (bits != 0 && bits < needed)
      decoder.Fail("register " + decoder.operand(i).name + " is narrower than its type");
    return bits == 0 ? needed : bits;
  };
  c->to_bits = width(0, c->to_type_bits);
  c->from_bits = width(1, c->from_type_bits);
  instruction->d = decoder.Destination(0, c->to_bits);
  instruction->a = decoder.Source(1, c->from_bits);
  if (c->from_kind == Number::kInteger && c->to_kind == Number::kInteger) {
    if (!mode.empty()) modifiers.Unknown("." + mode);
    const Handler run =
        c->from_bits == 16   ? FromInteger<uint16_t>(c->from, c->to, c->to_bits, c->saturate)
        : c->from_bits == 32 ? FromInteger<uint32_t>(c->from, c->to, c->to_bits, c->saturate)
                             : FromInteger<uint64_t>(c->from, c->to, c->to_bits, c->saturate);
    if (run == nullptr) modifiers.Unknown();
    instruction->run = run;
    return true;
  }
  // Float to integer needs a rounding to an integer, and narrowing floats one of .rn and so on.
  if (c->to_kind == Number::kInteger && integral.empty()) modifiers.Unknown("no rounding");
  if (pair && IsPair(c->from)) {
    if (Handler fast = Fast(*c, true)) {
      instruction->run = fast;
    } else {
      instruction->run = RunConvertHalves;
    }
  } else if (pair) {
    if (c->from != "f32") modifiers.Unknown("from ." + c->from);
    instruction->b = decoder.Source(2, 32);
    const Handler fast = Fast(*c, true);
    instruction->run = fast != nullptr ? fast : RunConvertPair;
  } else {
    const Handler fast = Fast(*c, false);
    instruction->run = fast != nullptr ? fast : RunConvert;
  }
  if (c->to == "tf32") {
    // The low 13 bits of the register stay zero.
    instruction->run = RunConvert;
    c->to_small = kTF32;
    instruction->run = [](Warp& warp, const Instruction& i, uint32_t mask) {
      const Conversion& conversion = *static_cast<const Conversion*>(i.extra);
      uint32_t* d = warp.Reg<uint32_t>(i.d);
      const uint32_t* a = warp.Reg<uint32_t>(i.a);
      for (int l = 0; l < kLanes; ++l) {
        if ((mask >> l & 1) != 0) d[l] = static_cast<uint32_t>(ConvertOne(conversion, a[l])) << 13;
      }
    };
  }
  instruction->extra = c;
  return true;
}

}  // namespace nibble::cuda::emulator
