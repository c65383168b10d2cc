// SPDX-License-Identifier: Apache-2.0
//
// What the forward pass needs beside I4 and six-bit weights: I8, E4M3, E5M2, BF16, F16 and F32
// weights. What each function does, and its operands, stands in common/weights.h; the packed
// layout in common/strip_layout.h.
//
// Activations: I8 (A8I) with I8 weights; E4M3 (A8F) and BF16 (A16) with all but F32 weights; F32
// with all, on CUDA cores. Scales: F32, F16, BF16; one a row or one for any multiple of 16
// columns. sm_80 and up; any M, N, K.
#pragma once

#include "kernels-cuda/common/weights.h"

namespace nibble::cuda {

extern const GemmFamily kGemmDense;

}  // namespace nibble::cuda
