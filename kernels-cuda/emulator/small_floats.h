// SPDX-License-Identifier: Apache-2.0
//
// The floating-point formats below 32 bits, from their definitions: sign, exponent and mantissa
// bits, bias, and what the top exponent means. Written for the emulator alone, so that an error
// in Nibble's own number formats does not hide itself.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace nibble::cuda::emulator {

// How the largest exponent is used.
enum class TopExponent : uint8_t {
  kIeee,    // infinity and NaNs
  kNan,     // numbers, but all ones is a NaN (E4M3)
  kNumber,  // numbers alone (E3M2, E2M3, E2M1)
};

struct SmallFormat {
  int exponent_bits, mantissa_bits, bias;
  TopExponent top;
  constexpr int bits() const { return 1 + exponent_bits + mantissa_bits; }
};

constexpr SmallFormat kF16{5, 10, 15, TopExponent::kIeee};
constexpr SmallFormat kBF16{8, 7, 127, TopExponent::kIeee};
constexpr SmallFormat kTF32{8, 10, 127, TopExponent::kIeee};
constexpr SmallFormat kE4M3{4, 3, 7, TopExponent::kNan};
constexpr SmallFormat kE5M2{5, 2, 15, TopExponent::kIeee};
constexpr SmallFormat kE3M2{3, 2, 3, TopExponent::kNumber};
constexpr SmallFormat kE2M3{2, 3, 1, TopExponent::kNumber};
constexpr SmallFormat kE2M1{2, 1, 1, TopExponent::kNumber};

enum class Rounding : uint8_t { kNearestEven, kToZero, kDown, kUp, kNearestAway };

// The exact value of a code; NaN for a NaN.
inline double DecodeSmall(const SmallFormat& f, uint32_t code) {
  const uint32_t mantissa = code & ((1u << f.mantissa_bits) - 1);
  const uint32_t top = (1u << f.exponent_bits) - 1;
  const uint32_t exponent = code >> f.mantissa_bits & top;
  const bool negative = (code >> (f.bits() - 1) & 1) != 0;
  double value;
  if (exponent == top && f.top == TopExponent::kIeee) {
    value = mantissa == 0 ? std::numeric_limits<double>::infinity()
                          : std::numeric_limits<double>::quiet_NaN();
  } else if (exponent == top && f.top == TopExponent::kNan &&
             mantissa == (1u << f.mantissa_bits) - 1) {
    value = std::numeric_limits<double>::quiet_NaN();
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<double>(mantissa), 1 - f.bias - f.mantissa_bits);
  } else {
    value = std::ldexp(static_cast<double>(mantissa + (1u << f.mantissa_bits)),
                       static_cast<int>(exponent) - f.bias - f.mantissa_bits);
  }
  return negative ? -value : value;
}

// The code of the largest finite magnitude, without sign.
inline uint32_t LargestSmall(const SmallFormat& f) {
  const uint32_t all = (1u << (f.bits() - 1)) - 1;
  if (f.top == TopExponent::kNumber) return all;
  if (f.top == TopExponent::kNan) return all - 1;
  return (((1u << f.exponent_bits) - 1) << f.mantissa_bits) - 1;
}

// The canonical NaN that conversions give: all bits but the sign. (For BF16 0x7FFF, F16 0x7FFF,
// E4M3 0x7F, E5M2 0x7F.)
inline uint32_t NanOfSmall(const SmallFormat& f) { return (1u << (f.bits() - 1)) - 1; }

