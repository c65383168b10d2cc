// SPDX-License-Identifier: Apache-2.0
//
// The parameters of the kernels, as host and device both see them.
#pragma once

#include <cstdint>

#include "kernels-cpu/numerics/types.h"

namespace nibble::cuda::gemm_i4f8 {

// n / divisor for 0 <= n < 2^31 by a multiplication: Granlund and Montgomery, "Division by
// invariant integers using multiplication" (PLDI 1994), figure 4.1. 1 <= divisor <= 2^31.
struct FastDivide {
  FastDivide() = default;
  explicit FastDivide(uint32_t divisor) {
    while ((uint64_t{1} << shift) < divisor) ++shift;
    multiplier =
        static_cast<uint32_t>((((uint64_t{1} << shift) - divisor) << 32) / divisor + 1);
  }
  uint32_t multiplier = 1;
  uint32_t shift = 0;
};

// One packed matrix (layout.h).
struct MatrixPointers {
  const uint8_t* codes;
  const uint8_t* scales;
  const float* factors;  // or null: 1
  const float* bias;     // or null: 0
};

struct GemmParams {
  MatrixPointers first;   // the matrix, or the gate of a pair
  MatrixPointers second;  // the up projection of a pair
  int32_t pair;           // 1: the result is silu(first) * second
  int32_t rows;           // N
  int32_t tiles;          // of 16 rows
  int32_t steps;          // of 64 columns
  int32_t groups;         // that a tile has scales for
  int32_t scale_type;     // DType
  int32_t scale_shift;    // log2 of a scale's bytes
  int32_t row_factors;    // 1: a factor a row; 0: one for the matrix
  FastDivide units_per_group;

  const uint8_t* left;    // rows of codes or BF16, zeros up to a multiple of 64 columns
  const float* left_scales;  // or null
  int64_t left_stride;    // bytes
  int32_t tokens;         // M
  int32_t token_blocks;   // of the tiled kernel

  // Steps over blocks: each split has split_steps, the first split_rest of them one more. With
  // more than one split, sums go to partial.
  int32_t splits;
  int32_t split_steps, split_rest;
  float* partial;         // [splits][1 or 2 matrices][M][N]

  float sum_scale;        // what the kernel's sums are multiplied by, a power of two
  int32_t result_bf16;
  void* result;
  int64_t result_stride;  // elements
  const float* residual;  // or null
  int64_t residual_stride;
};

struct DequantizeParams {
  MatrixPointers matrix;
  uint32_t cols, group_size;  // neither above 2^31
  int32_t steps, groups, scale_type, scale_shift, row_factors;
  uint32_t first;
  const int32_t* ids;  // or null: first, first + 1, ...
  float* output;
  int64_t output_stride;
};

}  // namespace nibble::cuda::gemm_i4f8
