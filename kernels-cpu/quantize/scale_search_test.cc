// SPDX-License-Identifier: Apache-2.0
//
// The search against trying every scale of its range.
#include "kernels-cpu/quantize/scale_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/testing/kernel_test.h"

namespace nibble {
namespace {

double ErrorOf(const std::vector<float>& w, const std::vector<float>& h, float scale) {
  double error = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double e = w[i] - static_cast<double>(DecodeI4(EncodeI4(w[i] / scale))) * scale;
    error += h[i] * e * e;
  }
  return error;
}

TEST(ScaleSearch, FindsTheBestOfItsCandidates) {
  std::mt19937_64 random = TestRandom(321);
  for (int round = 0; round < 60 * TestRounds(); ++round) {
    const int64_t n = UniformInt(random, 24, 200);
    std::vector<float> w = NormalValues(random, n);
    // A large weight makes clipping worthwhile, within the range of the search.
    if (round % 2 == 0) w[UniformInt(random, 0, n - 1)] *= 1.7f;
    std::vector<float> h = NormalValues(random, n);
    for (float& v : h) v *= v;
    const float amax = LargestMagnitude(w.data(), n);
    const WeightFormat e4m3 = {DType::kI4, DType::kE4M3, 0};
    const WeightFormat pow2 = {DType::kI4, DType::kPow2, 0};
    const float factor = amax / 7 / 40;
    const float ideal = amax / 7 / factor;
    const int nearest_code = EncodeE4M3(ideal);
    double best_e4m3 = std::numeric_limits<double>::infinity(), best_pow2 = best_e4m3;
    for (int code = nearest_code - 20; code <= nearest_code + 2; ++code) {
      const float scale = DecodeE4M3(static_cast<uint8_t>(code)) * factor;
      best_e4m3 = std::min(best_e4m3, ErrorOf(w, h, scale));
    }
    const int exponent = static_cast<int>(std::ceil(std::log2(ideal)));  // 40: 6, above the largest
    for (int e = std::min(exponent, 5) - 3; e <= 5; ++e) {
      best_pow2 = std::min(best_pow2, ErrorOf(w, h, std::exp2(static_cast<float>(e)) * factor));
    }
    ForEachSimdTarget([&] {
      for (const WeightFormat& f : {e4m3, pow2}) {
        const double best = f.scale == DType::kE4M3 ? best_e4m3 : best_pow2;
        const GroupScale found = FindGroupScale(f, w.data(), h.data(), n, factor, true);
        EXPECT_EQ(found.value, Decode(f.scale, found.code) * factor);
        // Sums of n positive F32 terms; ties of codes round differently in a quotient and a
        // product, to the same error.
        EXPECT_NEAR(found.error, best, n * 0x1p-22 * best);
        const GroupScale nearest = FindGroupScale(f, w.data(), h.data(), n, factor, false);
        EXPECT_LE(ErrorOf(w, h, found.value), ErrorOf(w, h, nearest.value) * (1 + n * 0x1p-22));
      }
      const WeightFormat f32 = {DType::kI4, DType::kF32, 0};
      const GroupScale found = FindGroupScale(f32, w.data(), nullptr, n, 1, true);
      const GroupScale nearest = FindGroupScale(f32, w.data(), nullptr, n, 1, false);
      const std::vector<float> ones(n, 1.0f);
      EXPECT_EQ(nearest.value, amax / 7);
      EXPECT_LE(ErrorOf(w, ones, found.value),
                ErrorOf(w, ones, nearest.value) * (1 + n * 0x1p-22));
    });
  }
}

TEST(ScaleSearch, GroupsOfZerosAndUnderflow) {
  const std::vector<float> zeros(32, 0.0f), tiny(32, 1e-42f);
  for (const DType scale : {DType::kE4M3, DType::kPow2, DType::kF32, DType::kF16}) {
    const WeightFormat f = {DType::kI4, scale, 0};
    for (const bool search : {false, true}) {
      const GroupScale s = FindGroupScale(f, zeros.data(), nullptr, 32, 1, search);
      EXPECT_EQ(s.value, 0);
      EXPECT_EQ(s.code, scale == DType::kPow2 ? 0xF7u : 0u);
      EXPECT_GT(FindGroupScale(f, tiny.data(), nullptr, 32, 1, search).value, 0);
    }
  }
  EXPECT_EQ(FindRowFactor(zeros.data(), nullptr, 32, 16, true), 0);
  EXPECT_GT(FindRowFactor(tiny.data(), nullptr, 32, 16, true), 0);
}

TEST(ScaleSearch, TheRowFactorIsTheBestOfItsCandidates) {
  std::mt19937_64 random = TestRandom(322);
  const int64_t cols = 96, group = 32;
  const std::vector<float> w = NormalValues(random, cols);
  const WeightFormat f = {DType::kI4, DType::kPow2, group};
  const auto error = [&](float factor) {
    double sum = 0;
    for (int64_t k = 0; k < cols; k += group) {
      sum += FindGroupScale(f, w.data() + k, nullptr, group, factor, true).error;
    }
    return sum;
  };
  const float nearest = FindRowFactor(w.data(), nullptr, cols, group, false);
  const float found = FindRowFactor(w.data(), nullptr, cols, group, true);
  EXPECT_EQ(nearest, LargestMagnitude(w.data(), cols) / 7 / 32);
  for (int i = 0; i < 8; ++i) {
    EXPECT_LE(error(found), error(nearest * std::exp2(-i / 8.0f)) * (1 + 1e-5));
  }
}

}  // namespace
}  // namespace nibble
