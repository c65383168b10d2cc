// SPDX-License-Identifier: Apache-2.0
//
// nb_encode and nb_decode over every code, against the formats' definitions written out
// here once more.
#include <cmath>
#include <cstring>
#include <limits>

#include "native/tests/abi_test.h"
#include "kernels-cpu/testing/guarded_array.h"

namespace nibble {
namespace {

struct FormatDefinition {
  int32_t dtype;
  int bits;
  int exponent_bits;  // 0: an integer
  int mantissa_bits;
  int bias;
  bool ieee;          // the largest exponent is infinity and NaN
};

const FormatDefinition kFormats[] = {
    {NB_F16, 16, 5, 10, 15, true}, {NB_BF16, 16, 8, 7, 127, true},
    {NB_E4M3, 8, 4, 3, 7, false},  {NB_E5M2, 8, 5, 2, 15, true},
    {NB_E3M2, 6, 3, 2, 3, false},  {NB_E2M3, 6, 2, 3, 1, false},
    {NB_I4, 4, 0, 0, 0, false},    {NB_I8, 8, 0, 0, 0, false},
};

double Definition(const FormatDefinition& f, uint32_t code) {
  const uint32_t sign = code >> (f.bits - 1) & 1;
  if (f.exponent_bits == 0) {
    return sign ? static_cast<double>(code) - (1 << f.bits) : static_cast<double>(code);
  }
  const uint32_t mantissa = code & ((1u << f.mantissa_bits) - 1);
  const uint32_t exponent = code >> f.mantissa_bits & ((1u << f.exponent_bits) - 1);
  if (f.ieee && exponent == (1u << f.exponent_bits) - 1) {
    if (mantissa != 0) return std::numeric_limits<double>::quiet_NaN();
    return sign ? -INFINITY : INFINITY;
  }
  if (f.dtype == NB_E4M3 && (code & 0x7F) == 0x7F) return std::numeric_limits<double>::quiet_NaN();
  const double fraction = std::ldexp(mantissa, -f.mantissa_bits);
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, 1 - f.bias)
                    : std::ldexp(1 + fraction, static_cast<int>(exponent) - f.bias);
  return sign ? -magnitude : magnitude;
}

int64_t CodeBytes(const FormatDefinition& f) { return f.bits > 8 ? 2 : 1; }

std::vector<uint8_t> AllCodes(const FormatDefinition& f) {
  std::vector<uint8_t> codes;
  for (uint32_t c = 0; c < 1u << f.bits; ++c) {
    codes.push_back(static_cast<uint8_t>(c));
    if (CodeBytes(f) == 2) codes.push_back(static_cast<uint8_t>(c >> 8));
  }
  return codes;
}

std::vector<float> DecodeAll(const FormatDefinition& f) {
  const std::vector<uint8_t> codes = AllCodes(f);
  std::vector<float> values(size_t{1} << f.bits);
  EXPECT_EQ(nb_decode(f.dtype, codes.data(), static_cast<int64_t>(codes.size()), values.data(),
                      static_cast<int64_t>(values.size())),
            NB_OK)
      << nb_last_error();
  return values;
}

uint32_t EncodeOne(const FormatDefinition& f, float value) {
  uint8_t bytes[2] = {0, 0};
  EXPECT_EQ(nb_encode(f.dtype, &value, 1, bytes, CodeBytes(f)), NB_OK) << nb_last_error();
  return bytes[0] | bytes[1] << 8;
}

TEST(AbiNumerics, EveryCodeDecodesToItsDefinition) {
  for (const FormatDefinition& f : kFormats) {
    const std::vector<float> values = DecodeAll(f);
    for (uint32_t c = 0; c < values.size(); ++c) {
      const double expected = Definition(f, c);
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(values[c])) << "dtype " << f.dtype << " code " << c;
      } else {
        EXPECT_EQ(values[c], expected) << "dtype " << f.dtype << " code " << c;
        EXPECT_EQ(std::signbit(values[c]), std::signbit(expected)) << f.dtype << " code " << c;
      }
    }
  }
}

