// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/quantize/drift_correction.h"

#include <cmath>
#include <vector>

#include "kernels-cpu/quantize/channel_statistics.h"
#include "kernels-cpu/testing/kernel_test.h"

namespace nibble {
namespace {

// Inputs x [rows][n] and y = x + drift * x A with a random A, plus noise.
struct Drift {
  Drift(std::mt19937_64& random, int64_t rows, int64_t n, float drift, float noise)
      : x(NormalValues(random, rows * n)), y(x), moments(n * n, 0.0f), cross(n * n, 0.0f) {
    const std::vector<float> a = NormalValues(random, n * n), e = NormalValues(random, rows * n);
    const float size = drift / std::sqrt(static_cast<float>(n));
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += x[r * n + i] * a[i * n + j];
        y[r * n + j] += static_cast<float>(size * sum) + noise * e[r * n + j];
      }
    }
    Workspace workspace(2);
    AddSecondMoments(workspace, x.data(), n, rows, n, moments.data());
    AddCrossMoments(workspace, x.data(), n, y.data(), n, rows, n, cross.data());
  }

  // Sum over tokens of |W y - V x|^2 over that of |W y|^2.
  double Error(const std::vector<float>& w, const std::vector<float>& v, int64_t n) const {
    const int64_t tokens = static_cast<int64_t>(x.size()) / n;
    const int64_t rows = static_cast<int64_t>(w.size()) / n;
    double error = 0, all = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        double wanted = 0, found = 0;
        for (int64_t k = 0; k < n; ++k) {
          wanted += static_cast<double>(w[r * n + k]) * y[t * n + k];
          found += static_cast<double>(v[r * n + k]) * x[t * n + k];
        }
        error += (wanted - found) * (wanted - found);
        all += wanted * wanted;
      }
    }
    return error / all;
  }

  std::vector<float> x, y, moments, cross;
};

TEST(CrossMoments, AreSumsOfProducts) {
  std::mt19937_64 random = TestRandom(371);
  const int64_t rows = 37, n = 21, x_stride = 25, y_stride = 22;
  const std::vector<float> x = NormalValues(random, rows * x_stride),
                           y = NormalValues(random, rows * y_stride);
  std::vector<float> moments(n * n, 2.0f);
  Workspace workspace(2);
  AddCrossMoments(workspace, x.data(), x_stride, y.data(), y_stride, rows, n, moments.data());
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 2, magnitudes = 2;
      for (int64_t r = 0; r < rows; ++r) {
        const double term = static_cast<double>(x[r * x_stride + i]) * y[r * y_stride + j];
        sum += term;
        magnitudes += std::abs(term);
      }
      // A sum of rows + 1 terms, each rounded, in any order.
      EXPECT_NEAR(moments[i * n + j], sum, (rows + 2) * 0x1p-24 * magnitudes) << i << ", " << j;
    }
  }
}

// V (H + d) = W (C + d), row by row, for sizes around the block.
TEST(CorrectDrift, SolvesTheNormalEquations) {
  std::mt19937_64 random = TestRandom(372);
  for (const int64_t n : {1, 5, 127, 128, 129, 300}) {
    for (const int threads : {1, 3}) {
      const int64_t rows = 7, stride = n + 3, tokens = 2 * n + 3;
      const Drift d(random, tokens, n, 0.3f, 0.1f);
      const std::vector<float> w = NormalValues(random, rows * stride);
      std::vector<float> v = w;
      Workspace workspace(threads);
      const float damping = 0.01f;
      ASSERT_EQ(CorrectDrift(workspace, v.data(), stride, rows, n, d.moments.data(),
                             d.cross.data(), damping), "");
      double mean = 0;
      for (int64_t k = 0; k < n; ++k) mean += d.moments[k * n + k] / n;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t j = 0; j < n; ++j) {
          double left = damping * mean * v[r * stride + j];
          double right = damping * mean * w[r * stride + j];
          double magnitudes = std::abs(left) + std::abs(right);
          for (int64_t k = 0; k < n; ++k) {
            const double a = static_cast<double>(v[r * stride + k]) * d.moments[k * n + j];
            const double b = static_cast<double>(w[r * stride + k]) * d.cross[j * n + k];
            left += a;
            right += b;
            magnitudes += std::abs(a) + std::abs(b);
          }
          // Both substitutions are backward stable: a few n u of what is added up.
          EXPECT_NEAR(left, right, (8 * n + 32) * 0x1p-24 * magnitudes)
              << n << ": " << r << ", " << j;
        }
        for (int64_t k = n; k < stride; ++k) EXPECT_EQ(v[r * stride + k], w[r * stride + k]);
      }
    }
  }
}

TEST(CorrectDrift, TakesBackWhatIsLinear) {
  std::mt19937_64 random = TestRandom(373);
  const int64_t n = 40, rows = 9;
  const std::vector<float> w = NormalValues(random, rows * n);
  Workspace workspace(2);
  for (const float noise : {0.0f, 0.1f}) {
    const Drift d(random, 400, n, 0.3f, noise);
    std::vector<float> v = w;
    ASSERT_EQ(CorrectDrift(workspace, v.data(), n, rows, n, d.moments.data(), d.cross.data(),
                           1e-5f), "");
    const double before = d.Error(w, w, n), after = d.Error(w, v, n);
    EXPECT_GT(before, 0.05);
    EXPECT_LT(after, noise == 0 ? 1e-6 : 0.012);  // noise^2, less what 400 tokens let it explain
  }
}

TEST(CorrectDrift, WithoutDriftNothingChanges) {
  std::mt19937_64 random = TestRandom(374);
  const int64_t n = 130, rows = 4;
  Drift d(random, 200, n, 0, 0);
  const std::vector<float> w = NormalValues(random, rows * n);
  std::vector<float> v = w;
  Workspace workspace(2);
  ASSERT_EQ(CorrectDrift(workspace, v.data(), n, rows, n, d.moments.data(), d.moments.data(),
                         0.01f), "");
  EXPECT_EQ(v, w);
  // Inputs that are all zero.
  const std::vector<float> zeros(n * n, 0.0f);
  ASSERT_EQ(CorrectDrift(workspace, v.data(), n, rows, n, zeros.data(), zeros.data(), 0.01f), "");
  EXPECT_EQ(v, w);
}

TEST(CorrectDrift, SaysWhatIsWrongAndLeavesTheWeights) {
  std::mt19937_64 random = TestRandom(375);
  const int64_t n = 20, rows = 3;
  const Drift good(random, 60, n, 0.1f, 0);
  const std::vector<float> w = NormalValues(random, rows * n);
  Workspace workspace(1);
  const auto expect = [&](const Drift& d, const std::string& part) {
    std::vector<float> v = w;
    const std::string problem = CorrectDrift(workspace, v.data(), n, rows, n, d.moments.data(),
                                             d.cross.data(), 0.01f);
    EXPECT_NE(problem.find(part), std::string::npos) << problem;
    EXPECT_EQ(v, w);
  };
  Drift bad = good;
  bad.moments[3 * n + 7] = NAN;
  expect(bad, "moments: row 3 holds");
  bad = good;
  bad.moments[5 * n + 5] = -1;
  expect(bad, "moments: row 5 holds");
  bad = good;
  bad.cross[n + 2] = INFINITY;
  expect(bad, "cross: row 1 holds");
}

}  // namespace
}  // namespace nibble
