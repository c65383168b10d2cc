// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/numerics/formats.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace nibble {
namespace {

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float FromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// A small float: sign, then kExponent bits with kBias, then kMantissa bits, subnormals.
// kMaxCode is the magnitude code of the largest finite value.
template <int kMantissa, int kBias, uint32_t kMaxCode>
uint32_t EncodeMagnitude(float magnitude) {
  // The spacing of codes around the value: 2^(e - mantissa), e not below the smallest
  // normal exponent. Dividing by it is exact, and nearbyint rounds ties to even, which
  // is even in the code too, since code = (e - e_min) * 2^mantissa + steps.
  constexpr int kMinExponent = 1 - kBias;
  int e = kMinExponent;
  if (magnitude > 0) e = std::max(kMinExponent, std::ilogb(magnitude));
  const double steps = std::nearbyint(std::ldexp(static_cast<double>(magnitude), kMantissa - e));
  const double code = steps + std::ldexp(static_cast<double>(e - kMinExponent), kMantissa);
  return code > kMaxCode ? kMaxCode : static_cast<uint32_t>(code);
}

template <int kMantissa, int kBias>
float DecodeMagnitude(uint32_t code) {
  const int exponent = static_cast<int>(code >> kMantissa);
  const int mantissa = static_cast<int>(code & ((1u << kMantissa) - 1));
  if (exponent == 0) return std::ldexp(static_cast<float>(mantissa), 1 - kBias - kMantissa);
  return std::ldexp(static_cast<float>(mantissa + (1 << kMantissa)), exponent - kBias - kMantissa);
}

float WithSign(bool negative, float magnitude) { return negative ? -magnitude : magnitude; }

}  // namespace

uint8_t EncodeE4M3(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (std::isnan(value)) return sign | 0x7F;
  if (std::isinf(value)) return sign | 0x7E;
  return sign | static_cast<uint8_t>(EncodeMagnitude<3, 7, 0x7E>(std::fabs(value)));
}

uint8_t EncodeE5M2(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (std::isnan(value)) return sign | 0x7F;
  if (std::isinf(value)) return sign | 0x7C;
  return sign | static_cast<uint8_t>(EncodeMagnitude<2, 15, 0x7B>(std::fabs(value)));
}

uint8_t EncodeE3M2(float value) {
  if (std::isnan(value)) return 0;
  const uint8_t sign = std::signbit(value) ? 0x20 : 0;
  if (std::isinf(value)) return sign | 0x1F;
  return sign | static_cast<uint8_t>(EncodeMagnitude<2, 3, 0x1F>(std::fabs(value)));
}

uint8_t EncodeE2M3(float value) {
  if (std::isnan(value)) return 0;
  const uint8_t sign = std::signbit(value) ? 0x20 : 0;
  if (std::isinf(value)) return sign | 0x1F;
  return sign | static_cast<uint8_t>(EncodeMagnitude<3, 1, 0x1F>(std::fabs(value)));
}

uint16_t EncodeF16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return sign | 0x7E00;
  if (std::isinf(value)) return sign | 0x7C00;
  return sign | static_cast<uint16_t>(EncodeMagnitude<10, 15, 0x7BFF>(std::fabs(value)));
}

uint16_t EncodeBF16(float value) {
  const uint32_t bits = Bits(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);  // stays a NaN
  if (std::isinf(value)) return sign | 0x7F80;
  // Adding half a step minus one, plus the lowest kept bit, rounds ties to even.
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  const uint32_t rounded = (magnitude + 0x7FFF + ((magnitude >> 16) & 1)) >> 16;
  return sign | static_cast<uint16_t>(rounded > 0x7F7F ? 0x7F7F : rounded);
}

int8_t EncodeI4(float value) {
  if (std::isnan(value)) return 0;
  const float rounded = std::nearbyint(value);
  return static_cast<int8_t>(rounded < -8 ? -8 : rounded > 7 ? 7 : rounded);
}

int8_t EncodeI8(float value) {
  if (std::isnan(value)) return 0;
  const float rounded = std::nearbyint(value);
  return static_cast<int8_t>(rounded < -128 ? -128 : rounded > 127 ? 127 : rounded);
}

float DecodeE4M3(uint8_t code) {
  if ((code & 0x7F) == 0x7F) return WithSign(code & 0x80, FromBits(0x7FC00000));
  return WithSign(code & 0x80, DecodeMagnitude<3, 7>(code & 0x7F));
}

float DecodeE5M2(uint8_t code) {
  const uint32_t magnitude = code & 0x7F;
  if (magnitude == 0x7C) return WithSign(code & 0x80, INFINITY);
  if (magnitude > 0x7C) return WithSign(code & 0x80, FromBits(0x7FC00000));
  return WithSign(code & 0x80, DecodeMagnitude<2, 15>(magnitude));
}

float DecodeE3M2(uint8_t code) {
  return WithSign(code & 0x20, DecodeMagnitude<2, 3>(code & 0x1F));
}

float DecodeE2M3(uint8_t code) {
  return WithSign(code & 0x20, DecodeMagnitude<3, 1>(code & 0x1F));
}

float DecodeF16(uint16_t code) {
  const uint32_t magnitude = code & 0x7FFF;
  if (magnitude == 0x7C00) return WithSign(code & 0x8000, INFINITY);
  if (magnitude > 0x7C00) return WithSign(code & 0x8000, FromBits(0x7FC00000));
  return WithSign(code & 0x8000, DecodeMagnitude<10, 15>(magnitude));
}

float DecodeBF16(uint16_t code) { return FromBits(static_cast<uint32_t>(code) << 16); }

uint32_t Encode(DType type, float value) {
  switch (type) {
    case DType::kF16: return EncodeF16(value);
    case DType::kBF16: return EncodeBF16(value);
    case DType::kE4M3: return EncodeE4M3(value);
    case DType::kE5M2: return EncodeE5M2(value);
    case DType::kE3M2: return EncodeE3M2(value);
    case DType::kE2M3: return EncodeE2M3(value);
    case DType::kI4: return static_cast<uint8_t>(EncodeI4(value)) & 15;
    case DType::kI8: return static_cast<uint8_t>(EncodeI8(value));
    default: return Bits(value);
  }
}

float Decode(DType type, uint32_t code) {
  switch (type) {
    case DType::kF16: return DecodeF16(static_cast<uint16_t>(code));
    case DType::kBF16: return DecodeBF16(static_cast<uint16_t>(code));
    case DType::kE4M3: return DecodeE4M3(static_cast<uint8_t>(code));
    case DType::kE5M2: return DecodeE5M2(static_cast<uint8_t>(code));
    case DType::kE3M2: return DecodeE3M2(static_cast<uint8_t>(code));
    case DType::kE2M3: return DecodeE2M3(static_cast<uint8_t>(code));
    case DType::kI4: return DecodeI4(static_cast<uint8_t>(code));
    case DType::kI8: return DecodeI8(static_cast<uint8_t>(code));
    case DType::kPow2: return std::ldexp(1.0f, static_cast<int8_t>(code));
    default: return FromBits(code);
  }
}

float MaxValue(DType type) {
  switch (type) {
    case DType::kE4M3: return 448.0f;
    case DType::kE5M2: return 57344.0f;
    case DType::kE3M2: return 28.0f;
    case DType::kE2M3: return 7.5f;
    case DType::kI4: return 7.0f;
    case DType::kI8: return 127.0f;
    case DType::kF16: return 65504.0f;
    default: return 3.38953139e38f;  // BF16
  }
}

}  // namespace nibble