// Rounds once. saturate: beyond the largest number, infinity included, gives the largest; else
// overflow gives infinity where the format has one (or the largest number where the rounding
// direction points back), and NaN where it has none but a NaN. NaN gives NaN, and 0 (+) in a
// format without.
inline uint32_t EncodeSmall(const SmallFormat& f, double value, Rounding rounding, bool saturate) {
  const uint32_t sign = std::signbit(value) ? 1u << (f.bits() - 1) : 0;
  if (std::isnan(value)) return f.top == TopExponent::kNumber ? LargestSmall(f) : NanOfSmall(f);
  const uint32_t largest = LargestSmall(f);
  const uint32_t infinity = f.top == TopExponent::kIeee ? largest + 1 : NanOfSmall(f);
  const double magnitude = std::fabs(value);
  if (std::isinf(value))
    return sign | (saturate || f.top == TopExponent::kNumber ? largest : infinity);
  if (magnitude == 0) return sign;
  int exponent;
  std::frexp(magnitude, &exponent);  // magnitude = fraction * 2^exponent, fraction in [0.5, 1)
  int step = exponent - 1 - f.mantissa_bits;  // exponent of the last mantissa bit
  if (step < 1 - f.bias - f.mantissa_bits) step = 1 - f.bias - f.mantissa_bits;
  const double scaled = std::ldexp(magnitude, -step);  // exact
  double whole = std::floor(scaled);
  const double rest = scaled - whole;
  const bool negative = sign != 0;
  bool up = false;
  switch (rounding) {
    case Rounding::kNearestEven:
      up = rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2.0) != 0);
      break;
    case Rounding::kNearestAway:
      up = rest >= 0.5;
      break;
    case Rounding::kToZero:
      break;
    case Rounding::kDown:
      up = negative && rest > 0;
      break;
    case Rounding::kUp:
      up = !negative && rest > 0;
      break;
  }
  if (up) whole += 1;
  if (whole == 0) return sign;
  // whole * 2^step as a code: bits of a subnormal are the mantissa itself, and each doubling of
  // the step adds one exponent.
  uint64_t code = static_cast<uint64_t>(whole) +
                  (static_cast<uint64_t>(step - (1 - f.bias - f.mantissa_bits)) << f.mantissa_bits);
  if (code > largest) {
    const bool points_back = rounding == Rounding::kToZero ||
                             (rounding == Rounding::kDown && !negative) ||
                             (rounding == Rounding::kUp && negative);
    code = saturate || points_back || f.top == TopExponent::kNumber ? largest : infinity;
  }
  return sign | static_cast<uint32_t>(code);
}

// Fast forms of the common conversions, exact as well; the tests compare them with the above over
// all codes.
inline float HalfToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t rest = static_cast<uint32_t>(h & 0x7FFF) << 13;
  float scaled;
  std::memcpy(&scaled, &rest, 4);
  scaled *= 0x1p112f;  // from F16's bias of 15 to 127; subnormals become normal
  uint32_t bits;
  std::memcpy(&bits, &scaled, 4);
  bits = rest >= 0x0F800000u ? (rest | 0x7F800000u) : bits;  // infinity and NaN
  bits |= sign;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline uint16_t FloatToHalf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t any = bits & 0x7FFFFFFFu;
  const uint32_t normal = (any + 0xFFFu + (any >> 13 & 1u) - 0x38000000u) >> 13;
  float magnitude;
  std::memcpy(&magnitude, &any, 4);
  const float small = magnitude + 0.5f;  // the last bit of 0.5 is 2^-24, F16's smallest number
  uint32_t small_bits;
  std::memcpy(&small_bits, &small, 4);
  uint32_t code = any >= 0x38800000u ? normal : small_bits - 0x3F000000u;
  code = any >= 0x477FF000u ? 0x7C00u : code;  // 65520 and up
  code = any > 0x7F800000u ? 0x7FFFu : code;
  return static_cast<uint16_t>(any > 0x7F800000u ? code : sign | code);
}

inline float BrainToFloat(uint16_t b) {
  const uint32_t bits = static_cast<uint32_t>(b) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline uint16_t FloatToBrain(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FFFu : rounded);
}

// Values of all 256 codes of an 8-bit (or smaller, low bits) format as floats.
const float* SmallTable(const SmallFormat& format);

}  // namespace nibble::cuda::emulator