TEST(AbiNumerics, EveryCodeSurvivesARoundTrip) {
  for (const FormatDefinition& f : kFormats) {
    const std::vector<float> values = DecodeAll(f);
    for (uint32_t c = 0; c < values.size(); ++c) {
      if (std::isnan(values[c])) {
        EXPECT_TRUE(std::isnan(Definition(f, EncodeOne(f, values[c])))) << f.dtype << " " << c;
      } else {
        EXPECT_EQ(EncodeOne(f, values[c]), c) << "dtype " << f.dtype;
      }
    }
  }
}

// Between two neighbours the boundary is their middle; on it, the even code wins.
TEST(AbiNumerics, RoundsToNearestEven) {
  for (const FormatDefinition& f : kFormats) {
    const bool integer = f.exponent_bits == 0;
    for (uint32_t c = 0; c + 1 < 1u << (f.bits - 1); ++c) {
      const double low = Definition(f, c), high = Definition(f, c + 1);
      if (!std::isfinite(high)) break;
      const float middle = static_cast<float>((low + high) / 2);  // exact: two bits more
      const uint32_t even = c % 2 == 0 ? c : c + 1;
      const auto mirrored = [&](uint32_t code) {  // the code of the opposite value
        if (integer) return (0u - code) & ((1u << f.bits) - 1);
        return code | 1u << (f.bits - 1);
      };
      EXPECT_EQ(EncodeOne(f, middle), even) << "dtype " << f.dtype;
      EXPECT_EQ(EncodeOne(f, std::nextafter(middle, -INFINITY)), c) << "dtype " << f.dtype;
      EXPECT_EQ(EncodeOne(f, std::nextafter(middle, INFINITY)), c + 1) << "dtype " << f.dtype;
      if (c == 0 && integer) continue;
      EXPECT_EQ(EncodeOne(f, -middle), integer && even == 0 ? 0 : mirrored(even)) << f.dtype;
    }
  }
}

TEST(AbiNumerics, SaturatesAndKeepsNaN) {
  for (const FormatDefinition& f : kFormats) {
    const bool integer = f.exponent_bits == 0;
    double largest = 0, smallest = 0;
    for (uint32_t c = 0; c < 1u << f.bits; ++c) {
      const double v = Definition(f, c);
      if (std::isfinite(v)) largest = std::max(largest, v), smallest = std::min(smallest, v);
    }
    if (largest * 4 < std::numeric_limits<float>::max()) {
      EXPECT_EQ(Definition(f, EncodeOne(f, static_cast<float>(largest * 4))), largest) << f.dtype;
      EXPECT_EQ(Definition(f, EncodeOne(f, static_cast<float>(-largest * 4))), smallest);
    }
    EXPECT_EQ(Definition(f, EncodeOne(f, std::numeric_limits<float>::max())), largest) << f.dtype;
    const float values[2] = {1, NAN};
    uint8_t codes[4] = {0xEE, 0xEE, 0xEE, 0xEE};
    const nb_status status = nb_encode(f.dtype, values, 2, codes, 4);
    if (integer || f.bits == 6) {
      ExpectFailure(status, NB_INVALID_ARGUMENT, "nb_encode", {"values[1]", "NaN"});
      EXPECT_EQ(codes[0], 0xEE) << "nothing may be written";
    } else {
      EXPECT_EQ(status, NB_OK);
      const int64_t each = CodeBytes(f);
      EXPECT_TRUE(std::isnan(Definition(f, codes[each] | (each == 2 ? codes[3] << 8 : 0))));
    }
  }
}

