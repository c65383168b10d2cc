// SPDX-License-Identifier: Apache-2.0
//
// From the sums of a strip product to its result: scales, bias, residual or SwiGLU, output type.
// Every step rounds once in F32, in this order: row scale, token scale, bias, residual. Where K is
// split, the sums of the parts are added in their order first.
#pragma once

#include "kernels-cuda/common/encode.cuh"
#include "kernels-cuda/common/strip_arguments.h"

namespace nibble::cuda {

// What a kernel is made for, or takes from its arguments.
enum class Told { kNever, kAlways, kByArguments };

template <Told kPair>
__device__ __forceinline__ bool IsPair(const StripArguments& p) {
  return kPair == Told::kAlways || (kPair == Told::kByArguments && p.pair != 0);
}

// kTokenScales: whether the activations may have scales at all.
template <bool kTokenScales>
__device__ __forceinline__ float TokenScale(const StripArguments& p, int token) {
  return kTokenScales && p.left_scales != nullptr ? __ldg(p.left_scales + token) : 1.0f;
}

__device__ __forceinline__ int StripScaleBytes(int scale_type) {
  return static_cast<DType>(scale_type) == DType::kF32 ? 4 : 2;
}

// The four scales at from, in shared memory or, kGlobal, in memory that no kernel is writing. They
// are F32, BF16 or F16; the branch is the same for all threads.
template <bool kGlobal>
__device__ __forceinline__ float4 LoadStripScales(int scale_type, const uint8_t* from) {
  const DType type = static_cast<DType>(scale_type);
  if (type == DType::kF32) {
    const float4* four = reinterpret_cast<const float4*>(from);
    return kGlobal ? __ldg(four) : *four;
  }
  const uint2* four = reinterpret_cast<const uint2*>(from);
  const uint2 bits = kGlobal ? __ldg(four) : *four;
  if (type == DType::kBF16) {
    return {DecodeBF16Low(bits.x), DecodeBF16High(bits.x), DecodeBF16Low(bits.y),
            DecodeBF16High(bits.y)};
  }
  return {DecodeF16(static_cast<uint16_t>(bits.x)), DecodeF16(static_cast<uint16_t>(bits.x >> 16)),
          DecodeF16(static_cast<uint16_t>(bits.y)), DecodeF16(static_cast<uint16_t>(bits.y >> 16))};
}

// x * sigmoid(x): Elfwing, Uchibe and Doya, arXiv 1702.03118.
__device__ __forceinline__ float StripSilu(float x) { return x / (1.0f + expf(-x)); }

// The sums of four neighbouring output rows n .. n + 3 (n: a multiple of 4, below p.n) for one
// token, to products with matrix `which`, bias included.
template <Told kRowScales>
__device__ __forceinline__ void ScaleStripSums(const StripArguments& p, int which, int n,
                                               float token_scale, float (&v)[4]) {
  const StripMatrix& matrix = p.matrix[which];
  if (kRowScales == Told::kAlways || (kRowScales == Told::kByArguments && p.groups == 1)) {
    const float4 s = LoadStripScales<true>(
        p.scale_type, matrix.scales + static_cast<int64_t>(n) * StripScaleBytes(p.scale_type));
    v[0] *= s.x;
    v[1] *= s.y;
    v[2] *= s.z;
    v[3] *= s.w;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[i] *= token_scale;
    if (matrix.bias != nullptr && (i == 0 || n + i < p.n)) v[i] += __ldg(matrix.bias + n + i);
  }
}

// Writes them; up: the other half of a pair, which takes no residual. Only rows below p.n are
// touched. kRowScales: whether a row has one scale, which the sums are still without.
template <Told kPair, Told kRowScales, bool kTokenScales>
__device__ __forceinline__ void FinishStripSums(const StripArguments& p, int token, int n,
                                                float (&v)[4], float (&up)[4]) {
  const float token_scale = TokenScale<kTokenScales>(p, token);
  ScaleStripSums<kRowScales>(p, 0, n, token_scale, v);
  const bool whole = p.vectors != 0 && n + 4 <= p.n;
  if (IsPair<kPair>(p)) {
    ScaleStripSums<kRowScales>(p, 1, n, token_scale, up);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = StripSilu(v[i]) * up[i];
  } else if (p.residual != nullptr) {
    // Not through the read-only cache: it may be the memory of the output.
    const float* residual = p.residual + token * p.residual_stride + n;
    if (whole) {
      const float4 r = *reinterpret_cast<const float4*>(residual);
      v[0] += r.x;
      v[1] += r.y;
      v[2] += r.z;
      v[3] += r.w;
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (i == 0 || n + i < p.n) v[i] += residual[i];
      }
    }
  }
  const int64_t at = token * p.output_stride + n;
  if (p.output_bf16 != 0) {
    uint16_t* output = static_cast<uint16_t*>(p.output) + at;
    if (whole) {
      *reinterpret_cast<uint2*>(output) = {EncodeBF16x2(v[0], v[1]), EncodeBF16x2(v[2], v[3])};
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (i == 0 || n + i < p.n) output[i] = EncodeBF16(v[i]);
      }
    }
  } else {
    float* output = static_cast<float*>(p.output) + at;
    if (whole) {
      *reinterpret_cast<float4*>(output) = {v[0], v[1], v[2], v[3]};
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (i == 0 || n + i < p.n) output[i] = v[i];
      }
    }
  }
}

// Where part `split` of K leaves the sums of matrix `which`; 16-byte aligned for n % 4 == 0.
__device__ __forceinline__ float* StripPartial(const StripArguments& p, int split, int which,
                                               int token, int n) {
  const int64_t slab = static_cast<int64_t>(split) * (1 + p.pair) + which;
  return p.partial + (slab * p.m + token) * p.strips * kStripRows + n;
}

__device__ __forceinline__ void AddStripPartial(const StripArguments& p, int split, int which,
                                                int token, int n, float (&sum)[4]) {
  const float4 part = *reinterpret_cast<const float4*>(StripPartial(p, split, which, token, n));
  sum[0] += part.x;
  sum[1] += part.y;
  sum[2] += part.z;
  sum[3] += part.w;
}

// A thread's end of a product where K was split: four output rows of one token.
__device__ __forceinline__ void FinishStripSplits(const StripArguments& p, int token, int n) {
  if (n >= p.n) return;
  float v[4] = {}, up[4] = {};
  int split = 0;  // there are two at least
#pragma unroll 1
  do {
    AddStripPartial(p, split, 0, token, n, v);
    if (p.pair != 0) AddStripPartial(p, split, 1, token, n, up);
  } while (++split < p.splits);
  FinishStripSums<Told::kByArguments, Told::kByArguments, true>(p, token, n, v, up);
}

}  // namespace nibble::cuda
