// SPDX-License-Identifier: Apache-2.0
//
// The row loops against the scalar encoders, on every target, with rows at guard pages.
#include "kernels-cpu/numerics/quantize_row.h"

#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/testing/guarded_array.h"
#include "kernels-cpu/testing/kernel_test.h"

namespace nibble {
namespace {

const DType kSources[] = {DType::kF32, DType::kF16, DType::kBF16};
const DType kCodes[] = {DType::kI4,   DType::kI8,   DType::kE4M3,
                        DType::kE5M2, DType::kE3M2, DType::kE2M3};

float FromBits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

int64_t Bytes(DType type) { return type == DType::kF32 ? 4 : 2; }

// The values as `type`, at a guard page; *exact: what they are after that rounding.
class Source {
 public:
  Source(DType type, const std::vector<float>& values)
      : array_(values.size() * Bytes(type), Flush::kEnd), exact(values.size()) {
    for (size_t k = 0; k < values.size(); ++k) {
      const uint32_t code = Encode(type, values[k]);
      std::memcpy(array_.data() + k * Bytes(type), &code, Bytes(type));
      exact[k] = Decode(type, code);
    }
  }
  const void* data() const { return array_.data(); }

 private:
  GuardedArray array_;

 public:
  std::vector<float> exact;
};

// Both neighbours of every rounding boundary of a code type up to 16 bits, the boundaries
// and the codes' values, both signs; and values far outside.
std::vector<float> Boundaries(DType type, uint32_t codes) {
  std::vector<float> values = {0.0f, -0.0f, 1e-45f, -1e-45f, 1e-38f, 3e38f, -3e38f};
  for (uint32_t c = 0; c + 1 < codes; ++c) {
    const double a = Decode(type, c), b = Decode(type, c + 1);
    if (!std::isfinite(a) || !std::isfinite(b)) continue;
    const float middle = static_cast<float>((a + b) / 2);
    for (const float v : {static_cast<float>(a), middle, std::nextafter(middle, INFINITY),
                          std::nextafter(middle, -INFINITY)}) {
      values.push_back(v);
      values.push_back(-v);
    }
  }
  return values;
}

TEST(QuantizeRow, CodesAreTheScalarEncodersAtEveryBoundary) {
  for (const DType code : kCodes) {
    const uint32_t codes = code == DType::kI4 ? 16 : IsSixBit(code) ? 64 : 256;
    const std::vector<float> w = Boundaries(code, codes);
    const auto n = static_cast<int64_t>(w.size());
    // Three groups: as it is, divided by something that is no power of two, and zeros.
    for (const float scale : {1.0f, 0.37f, 1e-40f, 3e37f, 0.0f}) {
      for (const DType type : kSources) {
        const Source x(type, w);
        ForEachSimdTarget([&] {
          const GuardedArray out(w.size(), Flush::kEnd);
          EncodeRow(code, type, x.data(), n, n, &scale, out.data());
          for (int64_t k = 0; k < n; ++k) {
            // A quotient that overflows saturates like any other, also where the code has an
            // infinity.
            const float q = std::fmax(std::fmin(x.exact[k] / scale, FLT_MAX), -FLT_MAX);
            const uint32_t expected = scale == 0 ? 0 : Encode(code, q);
            ASSERT_EQ(out.data()[k], expected)
                << "code " << int(code) << " source " << int(type) << " value " << x.exact[k]
                << " scale " << scale;
          }
        });
      }
    }
  }
}

TEST(QuantizeRow, GroupsAndTailsOfAnyLength) {
  auto random = TestRandom(31);
  for (const DType type : kSources) {
    for (int64_t n = 1; n < 150; n += n < 40 ? 1 : 13) {
      for (const int64_t group : {int64_t{16}, int64_t{48}, n}) {
        const Source x(type, NormalValues(random, n));
        const int64_t groups = DivUp(n, group);
        std::vector<float> scales(groups);
        for (float& s : scales) s = std::fabs(NormalValues(random, 1)[0]);
        scales[groups / 2] = 0;
        ForEachSimdTarget([&] {
          const GuardedArray codes(n, Flush::kEnd);
          EncodeRow(DType::kI8, type, x.data(), n, group, scales.data(), codes.data());
          const GuardedArray maxima(groups * 4, Flush::kEnd);
          GroupMaxima(type, x.data(), n, group, maxima.as<float>());
          std::vector<float> amax(groups, 0.0f);
          for (int64_t k = 0; k < n; ++k) {
            const float scale = scales[k / group];
            amax[k / group] = std::max(amax[k / group], std::fabs(x.exact[k]));
            ASSERT_EQ(codes.data()[k],
                      scale == 0 ? 0 : Encode(DType::kI8, x.exact[k] / scale) & 255)
                << n << " " << group << " " << k;
          }
          for (int64_t g = 0; g < groups; ++g) ASSERT_EQ(maxima.as<float>()[g], amax[g]);
        });
      }
    }
  }
}

TEST(QuantizeRow, AMaximumWithNaNOrInfinityIsNotFinite) {
  for (const DType type : kSources) {
    for (const float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
      for (int64_t at = 0; at < 70; ++at) {
        std::vector<float> w(70, 1.0f);
        w[at] = bad;
        const Source x(type, w);
        ForEachSimdTarget([&] {
          float maxima[2];
          GroupMaxima(type, x.data(), 70, 48, maxima);
          EXPECT_FALSE(std::isfinite(maxima[at / 48]));
          EXPECT_EQ(maxima[1 - at / 48], 1.0f);
          EXPECT_FALSE(AllFinite(type, x.data(), 70));
        });
      }
    }
    EXPECT_TRUE(AllFinite(type, Source(type, std::vector<float>(70, -3e4f)).data(), 70));
  }
}

TEST(QuantizeRow, EveryCodeIsFoundFiniteOrNot) {
  for (const DType type : {DType::kE4M3, DType::kE5M2, DType::kF16, DType::kBF16}) {
    const bool wide = type == DType::kF16 || type == DType::kBF16;
    ForEachSimdTarget([&] {
      for (uint32_t code = 0; code < (wide ? 65536u : 256u); ++code) {
        ASSERT_EQ(AllFinite(type, &code, 1), std::isfinite(Decode(type, code)))
            << int(type) << " " << code;
      }
    });
  }
}

TEST(QuantizeRow, ConversionsAreTheScalarEncoders) {
  // Every F16 and every BF16 code, and every boundary of both in F32.
  std::vector<float> halves, brains, boundaries = Boundaries(DType::kF16, 65536);
  for (uint32_t c = 0; c < 65536; ++c) {
    if (std::isfinite(DecodeF16(uint16_t(c)))) halves.push_back(DecodeF16(uint16_t(c)));
    const float b = DecodeBF16(uint16_t(c));
    if (!std::isfinite(b)) continue;
    brains.push_back(b);
    for (const uint32_t low : {0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      boundaries.push_back(FromBits((c << 16) | low));
    }
  }
  const std::vector<float>* all[] = {&boundaries, &halves, &brains};
  for (int i = 0; i < 3; ++i) {
    const Source x(kSources[i], *all[i]);
    const auto n = static_cast<int64_t>(all[i]->size());
    for (const DType to : kSources) {
      std::vector<uint32_t> expected(n);
      for (int64_t k = 0; k < n; ++k) expected[k] = Encode(to, x.exact[k]);
      ForEachSimdTarget([&] {
        const GuardedArray out(n * Bytes(to), Flush::kEnd);
        ConvertRow(to, kSources[i], x.data(), n, out.data());
        for (int64_t k = 0; k < n; ++k) {
          uint32_t code = 0;
          std::memcpy(&code, out.data() + k * Bytes(to), Bytes(to));
          ASSERT_EQ(code, expected[k]) << x.exact[k] << " from " << int(kSources[i]) << " to "
                                       << int(to);
        }
      });
    }
  }
}

TEST(QuantizeRow, PlanesOfEveryLength) {
  for (int64_t n = 1; n < 200; ++n) {
    ForEachSimdTarget([&] {
      const GuardedArray codes(n + 3, Flush::kEnd), low(DivUp(n, 2), Flush::kEnd),
          high(DivUp(n, 4), Flush::kEnd);
      for (int64_t k = 0; k < n; ++k) codes.data()[k] = uint8_t((k * 37 + n) & 63);
      StorePlanes(codes.data(), n, low.data(), high.data());
      const auto code = [&](int64_t k) { return k < n ? unsigned((k * 37 + n) & 63) : 0u; };
      for (int64_t i = 0; i < DivUp(n, 2); ++i) {
        ASSERT_EQ(low.data()[i], (code(2 * i) & 15) | (code(2 * i + 1) & 15) << 4) << n;
      }
      for (int64_t i = 0; i < DivUp(n, 4); ++i) {
        ASSERT_EQ(high.data()[i], code(4 * i) >> 4 | code(4 * i + 1) >> 4 << 2 |
                                      code(4 * i + 2) >> 4 << 4 | code(4 * i + 3) >> 4 << 6) << n;
      }
    });
  }
}

}  // namespace
}  // namespace nibble
