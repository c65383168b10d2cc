// SPDX-License-Identifier: Apache-2.0
//
// Six-bit weights (E3M2, E2M3; FP6-LLM, arXiv 2401.14112, ZeroQuant(4+2), arXiv 2312.08583) on the
// tensor cores. What each function does, and its operands, stands in common/weights.h; the packed
// layout in common/strip_layout.h.
//
// Activations: BF16 (A16), E4M3 (A8F), I8 (A8I), and F32 on CUDA cores. Scales: F32, F16, BF16; one
// a row or one for any multiple of 16 columns. sm_80 and up; any M, N, K.
#pragma once

#include "kernels-cuda/common/weights.h"

namespace nibble::cuda {

extern const GemmFamily kGemmF6;

}  // namespace nibble::cuda
