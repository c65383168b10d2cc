// SPDX-License-Identifier: Apache-2.0
//
// From finished sums to results: factor, token scale, bias, residual or SwiGLU, output type.
// Each step rounds once in F32, in this order; the scale of the sums is a power of two.
#pragma once

#include "kernels-cuda/common/encode.cuh"
#include "kernels-cuda/gemm_i4f8/params.h"

namespace nibble::cuda::gemm_i4f8 {

// The product of output row n for one token, bias included.
__device__ __forceinline__ float Product(const GemmParams& p, const MatrixPointers& m, float sum,
                                         int n, float token_scale) {
  float value = sum * p.sum_scale;
  if (m.factors != nullptr) value *= m.factors[p.row_factors != 0 ? n : 0];
  value *= token_scale;
  return m.bias != nullptr ? value + m.bias[n] : value;
}

// x * sigmoid(x): Hendrycks and Gimpel, arXiv 1606.08415 (as silu: Elfwing, arXiv 1702.03118).
__device__ __forceinline__ float Silu(float x) { return x / (1 + expf(-x)); }

__device__ __forceinline__ float TokenScale(const GemmParams& p, int token) {
  return p.left_scales != nullptr ? p.left_scales[token] : 1.0f;
}

// The value of element (token, n) from its sums: of the matrix, or of gate and up.
__device__ __forceinline__ float Result(const GemmParams& p, int token, int n, float token_scale,
                                        float first, float second) {
  const float value = Product(p, p.first, first, n, token_scale);
  if (p.pair != 0) return Silu(value) * Product(p, p.second, second, n, token_scale);
  return p.residual != nullptr ? value + p.residual[token * p.residual_stride + n] : value;
}

__device__ __forceinline__ void Store(const GemmParams& p, int token, int n, float value) {
  const int64_t at = token * p.result_stride + n;
  if (p.result_bf16 != 0) {
    static_cast<uint16_t*>(p.result)[at] = EncodeBF16(value);
  } else {
    static_cast<float*>(p.result)[at] = value;
  }
}

// The first step of a split; that of the next is its end.
__device__ __forceinline__ int SplitBegin(const GemmParams& p, int split) {
  return split * p.split_steps + min(split, p.split_rest);
}

// Where split `split` of the steps leaves its sum of matrix 0 or 1.
__device__ __forceinline__ float* Partial(const GemmParams& p, int split, int matrix, int token,
                                          int n) {
  const int64_t slab = static_cast<int64_t>(split) * (1 + p.pair) + matrix;
  return p.partial + (slab * p.tokens + token) * p.rows + n;
}

}  // namespace nibble::cuda::gemm_i4f8
