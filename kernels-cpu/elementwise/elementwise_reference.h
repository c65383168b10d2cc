// SPDX-License-Identifier: Apache-2.0
//
// The plain definitions of the row operators, in F64. Quantizers are exact instead: they
// give the very codes that the fast versions must give.
#pragma once

#include <cstdint>

#include "kernels-cpu/numerics/types.h"

namespace nibble {

void RmsNormRowReference(const float* x, const float* weight, float epsilon, int64_t n, double* y);

// y = silu(gate) * up.
void SwiGluRowReference(const float* gate, const float* up, int64_t n, double* y);

// type: kE4M3 or kI8. Writes n codes (I8 as bytes) and returns the scale.
float QuantizeRowReference(DType type, const float* x, int64_t n, uint8_t* codes);

}  // namespace nibble
