// SPDX-License-Identifier: Apache-2.0
//
// What the strip layout (strip_layout.h) needs beside the products: adding up the parts where K
// was split, and single rows of weights as F32 (embedding, dequantization).
//
// Precision. A code is exact in F32, and so is a scale: their product rounds once.
#include "kernels-cuda/common/strip_finish.cuh"
#include "kernels-cuda/common/strip_quads.cuh"

namespace nibble::cuda {
// A block's threads take four columns each of one row.
extern "C" __global__ void __launch_bounds__(256)
    strip_dequantize_rows(const __grid_constant__ StripDequantizeArguments p) {
  const uint32_t row =
      p.ids != nullptr ? static_cast<uint32_t>(__ldg(p.ids + blockIdx.x)) : p.first + blockIdx.x;
  const DType code = static_cast<DType>(p.code_type);
  const int64_t strip = row / kStripRows;
  const uint32_t r = row % kStripRows;
  static_assert(kSliceCols == 16, "a shift by 4");
  const int shift = p.brick_shift + 4;  // to bricks
  float* output = p.output + blockIdx.x * p.output_stride;
  // A row has less than 2^31 columns, a grid strides over less than 2^31.
  for (uint32_t k = 4 * (blockIdx.y * blockDim.x + threadIdx.x); k < p.cols;
       k += 4 * gridDim.y * blockDim.x) {
    const uint8_t* brick =
        p.matrix.codes + (strip * p.bricks + (k >> shift)) * BrickBytes(code);
    float v[4];
    DecodeStripQuad(code, brick, r, k & ((1u << shift) - 1), v);
    // Groups are whole slices: a quad never lies in two.
    const int64_t at = (strip * p.groups + k / p.group_cols) * kStripRows + r;
    const float scale = p.groups == 0 ? 1.0f : StripScale(p.scale_type, p.matrix.scales, at);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (c == 0 || k + c < p.cols) output[k + c] = v[c] * scale;
    }
  }
}

// Blocks of 64 threads, each four output rows; row_blocks of them for each token.
extern "C" __global__ void __launch_bounds__(64)
    strip_finish_splits(const __grid_constant__ StripArguments p, const uint32_t row_blocks) {
  const int token = static_cast<int>(blockIdx.x / row_blocks);
  const int n = static_cast<int>((blockIdx.x % row_blocks * 64 + threadIdx.x) * 4);
  FinishStripSplits(p, token, n);
}

}  // namespace nibble::cuda
