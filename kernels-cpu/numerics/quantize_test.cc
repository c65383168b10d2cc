// SPDX-License-Identifier: Apache-2.0
//
// The quantizer against a plain restatement of its rules, and the rules' corner cases.
#include "kernels-cpu/numerics/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels-cpu/testing/kernel_test.h"
#include "kernels-cpu/gemm/canonical_storage.h"
#include "kernels-cpu/numerics/formats.h"

namespace nibble {
namespace {

std::vector<WeightFormat> QuantizedFormats() {
  std::vector<WeightFormat> formats;
  for (const int64_t group : {0, 16, 32, 128}) {
    for (const DType s : {DType::kE4M3, DType::kPow2, DType::kF16, DType::kBF16, DType::kF32}) {
      formats.push_back({DType::kI4, s, group});
    }
    for (const DType c : {DType::kI8, DType::kE4M3, DType::kE5M2, DType::kE3M2, DType::kE2M3}) {
      for (const DType s : {DType::kF16, DType::kBF16, DType::kF32}) {
        formats.push_back({c, s, group});
      }
    }
  }
  return formats;
}

uint32_t ScaleCode(const WeightFormat& f, const CanonicalStorage& c, int64_t index) {
  uint32_t code = 0;
  std::memcpy(&code, c.scales.data() + index * f.ScaleBytes(), f.ScaleBytes());
  return code;
}

// The rules of nb_quantize once more, one element at a time, with the scalar encoders.
class PlainQuantizer {
 public:
  PlainQuantizer(const WeightFormat& f, const std::vector<float>& w, int64_t rows, int64_t cols)
      : f_(f), w_(w), rows_(rows), cols_(cols) {}

  float Ideal(int64_t r, int64_t g) const {
    float amax = 0;
    for (int64_t k = g * f_.Group(cols_); k < std::min((g + 1) * f_.Group(cols_), cols_); ++k) {
      amax = std::max(amax, std::fabs(w_[r * cols_ + k]));
    }
    return amax / MaxValue(f_.code);
  }
  float Factor(int64_t r) const {
    float best = 0;
    const int64_t first = f_.HasMatrixFactor() ? 0 : r, last = f_.HasMatrixFactor() ? rows_ : r + 1;
    for (int64_t i = first; i < last; ++i) {
      for (int64_t g = 0; g < f_.Groups(cols_); ++g) best = std::max(best, Ideal(i, g));
    }
    return f_.HasMatrixFactor() ? best / 56 : f_.HasRowFactors() ? best / 32 : 1;
  }
  // The stored scale's value without the factor.
  float Scale(int64_t r, int64_t g) const {
    if (Ideal(r, g) == 0) return 0;
    const float ideal = Ideal(r, g) / Factor(r);
    if (f_.scale == DType::kPow2) {
      int e = -9;
      while (e < 5 && std::exp2(e) < ideal) ++e;
      return static_cast<float>(std::exp2(e));
    }
    const uint32_t code = Encode(f_.scale, ideal);
    return Decode(f_.scale, code == 0 ? 1 : code);
  }
  double Value(int64_t r, int64_t k) const {
    const int64_t g = k / f_.Group(cols_);
    const float scale = Scale(r, g), factor = Factor(r);
    if (scale == 0) return 0;
    const float q = Decode(f_.code, Encode(f_.code, w_[r * cols_ + k] / (scale * factor)));
    return static_cast<double>(q) * scale * factor;
  }

