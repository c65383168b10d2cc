// SPDX-License-Identifier: Apache-2.0
//
// The parameters of the kernels of elementwise.cu and sampling.cu, the same for host and device.
#pragma once

#include <cstdint>

namespace nibble::cuda::elementwise {

// Threads of a block that works on one row. The order of a row's sum follows from this, so it
// depends on cols alone: two loads of four columns a thread where the row is long enough.
inline constexpr int kMaxRowThreads = 1024;
constexpr int RowThreads(int64_t cols) {
  const int64_t threads = (cols + 255) / 256 * 32;
  return static_cast<int>(threads < 64 ? 64 : threads > kMaxRowThreads ? kMaxRowThreads : threads);
}

inline constexpr int kPairThreads = 256;
inline constexpr int kAngleThreads = 64;
inline constexpr int kTokenThreads = 1024;

// *rows_to_*: one block a row.
struct RowParams {
  const float* x;            // [rows][cols]
  const float* up;           // gated_*: [rows][cols]; x is the gate
  const float* norm_weight;  // normed_*: [cols]
  float norm_epsilon;
  int32_t whole;  // not 0: cols is a multiple of 4, of which all operands' may be moved at once
  int64_t x_stride, up_stride, y_stride;  // elements
  int64_t cols;
  int64_t padded_cols;  // of y: zeros from cols on; cols for no padding (F32: not looked at)
  void* y;              // not x's or up's memory unless F32
  float* scales;        // [rows]; E4M3 and I8
};

// swiglu_f32, add_f32; y may be a or b.
struct PairParams {
  const float* a;
  const float* b;
  float* y;
  int64_t a_stride, b_stride, y_stride;  // elements
  int64_t rows, cols;
  int32_t whole;  // as above
};

// sample_select: what one row's selection works with.
struct SelectParams {
  const float* logits;
  int64_t stride;
  int64_t cols;
  const uint64_t* weights;  // [rows][cols]
  uint64_t* candidates;     // [rows][cols], room
  const double* uniforms;   // [rows]
  int32_t* ids;             // [rows]: the best token in, the drawn one out
  int64_t top_k;            // 0 for all
  double top_p;             // 1 for all
  uint64_t least_weight;    // 0 for all
};

}  // namespace nibble::cuda::elementwise
