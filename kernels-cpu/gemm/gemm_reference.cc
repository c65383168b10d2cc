// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/gemm/gemm_reference.h"

#include <algorithm>
#include <cmath>

#include "kernels-cpu/elementwise/elementwise.h"
#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/numerics/quantize.h"

namespace nibble {

std::vector<double> RoundedActivations(const GemmInput& input, int64_t row) {
  const float* source = input.x + row * input.stride;
  std::vector<float> x(source, source + input.cols);
  // RMSNorm has its own reference and tests; here both sides round the same F32 row.
  if (input.norm != nullptr) {
    RmsNormRow(source, input.norm, input.norm_epsilon, input.cols, x.data());
  }
  float amax = 0;
  for (float v : x) amax = std::max(amax, std::fabs(v));
  std::vector<double> rounded(x.begin(), x.end());
  if (input.activation == DType::kBF16) {
    for (double& v : rounded) v = DecodeBF16(EncodeBF16(static_cast<float>(v)));
  } else if (input.activation != DType::kF32) {
    const DType type = input.activation;
    const float scale = amax / MaxValue(type);
    for (size_t k = 0; k < x.size(); ++k) {
      rounded[k] = amax == 0 ? 0 : static_cast<double>(scale) * Decode(type, Encode(type, x[k] / scale));
    }
  }
  return rounded;
}

ReferenceProduct ReferenceDot(const std::vector<double>& x, const WeightFormat& format,
                              const CanonicalWeights& weights, int64_t n) {
  ReferenceProduct product{0, 0};
  const int64_t cols = static_cast<int64_t>(x.size());
  for (int64_t k = 0; k < cols; ++k) {
    const double term = x[k] * WeightValue(format, cols, weights, n, k);
    product.value += term;
    product.magnitude += std::fabs(term);
  }
  return product;
}

}  // namespace nibble
