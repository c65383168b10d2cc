// SPDX-License-Identifier: Apache-2.0
//
// The scalar encoders and decoders over every code, against the formats' formulas; the
// fast encoders against the scalar ones on every rounding boundary.
#include "kernels-cpu/numerics/formats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels-cpu/numerics/fast_encode.h"

namespace nibble {
namespace {

struct Format {
  DType type;
  const char* name;
  int exponent_bits, mantissa_bits, bias;
  uint32_t max_code;  // largest finite magnitude
  double max_value;   // as the specification gives it
  bool has_infinity;
};

const Format kFloats[] = {
    {DType::kE4M3, "E4M3", 4, 3, 7, 0x7E, 448, false},
    {DType::kE5M2, "E5M2", 5, 2, 15, 0x7B, 57344, true},
    {DType::kE3M2, "E3M2", 3, 2, 3, 0x1F, 28, false},
    {DType::kE2M3, "E2M3", 2, 3, 1, 0x1F, 7.5, false},
    {DType::kF16, "F16", 5, 10, 15, 0x7BFF, 65504, true},
    {DType::kBF16, "BF16", 8, 7, 127, 0x7F7F, 3.3895313892515355e38, true},
};

// The formula: (-1)^s 2^(max(e,1) - bias) (implicit + m / 2^M).
double Formula(const Format& f, uint32_t magnitude) {
  const int e = static_cast<int>(magnitude >> f.mantissa_bits);
  const double m = magnitude & ((1u << f.mantissa_bits) - 1);
  return std::exp2(std::max(e, 1) - f.bias) * ((e > 0 ? 1 : 0) + m / (1 << f.mantissa_bits));
}

uint32_t SignBit(const Format& f) { return 1u << (f.exponent_bits + f.mantissa_bits); }

TEST(Formats, EveryFiniteCodeDecodesByTheFormulaAndEncodesBack) {
  for (const Format& f : kFloats) {
    EXPECT_EQ(Formula(f, f.max_code), f.max_value) << f.name;
    for (uint32_t magnitude = 0; magnitude <= f.max_code; ++magnitude) {
      for (const uint32_t code : {magnitude, magnitude | SignBit(f)}) {
        const float value = Decode(f.type, code);
        const double expected = (code & SignBit(f)) ? -Formula(f, magnitude) : Formula(f, magnitude);
        ASSERT_EQ(value, expected) << f.name << " code " << code;
        ASSERT_EQ(std::signbit(value), (code & SignBit(f)) != 0) << f.name << " code " << code;
        ASSERT_EQ(Encode(f.type, value), code) << f.name << " value " << value;
      }
    }
  }
}

TEST(Formats, MidpointsGoToTheEvenCodeAndNeighboursToTheNearest) {
  for (const Format& f : kFloats) {
    for (uint32_t code = 0; code < f.max_code; ++code) {
      const float low = Decode(f.type, code), high = Decode(f.type, code + 1);
      const float middle = static_cast<float>((static_cast<double>(low) + high) / 2);
      const uint32_t even = code % 2 == 0 ? code : code + 1;
      ASSERT_EQ(Encode(f.type, middle), even) << f.name << " between codes from " << code;
      ASSERT_EQ(Encode(f.type, std::nextafter(middle, 0.0f)), code) << f.name;
      ASSERT_EQ(Encode(f.type, std::nextafter(middle, INFINITY)), code + 1) << f.name;
      ASSERT_EQ(Encode(f.type, -middle), even | SignBit(f)) << f.name;
    }
  }
}

TEST(Formats, FiniteValuesSaturateAndNaNStaysNaN) {
  const float huge = std::numeric_limits<float>::max();
  for (const Format& f : kFloats) {
    EXPECT_EQ(Encode(f.type, huge), f.max_code) << f.name;
    EXPECT_EQ(Encode(f.type, -huge), f.max_code | SignBit(f)) << f.name;
    const float infinite = Decode(f.type, Encode(f.type, INFINITY));
    EXPECT_EQ(infinite, f.has_infinity ? INFINITY : static_cast<float>(f.max_value)) << f.name;
    if (f.type != DType::kE3M2 && f.type != DType::kE2M3) {
      EXPECT_TRUE(std::isnan(Decode(f.type, Encode(f.type, NAN)))) << f.name;
    }
  }
  EXPECT_TRUE(std::isnan(DecodeE4M3(0x7F)));
  EXPECT_TRUE(std::isnan(DecodeE4M3(0xFF)));
  for (int code = 0x7D; code <= 0x7F; ++code) EXPECT_TRUE(std::isnan(DecodeE5M2(code)));
}

TEST(Formats, Integers) {
  for (int q = -8; q <= 7; ++q) {
    EXPECT_EQ(DecodeI4(static_cast<uint8_t>(q & 15)), q);
    EXPECT_EQ(EncodeI4(static_cast<float>(q)), q);
    const int even = q % 2 == 0 ? q : q + 1;
    EXPECT_EQ(EncodeI4(q + 0.5f), std::min(even, 7)) << q;
  }
  EXPECT_EQ(EncodeI4(-1e30f), -8);
  EXPECT_EQ(EncodeI4(1e30f), 7);
  for (int q = -128; q <= 127; ++q) {
    EXPECT_EQ(DecodeI8(static_cast<uint8_t>(q)), q);
    EXPECT_EQ(EncodeI8(static_cast<float>(q)), q);
    EXPECT_EQ(EncodeI8(q + 0.5f), std::min(q % 2 == 0 ? q : q + 1, 127)) << q;
  }
  EXPECT_EQ(EncodeI8(-1e30f), -128);
  EXPECT_EQ(EncodeI8(1e30f), 127);
}

TEST(Formats, PowersOfTwo) {
  for (int e = -9; e <= 5; ++e) {
    EXPECT_EQ(Decode(DType::kPow2, static_cast<uint8_t>(e)), std::exp2(e));
  }
}

TEST(FastEncode, EqualsTheScalarEncoderOnEveryBoundary) {
  std::vector<float> values = {0.0f, 1e-45f, 1e-38f, 1e30f, std::numeric_limits<float>::max(), INFINITY};
  for (const Format& f : kFloats) {
    for (uint32_t code = 0; code < f.max_code; code += f.max_code > 255 ? 97 : 1) {
      const double low = Decode(f.type, code), high = Decode(f.type, code + 1);
      for (const double v : {low, (low + high) / 2, high}) {
        values.push_back(static_cast<float>(v));
        values.push_back(std::nextafter(static_cast<float>(v), 0.0f));
        values.push_back(std::nextafter(static_cast<float>(v), INFINITY));
      }
    }
  }
  for (int i = 0; i < 300; ++i) {
    for (const float v : {i / 2.0f, std::nextafter(i / 2.0f, 0.0f), std::nextafter(i / 2.0f, 1e9f)}) {
      values.push_back(v);
    }
  }
  for (const DType type :
       {DType::kE4M3, DType::kE5M2, DType::kE3M2, DType::kE2M3, DType::kI4, DType::kI8}) {
    for (const float magnitude : values) {
      for (const float v : {magnitude, -magnitude}) {
        // The fast encoders are for finite quotients; an infinite one saturates.
        const float finite = std::isinf(v) && type == DType::kE5M2
                                 ? std::copysign(std::numeric_limits<float>::max(), v) : v;
        ASSERT_EQ(FastEncode(type, v), Encode(type, finite))
            << "type " << static_cast<int>(type) << " value " << v;
      }
    }
  }
}

}  // namespace
}  // namespace nibble
