// SPDX-License-Identifier: Apache-2.0
//
// The parameters of the strip kernels (strip_gemm.cuh), as host and device both see them.
#pragma once

#include <cstdint>

#include "kernels-cuda/common/strip_layout.h"

namespace nibble::cuda {

// One packed matrix (strip_layout.h).
struct StripMatrix {
  const uint8_t* codes;
  const uint8_t* scales;  // null where the codes are the values
  const float* bias;      // null: 0
};

struct StripArguments {
  StripMatrix matrix[2];  // a pair: gate and up; else twice the same
  int32_t pair;           // 1: the result is silu(matrix 0) * matrix 1
  int32_t code_type, scale_type;  // DType
  int32_t brick_shift;    // log2 of a brick's slices of 16 columns
  int32_t groups;         // scales a row; of several, each is applied to its group's sum
  int32_t group_slices;   // a group's slices of 16 columns
  int32_t fold_slices;    // slices summed before a scale is applied: 1, 2 or a brick's; 0: all

  int32_t m, n;           // tokens, output rows
  int32_t strips, bricks;
  int32_t token_tiles;    // blocks along m
  int32_t splits;         // of the bricks over blocks; above 1, sums go to partial
  int32_t split_bricks;
  float* partial;         // [splits][1 + pair][m][32 strips]

  const uint8_t* left;    // rows of codes, BF16 or F32
  int64_t left_stride;    // bytes
  const float* left_scales;  // or null: 1

  void* output;
  int64_t output_stride;  // elements
  int32_t output_bf16;
  int32_t vectors;        // 1: output and residual may be touched four elements at a time
  const float* residual;  // or null
  int64_t residual_stride;
  int64_t cols, group_cols;  // K and a group's columns: read by the F32 kernels, whose left rows
                             // have no padding
};

struct StripDequantizeArguments {
  StripMatrix matrix;
  int32_t code_type, scale_type;
  int32_t brick_shift;  // as above
  int32_t bricks, groups;
  uint32_t cols, group_cols;  // neither above 2^31
  uint32_t first;
  const int32_t* ids;  // or null: first, first + 1, ...
  float* output;
  int64_t output_stride;
};

}  // namespace nibble::cuda
