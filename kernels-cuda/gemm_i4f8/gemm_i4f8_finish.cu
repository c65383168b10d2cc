// SPDX-License-Identifier: Apache-2.0
//
// Beside the products: adding the sums of split steps, and rows of weights as F32.
//
// Weights: q * scale is exact in F32 for every scale type but F32 (4 + 11 bits at most), which
// has no factor, so that each weight is rounded once. The sums of the splits are added in their
// order, each addition rounded.
#include "kernels-cuda/gemm_i4f8/finish.cuh"
#include "kernels-cuda/gemm_i4f8/layout.h"
#include "kernels-cuda/gemm_i4f8/operands.cuh"

using namespace nibble::cuda::gemm_i4f8;

// Blocks of 256 threads, one an output row; row_blocks of them for each token.
extern "C" __global__ void __launch_bounds__(256)
    gemm_i4f8_merge(const GemmParams p, const uint32_t row_blocks) {
  const int token = static_cast<int>(blockIdx.x / row_blocks);
  const int n = static_cast<int>(blockIdx.x % row_blocks * 256 + threadIdx.x);
  if (n >= p.rows) return;
  float first = 0, second = 0;
  int s = 0;  // there are two splits at least
#pragma unroll 1
  do {
    first += *Partial(p, s, 0, token, n);
    if (p.pair != 0) second += *Partial(p, s, 1, token, n);
  } while (++s < p.splits);
  Store(p, token, n, Result(p, token, n, TokenScale(p, token), first, second));
}

// Block x: one row of the output; its 128 threads walk over words of eight columns.
extern "C" __global__ void __launch_bounds__(128)
    gemm_i4f8_dequantize(const DequantizeParams p) {
  const uint32_t row = p.ids != nullptr ? p.ids[blockIdx.x] : p.first + blockIdx.x;
  const float factor =
      p.matrix.factors != nullptr ? p.matrix.factors[p.row_factors != 0 ? row : 0] : 1.0f;
  float* output = p.output + blockIdx.x * p.output_stride;
  for (uint32_t k = 8 * threadIdx.x; k < p.cols; k += 8 * 128) {
    const uint32_t word = *reinterpret_cast<const uint32_t*>(
        p.matrix.codes + WordOffset(p.steps, row, k));
    // Groups are multiples of 16 columns: one scale for all eight.
    const int64_t at =
        (int64_t{row / kTileRows} * p.groups + k / p.group_size) * kTileRows;
    const float2 pair = LoadScalePair(
        p.scale_type, p.matrix.scales + ((at + row % kTileRows / 2 * 2) << p.scale_shift));
    const float scale = row % 2 == 0 ? pair.x : pair.y;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i == 0 || k + i < p.cols) {
        output[k + i] = nibble::cuda::DecodeI4(word >> (4 * i)) * scale * factor;
      }
    }
  }
}
