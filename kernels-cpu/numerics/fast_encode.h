// SPDX-License-Identifier: Apache-2.0
//
// Branch-light encoders for loops over whole matrices; the same codes as formats.h for
// every input that is not NaN (tested on every rounding boundary).
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels-cpu/numerics/types.h"

namespace nibble {

// Nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 pushes the fraction
// out of the mantissa, so that the addition itself does the rounding.
inline float RoundToEven(float x) {
  constexpr float kMagic = 12582912.0f;
  return (x + kMagic) - kMagic;
}

// Clamping first keeps |x| < 2^22 and is the saturation; the bounds are integers, so
// rounding cannot leave them.
template <int kMin, int kMax>
inline int32_t FastEncodeInt(float x) {
  const float low = x < kMin ? static_cast<float>(kMin) : x;
  return static_cast<int32_t>(RoundToEven(low > kMax ? static_cast<float>(kMax) : low));
}

// A float format of kMantissa bits and bias kBias with largest magnitude code kMaxCode;
// the sign goes to bit kSign.
template <int kMantissa, int kBias, uint32_t kMaxCode, int kSign>
inline uint32_t FastEncodeFloat(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const uint32_t sign = (bits >> 31) << kSign;
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  uint32_t code;
  if (magnitude >= static_cast<uint32_t>(128 - kBias) << 23) {
    // Normal in the target: round the mantissa to kMantissa bits (a carry moves into the
    // exponent, as it should), then rebias.
    constexpr int kShift = 23 - kMantissa;
    const uint32_t lowest = (magnitude >> kShift) & 1;
    const uint32_t rounded = (magnitude + ((1u << (kShift - 1)) - 1) + lowest) >> kShift;
    code = rounded - (static_cast<uint32_t>(127 - kBias) << kMantissa);
  } else {
    // Subnormal: a sum whose last mantissa bit is worth the smallest code step.
    constexpr uint32_t kMagicBits = static_cast<uint32_t>(127 + 1 - kBias - kMantissa + 23) << 23;
    float magic, value;
    std::memcpy(&magic, &kMagicBits, sizeof(magic));
    std::memcpy(&value, &magnitude, sizeof(value));
    const float sum = value + magic;
    std::memcpy(&code, &sum, sizeof(code));
    code -= kMagicBits;
  }
  return sign | (code > kMaxCode ? kMaxCode : code);
}

inline uint32_t FastEncode(DType type, float x) {
  switch (type) {
    case DType::kI4: return static_cast<uint32_t>(FastEncodeInt<-8, 7>(x)) & 15;
    case DType::kI8: return static_cast<uint32_t>(FastEncodeInt<-128, 127>(x)) & 0xFF;
    case DType::kE4M3: return FastEncodeFloat<3, 7, 0x7E, 7>(x);
    case DType::kE5M2: return FastEncodeFloat<2, 15, 0x7B, 7>(x);
    case DType::kE3M2: return FastEncodeFloat<2, 3, 0x1F, 5>(x);
    case DType::kE2M3: return FastEncodeFloat<3, 1, 0x1F, 5>(x);
    default: return 0;
  }
}

}  // namespace nibble
