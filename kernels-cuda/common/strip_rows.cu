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
  const int64_t index = blockIdx.x;
  const int64_t row = p.ids != nullptr ? __ldg(p.ids + index) : p.first + index;
  const DType code = static_cast<DType>(p.code_type);
  const int64_t strip = row / kStripRows;
  const int r = static_cast<int>(row % kStripRows), brick_cols = BrickCols(code);
  for (int64_t k = 4 * (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x); k < p.cols;
       k += 4 * static_cast<int64_t>(gridDim.y) * blockDim.x) {
    const uint8_t* brick =
        p.matrix.codes + (strip * p.bricks + k / brick_cols) * BrickBytes(code);
    float v[4];
    DecodeStripQuad(code, brick, r, static_cast<int>(k % brick_cols), v);
    // Groups are whole slices: a quad never lies in two.
    const int64_t at = (strip * p.groups + k / p.group_cols) * kStripRows + r;
    const float scale = p.groups == 0 ? 1.0f : StripScale(p.scale_type, p.matrix.scales, at);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (k + c < p.cols) p.output[index * p.output_stride + k + c] = v[c] * scale;
    }
  }
}

extern "C" __global__ void __launch_bounds__(256)
    strip_finish_splits(const __grid_constant__ StripArguments p) {
  FinishStripSplits(p, static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x);
}

}  // namespace nibble::cuda