 private:
  const WeightFormat f_;
  const std::vector<float>& w_;
  const int64_t rows_, cols_;
};

TEST(Quantize, FollowsTheRulesToTheBit) {
  auto random = TestRandom(11);
  ThreadPool pool(3);
  for (const WeightFormat& f : QuantizedFormats()) {
    const int64_t rows = UniformInt(random, 1, 9), cols = UniformInt(random, 1, 300);
    std::vector<float> w = NormalValues(random, rows * cols, 0.05f);
    for (int64_t r = 0; r < rows; ++r) {  // spread the magnitudes of the groups
      for (int64_t k = 0; k < cols; ++k) {
        w[r * cols + k] *= static_cast<float>(std::exp2((r * 7 + k / 16 * 3) % 13 - 6));
        if (k / 16 % 5 == 4) w[r * cols + k] = 0;
      }
    }
    CanonicalStorage c(f, rows, cols);
    ASSERT_EQ(QuantizeWeights(pool, f, DType::kF32, w.data(), rows, cols, cols, c.view()), "");
    const PlainQuantizer plain(f, w, rows, cols);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < cols; ++k) {
        ASSERT_EQ(WeightValue(f, cols, c.view(), r, k), plain.Value(r, k))
            << "code " << int(f.code) << " scale " << int(f.scale) << " group " << f.group_size
            << " at " << r << "," << k << " of " << rows << "x" << cols;
      }
      for (int64_t g = 0; g < f.Groups(cols); ++g) {
        const uint32_t code = ScaleCode(f, c, r * f.Groups(cols) + g);
        if (plain.Ideal(r, g) != 0) {
          EXPECT_EQ(Decode(f.scale, code), plain.Scale(r, g));
        } else {
          EXPECT_EQ(static_cast<uint8_t>(code), f.scale == DType::kPow2 ? 0xF7 : 0);
        }
      }
    }
    EXPECT_EQ(CheckCanonical(pool, f, rows, cols, c.view()), "");
  }
}

TEST(Quantize, ReadsHalfPrecisionSourcesAndStrides) {
  auto random = TestRandom(12);
  ThreadPool pool(2);
  const int64_t rows = 5, cols = 37, stride = 41;
  const WeightFormat f{DType::kI4, DType::kE4M3, 32};
  for (const DType type : {DType::kF16, DType::kBF16}) {
    std::vector<uint16_t> half(rows * stride);
    std::vector<float> full(rows * cols);
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<float> row = NormalValues(random, stride);
      for (int64_t k = 0; k < stride; ++k) half[r * stride + k] = uint16_t(Encode(type, row[k]));
      for (int64_t k = 0; k < cols; ++k) full[r * cols + k] = Decode(type, half[r * stride + k]);
    }
    CanonicalStorage a(f, rows, cols), b(f, rows, cols);
    ASSERT_EQ(QuantizeWeights(pool, f, type, half.data(), rows, cols, stride, a.view()), "");
    ASSERT_EQ(QuantizeWeights(pool, f, DType::kF32, full.data(), rows, cols, cols, b.view()), "");
    EXPECT_EQ(a.codes, b.codes);
    EXPECT_EQ(a.scales, b.scales);
    EXPECT_EQ(a.factors, b.factors);
  }
}

TEST(Quantize, PowersOfTwoRoundUpAndExactOnesStay) {
  ThreadPool pool(1);
  const WeightFormat f{DType::kI4, DType::kPow2, 16};
  // Ideal scales relative to the row factor: 32 (the largest), 16, just above 16, 2^-12.
  const float amax[] = {7.0f, 3.5f, std::nextafter(3.5f, 4.0f), std::ldexp(7.0f, -17)};
  std::vector<float> w(64);
  for (int k = 0; k < 64; ++k) w[k] = amax[k / 16];
  CanonicalStorage c(f, 1, 64);
  ASSERT_EQ(QuantizeWeights(pool, f, DType::kF32, w.data(), 1, 64, 64, c.view()), "");
  EXPECT_EQ(c.factors[0], 1.0f / 32);
  EXPECT_EQ(Decode(DType::kPow2, c.scales[0]), 32);
  EXPECT_EQ(Decode(DType::kPow2, c.scales[1]), 16);
  EXPECT_EQ(Decode(DType::kPow2, c.scales[2]), 32);
  EXPECT_EQ(Decode(DType::kPow2, c.scales[3]), std::exp2(-9));
}

TEST(Quantize, TinyGroupsKeepAPositiveScale) {
  ThreadPool pool(1);
  std::vector<float> w(64, 1.0f);
  for (int k = 32; k < 64; ++k) w[k] = 1e-30f;  // far below the smallest E4M3 step of the factor
  for (const DType scale : {DType::kE4M3, DType::kF16}) {
    const WeightFormat f{DType::kI4, scale, 32};
    CanonicalStorage c(f, 1, 64);
    ASSERT_EQ(QuantizeWeights(pool, f, DType::kF32, w.data(), 1, 64, 64, c.view()), "");
    EXPECT_EQ(ScaleCode(f, c, 1), 1u);
    EXPECT_EQ(WeightValue(f, 64, c.view(), 0, 40), 0);
  }
}

