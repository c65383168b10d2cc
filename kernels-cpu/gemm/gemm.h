// SPDX-License-Identifier: Apache-2.0
//
// Products of activations with packed weights. The operators of nb_matmul and
// nb_swiglu_matmul; shapes and pointers are already checked.
#pragma once

#include <cstdint>

#include "kernels-cpu/gemm/packed_matrix.h"
#include "kernels-cpu/threads/workspace.h"

namespace nibble {

// The rows of x, and how they are rounded before the product.
struct GemmInput {
  DType activation;             // kF32, kBF16 (A16), kE4M3 (A8F) or kI8 (A8I)
  const float* x;               // [rows][cols], rows stride elements apart
  int64_t rows;
  int64_t cols;
  int64_t stride;
  const float* norm = nullptr;  // RMSNorm weight [cols], or null
  float norm_epsilon = 0;
};

struct GemmOutput {
  const PackedMatrix* matrix;
  const float* bias = nullptr;  // [N], or null
  const float* residual = nullptr;  // [rows][N], rows residual_stride apart, or null
  int64_t residual_stride = 0;
  float* y = nullptr;               // [rows][N], rows stride elements apart
  int64_t stride = 0;
};

// Whether there is a kernel for weights of this code type with this activation.
bool HasKernel(DType code, DType activation);

// y = norm(x) W^T + bias + residual, for count matrices of one K. Throws std::bad_alloc.
void MatMul(Workspace& workspace, const GemmInput& input, const GemmOutput* outputs, int count);

// y = silu(gate product + gate.bias) * (up product + up.bias), written to up.y.
// gate and up have one shape and format; their residuals and gate.y are not used.
void SwiGluMatMul(Workspace& workspace, const GemmInput& input, const GemmOutput& gate,
                  const GemmOutput& up);

}  // namespace nibble
