// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/elementwise/elementwise_reference.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "kernels-cpu/numerics/formats.h"

namespace nibble {

void RmsNormRowReference(const float* x, const float* weight, float epsilon, int64_t n,
                         double* y) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  const double inverse = 1 / std::sqrt(sum / static_cast<double>(n) + epsilon);
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * inverse * weight[i];
}

void SwiGluRowReference(const float* gate, const float* up, int64_t n, double* y) {
  for (int64_t i = 0; i < n; ++i) {
    const double g = gate[i];
    y[i] = g / (1 + std::exp(-g)) * up[i];
  }
}

float QuantizeRowReference(DType type, const float* x, int64_t n, uint8_t* codes) {
  float amax = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite = finite && std::isfinite(x[i]);
    amax = std::max(amax, std::fabs(x[i]));
    codes[i] = 0;
  }
  if (!finite) return NAN;
  if (amax == 0) return 0;
  const float scale = std::max(amax / (type == DType::kE4M3 ? 448.0f : 127.0f), FLT_MIN);
  for (int64_t i = 0; i < n; ++i) {
    codes[i] = type == DType::kE4M3 ? EncodeE4M3(x[i] / scale)
                                    : static_cast<uint8_t>(EncodeI8(x[i] / scale));
  }
  return scale;
}

}  // namespace nibble
