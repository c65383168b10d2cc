// SPDX-License-Identifier: Apache-2.0
//
// The product as it is defined: activations rounded by the scalar encoders, weights by
// WeightValue, everything else in F64. Every kernel is tested against this.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels-cpu/gemm/gemm.h"

namespace nibble {

// The row of activations that the weights meet: normalized and rounded, scale applied.
std::vector<double> RoundedActivations(const GemmInput& input, int64_t row);

struct ReferenceProduct {
  double value;      // sum of x * w
  double magnitude;  // sum of |x * w|: what rounding errors are relative to
};

// x: from RoundedActivations; weight row n of an [.][cols] matrix.
ReferenceProduct ReferenceDot(const std::vector<double>& x, const WeightFormat& format,
                              const CanonicalWeights& weights, int64_t n);

}  // namespace nibble