TEST(Quantize, DenormalMatrixNeitherDividesByZeroNorMakesNaN) {
  ThreadPool pool(1);
  for (const WeightFormat& f : QuantizedFormats()) {
    std::vector<float> w = {1e-45f, -2e-45f, 0, 1e-44f};
    CanonicalStorage c(f, 1, 4);
    ASSERT_EQ(QuantizeWeights(pool, f, DType::kF32, w.data(), 1, 4, 4, c.view()), "");
    EXPECT_EQ(CheckCanonical(pool, f, 1, 4, c.view()), "");
    for (int k = 0; k < 4; ++k) EXPECT_TRUE(std::isfinite(WeightValue(f, 4, c.view(), 0, k)));
  }
}

TEST(Quantize, NamesTheFirstElementThatIsNotFinite) {
  ThreadPool pool(4);
  std::vector<float> w(40 * 10, 1.0f);
  w[31 * 10 + 2] = INFINITY;
  w[17 * 10 + 3] = NAN;
  for (const WeightFormat& f : QuantizedFormats()) {
    CanonicalStorage c(f, 40, 10);
    const std::vector<uint8_t> codes = c.codes, scales = c.scales;
    EXPECT_EQ(QuantizeWeights(pool, f, DType::kF32, w.data(), 40, 10, 10, c.view()),
              "element [17, 3] is NaN but a finite number was expected");
    EXPECT_EQ(c.codes, codes);
    EXPECT_EQ(c.scales, scales);
  }
}

TEST(CheckCanonical, NamesWhatIsWrong) {
  ThreadPool pool(2);
  const auto with = [&](const WeightFormat& f, auto&& change) {
    CanonicalStorage c(f, 3, 32);
    std::fill(c.factors.begin(), c.factors.end(), 1.0f);
    change(c);
    return CheckCanonical(pool, f, 3, 32, c.view());
  };
  const WeightFormat i4{DType::kI4, DType::kE4M3, 16}, pow2{DType::kI4, DType::kPow2, 16};
  EXPECT_EQ(with(i4, [](auto&) {}), "");
  EXPECT_NE(with(i4, [](auto& c) { c.scales[3] = 0x7F; }).find("scales[1, 1]"), std::string::npos);
  EXPECT_NE(with(i4, [](auto& c) { c.scales[5] = 0x81; }).find("scales[2, 1]"), std::string::npos);
  EXPECT_NE(with(i4, [](auto& c) { c.factors[0] = -1; }).find("factors[0]"), std::string::npos);
  EXPECT_NE(with(pow2, [](auto& c) { c.scales[0] = 6; }).find("2^6"), std::string::npos);
  // Scales with a sign: every code of 16 bits is refused exactly where it is not finite.
  for (const DType type : {DType::kF16, DType::kBF16}) {
    for (uint32_t code = 0; code < 65536; ++code) {
      const std::string problem = with({DType::kI4, type, 16}, [&](auto& c) {
        c.scales[6] = static_cast<uint8_t>(code);
        c.scales[7] = static_cast<uint8_t>(code >> 8);
      });
      EXPECT_EQ(problem.empty(), std::isfinite(Decode(type, code))) << code << problem;
    }
  }
  const WeightFormat wide{DType::kI4, DType::kF32, 16};
  EXPECT_EQ(with(wide, [](auto& c) { c.scales[7] = 0xFF; }), "");
  EXPECT_NE(with(wide, [](auto& c) { c.scales[6] = 0x80, c.scales[7] = 0xFF; })
                .find("scales[0, 1] is -inf"), std::string::npos);
  EXPECT_NE(with({DType::kE4M3, DType::kF32, 0}, [](auto& c) { c.codes[33] = 0xFF; })
                .find("codes[1, 1] is NaN"), std::string::npos);
}

}  // namespace
}  // namespace nibble
