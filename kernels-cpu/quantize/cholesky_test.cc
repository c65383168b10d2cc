// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/quantize/cholesky.h"

#include <cmath>
#include <vector>

#include "kernels-cpu/testing/kernel_test.h"

namespace nibble {
namespace {

// x^T x / rows + damping on the diagonal.
std::vector<float> Moments(std::mt19937_64& random, int64_t n, int64_t rows, float damping) {
  const std::vector<float> x = NormalValues(random, rows * n);
  std::vector<float> a(n * n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = i == j ? damping : 0;
      for (int64_t r = 0; r < rows; ++r) sum += x[r * n + i] * x[r * n + j] / rows;
      a[i * n + j] = static_cast<float>(sum);
    }
  }
  return a;
}

TEST(Cholesky, TheFactorTimesItsTransposeIsTheMatrix) {
  std::mt19937_64 random = TestRandom(311);
  for (const int64_t n : {1, 5, 127, 128, 129, 300}) {
    const std::vector<float> a = Moments(random, n, n / 2 + 1, 0.01f);
    Workspace workspace(2);
    std::vector<float> l = a;
    ASSERT_TRUE(Cholesky(workspace, l.data(), n)) << n;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        double sum = 0;
        for (int64_t k = 0; k <= j; ++k) {
          sum += static_cast<double>(l[i * n + k]) * l[j * n + k];
        }
        // Backward error of a Cholesky factorization in F32 (Higham, theorem 10.3):
        // (n + 1) u sqrt(a_ii a_jj).
        const double bound = (n + 1) * 0x1p-23 * std::sqrt(a[i * n + i] * a[j * n + j]);
        ASSERT_NEAR(sum, a[i * n + j], bound) << n << ": " << i << ", " << j;
      }
    }
  }
}

TEST(Cholesky, SaysWhatIsNotPositiveDefinite) {
  std::mt19937_64 random = TestRandom(312);
  Workspace workspace(1);
  for (const int64_t n : {1, 40, 200}) {
    for (const float diagonal : {0.0f, -1.0f, NAN, INFINITY}) {
      std::vector<float> a = Moments(random, n, n, 0.1f);
      a[n * n - 1] = diagonal;
      EXPECT_FALSE(Cholesky(workspace, a.data(), n)) << n << ", " << diagonal;
    }
  }
}

}  // namespace
}  // namespace nibble