TEST(AbiNumerics, BadArguments) {
  float values[4] = {1, 2, 3, 4};
  uint8_t codes[16] = {};
  for (const int32_t dtype : {-1, 0, 1, 10, 11, 12, 13, 1000}) {
    ExpectFailure(nb_encode(dtype, values, 4, codes, 16), NB_INVALID_ARGUMENT, "nb_encode",
                  {"dtype: " + std::to_string(dtype)});
    ExpectFailure(nb_decode(dtype, codes, 16, values, 4), NB_INVALID_ARGUMENT, "nb_decode",
                  {"dtype: " + std::to_string(dtype)});
  }
  for (const int64_t count : {int64_t{-1}, int64_t{1} << 61, int64_t{1} << 62, INT64_MAX}) {
    ExpectFailure(nb_encode(NB_F16, values, count, codes, INT64_MAX), NB_INVALID_ARGUMENT,
                  "nb_encode", {"count", std::to_string(count)});
    ExpectFailure(nb_decode(NB_I8, codes, INT64_MAX, values, count), NB_INVALID_ARGUMENT,
                  "nb_decode", {"count", std::to_string(count)});
  }
  ExpectFailure(nb_encode(NB_F16, values, 4, codes, 7), NB_INVALID_ARGUMENT, "nb_encode",
                {"code_bytes: 7", "8"});
  ExpectFailure(nb_decode(NB_I8, codes, 3, values, 4), NB_INVALID_ARGUMENT, "nb_decode",
                {"code_bytes: 3", "4"});
  ExpectFailure(nb_encode(NB_I8, nullptr, 4, codes, 4), NB_INVALID_ARGUMENT, "nb_encode",
                {"values: NULL"});
  ExpectFailure(nb_encode(NB_I8, values, 4, nullptr, 4), NB_INVALID_ARGUMENT, "nb_encode",
                {"codes: NULL"});
  ExpectFailure(nb_decode(NB_I8, nullptr, 4, values, 4), NB_INVALID_ARGUMENT, "nb_decode",
                {"codes: NULL"});
  ExpectFailure(nb_decode(NB_I8, codes, 4, nullptr, 4), NB_INVALID_ARGUMENT, "nb_decode",
                {"values: NULL"});
  const auto* odd = reinterpret_cast<float*>(reinterpret_cast<uintptr_t>(values) + 1);
  ExpectFailure(nb_encode(NB_I8, odd, 2, codes, 2), NB_INVALID_ARGUMENT, "nb_encode",
                {"values", "multiple of 4"});
  ExpectFailure(nb_decode(NB_I8, values, 4, values, 4), NB_INVALID_ARGUMENT, "nb_decode",
                {"overlaps"});
  EXPECT_EQ(nb_encode(NB_I8, nullptr, 0, nullptr, 0), NB_OK);
  EXPECT_EQ(nb_decode(NB_F16, nullptr, 0, nullptr, 0), NB_OK);
}

TEST(AbiNumerics, StaysInsideItsArrays) {
  for (const Flush flush : {Flush::kEnd, Flush::kStart}) {
    for (const FormatDefinition& f : kFormats) {
      for (const int64_t n : {1, 3, 17, 1000}) {
        const GuardedArray values(static_cast<size_t>(n) * 4, flush);
        const GuardedArray codes(static_cast<size_t>(n * CodeBytes(f)), flush);
        for (int64_t i = 0; i < n; ++i) values.as<float>()[i] = static_cast<float>(i % 5) - 2;
        values.SetReadOnly(true);
        EXPECT_EQ(nb_encode(f.dtype, values.as<float>(), n, codes.data(), n * CodeBytes(f)), NB_OK);
        values.SetReadOnly(false);
        codes.SetReadOnly(true);
        EXPECT_EQ(nb_decode(f.dtype, codes.data(), n * CodeBytes(f), values.as<float>(), n), NB_OK);
        for (int64_t i = 0; i < n; ++i) EXPECT_EQ(values.as<float>()[i], i % 5 - 2);
      }
    }
  }
}

}  // namespace
}  // namespace nibble
