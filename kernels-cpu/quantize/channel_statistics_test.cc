// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/quantize/channel_statistics.h"

#include <algorithm>
#include <cmath>

#include "kernels-cpu/testing/guarded_buffer.h"
#include "kernels-cpu/testing/kernel_test.h"

namespace nibble {
namespace {

constexpr double kUnit = 0x1p-24;

TEST(ChannelStatistics, SumsOfSquaresAndMaximaOfEachColumn) {
  std::mt19937_64 random = TestRandom(301);
  for (int round = 0; round < 8 * TestRounds(); ++round) {
    const int64_t rows = UniformInt(random, 0, 70), cols = UniformInt(random, 1, 300);
    const int64_t stride = cols + UniformInt(random, 0, 5);
    const std::vector<float> x = NormalValues(random, rows * stride);
    std::vector<double> sums(cols, 2.0);
    std::vector<float> maxima(cols, 0.5f);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < cols; ++k) {
        const double v = x[r * stride + k];
        sums[k] += v * v;
        maxima[k] = std::max(maxima[k], std::fabs(x[r * stride + k]));
      }
    }
    ForEachSimdTarget([&] {
      std::vector<float> first;
      for (int threads = 1; threads <= 3; ++threads) {
        Workspace workspace(threads);
        const GuardedBuffer<float> s(std::vector<float>(cols, 2.0f));
        const GuardedBuffer<float> m(std::vector<float>(cols, 0.5f));
        AddChannelStatistics(workspace, x.data(), stride, rows, cols, s.data(), nullptr);
        AddChannelStatistics(workspace, x.data(), stride, rows, cols, nullptr, m.data());
        // Sums of positive terms: each addition and each square rounds once.
        for (int64_t k = 0; k < cols; ++k) {
          ASSERT_NEAR(s[k], sums[k], (rows + 2) * kUnit * sums[k]) << "column " << k;
        }
        ASSERT_TRUE(std::equal(maxima.begin(), maxima.end(), m.begin()));
        if (threads == 1) first.assign(s.begin(), s.end());
        ASSERT_TRUE(std::equal(first.begin(), first.end(), s.begin())) << threads << " threads";
      }
    });
  }
}

TEST(ChannelStatistics, ScalesRowsAndColumns) {
  std::mt19937_64 random = TestRandom(302);
  const int64_t rows = 7, cols = 37, stride = 40;
  const std::vector<float> w = NormalValues(random, rows * stride);
  const std::vector<float> r = NormalValues(random, rows), c = NormalValues(random, cols);
  ForEachSimdTarget([&] {
    Workspace workspace(2);
    std::vector<float> both = w, by_rows = w, by_cols = w;
    ScaleMatrix(workspace, both.data(), stride, rows, cols, r.data(), c.data());
    ScaleMatrix(workspace, by_rows.data(), stride, rows, cols, r.data(), nullptr);
    ScaleMatrix(workspace, by_cols.data(), stride, rows, cols, nullptr, c.data());
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t k = 0; k < stride; ++k) {
        const int64_t at = i * stride + k;
        const bool inside = k < cols;
        ASSERT_FLOAT_EQ(both[at], inside ? w[at] * r[i] * c[k] : w[at]);
        ASSERT_EQ(by_rows[at], inside ? w[at] * r[i] : w[at]);
        ASSERT_EQ(by_cols[at], inside ? w[at] * c[k] : w[at]);
      }
    }
  });
}

TEST(SecondMoments, AreTheProductOfTheTransposeAndAreSymmetric) {
  std::mt19937_64 random = TestRandom(303);
  for (const int64_t cols : {1, 17, 130, 700}) {  // 700: two blocks of rows
    const int64_t rows = UniformInt(random, 1, 60), stride = cols + 3;
    const std::vector<float> x = NormalValues(random, rows * stride);
    Workspace workspace(2);
    std::vector<float> h(cols * cols, 1.0f);
    AddSecondMoments(workspace, x.data(), stride, rows, cols, h.data());
    AddSecondMoments(workspace, x.data(), stride, 0, cols, h.data());
    for (int64_t i = 0; i < cols; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        double expected = 1, bound = 1;
        for (int64_t r = 0; r < rows; ++r) {
          const double term = static_cast<double>(x[r * stride + i]) * x[r * stride + j];
          expected += term;
          bound += std::fabs(term);
        }
        ASSERT_NEAR(h[i * cols + j], expected, (rows + 2) * kUnit * bound) << i << ", " << j;
        ASSERT_EQ(h[i * cols + j], h[j * cols + i]);
      }
    }
  }
}

}  // namespace
}  // namespace nibble
