// SPDX-License-Identifier: Apache-2.0
//
// Compensation in F64, as GPTQ (arXiv 2210.17323) states it, by the inverse of H: for tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels-cpu/numerics/formats.h"

namespace nibble {

// The inverse of a symmetric positive definite matrix [n][n], by Gauss and Jordan.
inline std::vector<double> InverseReference(std::vector<double> a, int64_t n) {
  std::vector<double> inverse(n * n, 0.0);
  for (int64_t i = 0; i < n; ++i) inverse[i * n + i] = 1;
  for (int64_t p = 0; p < n; ++p) {
    const double pivot = a[p * n + p];
    for (int64_t j = 0; j < n; ++j) {
      a[p * n + j] /= pivot;
      inverse[p * n + j] /= pivot;
    }
    for (int64_t i = 0; i < n; ++i) {
      const double f = a[i * n + p];
      if (i == p || f == 0) continue;
      for (int64_t j = 0; j < n; ++j) {
        a[i * n + j] -= f * a[p * n + j];
        inverse[i * n + j] -= f * inverse[p * n + j];
      }
    }
  }
  return inverse;
}

// Rounds one row w [n] to I4 codes, column after column: each error, divided by the inverse's
// diagonal, is taken off the columns behind it, and the inverse loses its first row and column.
// A group's scale is the largest magnitude that its columns have when its turn comes, over 7.
// Returns the codes; *scales gets each column's scale, *target what each was rounded from.
inline std::vector<int> CompensateReference(std::vector<double> w, std::vector<double> inverse,
                                            int64_t group, std::vector<double>* scales,
                                            std::vector<double>* target) {
  const int64_t n = static_cast<int64_t>(w.size());
  std::vector<int> codes(n);
  target->assign(n, 0.0);
  scales->assign(n, 0.0);
  for (int64_t j = 0; j < n; ++j) {
    if (j % group == 0) {
      double amax = 0;
      for (int64_t k = j; k < std::min(n, j + group); ++k) amax = std::max(amax, std::fabs(w[k]));
      for (int64_t k = j; k < std::min(n, j + group); ++k) (*scales)[k] = amax / 7;
    }
    (*target)[j] = w[j] / (*scales)[j];
    codes[j] = EncodeI4(static_cast<float>((*target)[j]));
    const double error = (w[j] - codes[j] * (*scales)[j]) / inverse[j * n + j];
    for (int64_t k = j + 1; k < n; ++k) w[k] -= error * inverse[j * n + k];
    const double pivot = inverse[j * n + j];
    for (int64_t i = j + 1; i < n; ++i) {
      const double f = inverse[i * n + j] / pivot;
      for (int64_t k = j + 1; k < n; ++k) inverse[i * n + k] -= f * inverse[j * n + k];
    }
  }
  return codes;
}

}  // namespace nibble
