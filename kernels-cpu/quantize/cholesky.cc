// SPDX-License-Identifier: Apache-2.0
//
// Right-looking, in blocks of 128 columns:
//
//   | L11           |    L11 = factor of the block on the diagonal, F64
//   | L21  A22 ...  |    L21 = A21 L11^-T, a product with the inverse of L11 (128 x 128, F64)
//                        A22 -= L21 L21^T, the lower triangle alone
//
// Precision: the products are F32 sums of 128 terms, so that an element of A22 is off by about
// 2^-24 sqrt(n / 128) of the largest diagonal element of its row and column at most; the caller's
// damping must lie well above that, and failure is reported where it does not.
#include "kernels-cpu/quantize/cholesky.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels-cpu/memory/buffer.h"
#include "kernels-cpu/quantize/symmetric_update.h"

namespace nibble {
namespace {

constexpr int64_t kBlock = 128;

// Factors the [m][m] block at a (rows stride apart) in place; inverse [m][m] = L^-1.
bool FactorDiagonal(float* a, int64_t stride, int64_t m, std::vector<double>* inverse) {
  std::vector<double> l(static_cast<size_t>(m * m), 0.0);
  for (int64_t j = 0; j < m; ++j) {
    for (int64_t i = j; i < m; ++i) {
      double sum = a[i * stride + j];
      for (int64_t k = 0; k < j; ++k) sum -= l[i * m + k] * l[j * m + k];
      if (i == j) {
        if (!(sum > 0) || !std::isfinite(sum)) return false;
        l[j * m + j] = std::sqrt(sum);
      } else {
        l[i * m + j] = sum / l[j * m + j];
      }
    }
  }
  inverse->assign(static_cast<size_t>(m * m), 0.0);
  for (int64_t j = 0; j < m; ++j) {
    (*inverse)[j * m + j] = 1 / l[j * m + j];
    for (int64_t i = j + 1; i < m; ++i) {
      double sum = 0;
      for (int64_t k = j; k < i; ++k) sum -= l[i * m + k] * (*inverse)[k * m + j];
      (*inverse)[i * m + j] = sum / l[i * m + i];
    }
  }
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j <= i; ++j) a[i * stride + j] = static_cast<float>(l[i * m + j]);
  }
  return true;
}

}  // namespace

bool Cholesky(Workspace& workspace, float* a, int64_t n) {
  const Buffer panel(static_cast<size_t>(n * kBlock) * sizeof(float));
  std::vector<double> inverse;
  std::vector<float> inverse_f32;
  for (int64_t b = 0; b < n; b += kBlock) {
    const int64_t m = std::min(kBlock, n - b), rest = n - b - m;
    if (!FactorDiagonal(a + b * n + b, n, m, &inverse)) return false;
    if (rest == 0) break;
    inverse_f32.assign(inverse.begin(), inverse.end());
    float* below = a + (b + m) * n + b;
    float* l21 = panel.as<float>();
    std::fill_n(l21, rest * m, 0.0f);
    AddProduct(workspace, below, n, rest, PackFloats(workspace.pool(), inverse_f32.data(), m, m),
               l21, m);
    for (int64_t r = 0; r < rest; ++r) std::copy_n(l21 + r * m, m, below + r * n);
    AddSymmetricProduct(workspace, l21, rest, m, -1, a + (b + m) * n + b + m, n);
  }
  return true;
}

}  // namespace nibble
