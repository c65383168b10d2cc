// SPDX-License-Identifier: Apache-2.0
//
// Online softmax (FlashAttention, arXiv 2205.14135) on the accumulators of mma: scores of 16 rows
// and some tiles of 8 keys.
//
//   lane = 4 group + member      s[tile][0], [1]   row group,     keys 8 tile + 2 member, + 1
//                                s[tile][2], [3]   row group + 8, the same keys
//
// In powers of two: t = score * log2(e), m = max t so far, l = sum 2^(t - m),
// acc = sum 2^(t - m) v. No key seen: m = -infinity, l = 0, acc = 0.
//
// Precision: a weight 2^(t - m) is at most 1, within 2^-22 of its value by ex2.approx, besides the
// rounding of t and t - m; below 2^-126 it is 0. l is a sum in F32, acc is rescaled in F32. The
// weight that multiplies V is rounded to 16 bits (attention_tile.cuh); l adds up unrounded ones.
//
// A score of NaN or +infinity makes its own row NaN, as the formula does; a key that a row must
// not see gets the weight 0 by selection, whatever its score, its scales and its values are.
#pragma once

#include "kernels-cuda/attention/query.cuh"

namespace nibble::cuda {

struct RowState {
  float max[2];  // of rows group and group + 8; the same in all lanes of a group
  float sum[2];  // this lane's part

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      max[r] = -kInfinity;
      sum[r] = 0;
    }
  }
};

// What to subtract: a row that has seen nothing but -infinity has no maximum.
__device__ __forceinline__ float Shift(float max) { return max == -kInfinity ? 0.0f : max; }

// t to weights; brings state up to date (its sums rescaled) and says by what acc is to be
// multiplied. visible: of the tiles' keys, how many row r sees.
template <int kTiles>
__device__ __forceinline__ void Softmax(float (&t)[kTiles][4], const int (&visible)[2],
                                        int member, RowState& state, float (&rescale)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float largest = -kInfinity;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = t[j][2 * r + e];
        if (8 * j + 2 * member + e >= visible[r]) x = -kInfinity;
        largest = fmaxf(largest, x);
      }
    }
    largest = fmaxf(state.max[r], WarpMax<4>(largest));
    const float shift = Shift(largest);
    rescale[r] = Exp2Approximate(state.max[r] - shift);
    state.max[r] = largest;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = t[j][2 * r + e];
        x = Exp2Approximate(x - shift);
        sum += x;
      }
    }
    state.sum[r] = __fmaf_rn(state.sum[r], rescale[r], sum);
  }
}

// Multiplies rows of acc, where any lane of the warp has something to change.
template <int kTiles>
__device__ __forceinline__ void Rescale(float (&acc)[kTiles][4], const float (&factor)[2]) {
  // A NaN counts as a change.
  if (!__any_sync(kAllLanes, !(factor[0] == 1.0f) || !(factor[1] == 1.0f))) return;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int e = 0; e < 4; ++e) acc[i][e] *= factor[e / 2];
  }
}

// ---- weights in F16, for KV4 and KV8 ----
//
// A weight of 1 stands for 2^15, half of F16's largest number, so that weights keep 11 bits down
// to 2^-29 and some down to 2^-40 of the largest.
//
// KV8 multiplies each weight with its value's scale, any positive F32: times 2^15 / 2^e, where
// scales that the row has seen so far are below 2^e. e is a row's own, since what a row does not
// see must not cost it bits; where it grows, acc is multiplied with a power of two.

inline constexpr int kWeightExponent = 15;
// Of e + 127. Powers made from it are normal numbers; scales below 2^-100 lose bits that are below
// 2^-140 absolutely.
inline constexpr int kLowestExponent = 27;

__device__ __forceinline__ float ScaleDown(int exponent) {
  return __uint_as_float(static_cast<uint32_t>(254 + kWeightExponent - exponent) << 23);
}
__device__ __forceinline__ float ScaleUp(int exponent) {
  return __uint_as_float(static_cast<uint32_t>(exponent - kWeightExponent) << 23);
}

// weights *= scales (scales[0]: of the lane's first key); exponent, and rescale with it, brought up
// to date. Keys that a row does not see get 0, NaN scales count for no exponent.
template <int kTiles>
__device__ __forceinline__ void ScaleWeights(float (&weights)[kTiles][4],
                                             const float* scales,
                                             const int (&visible)[2], int member,
                                             int (&exponent)[2], float (&rescale)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float largest = 0;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        if (8 * j + 2 * member + e < visible[r]) largest = fmaxf(largest, scales[8 * j + e]);
      }
    }
    const int above = static_cast<int>(MagnitudeBits(WarpMax<4>(largest)) >> 23) + 1;
    const int before = exponent[r];
    exponent[r] = max(before, above);
    rescale[r] *= __uint_as_float(static_cast<uint32_t>(max(127 + before - exponent[r], 0)) << 23);
    const float down = ScaleDown(exponent[r]);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& w = weights[j][2 * r + e];
        w = 8 * j + 2 * member + e < visible[r] ? w * (scales[8 * j + e] * down) : 0.0f;
      }
    }
  }
}

// The same where a factor is all there is to it: 2^15, or NaN for a key whose scale is.
template <int kTiles>
__device__ __forceinline__ void FactorWeights(float (&weights)[kTiles][4],
                                              const float* factors,
                                              const int (&visible)[2], int member) {
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& w = weights[j][i];
      w = 8 * j + 2 * member + i % 2 < visible[i / 2] ? w * factors[8 * j + i % 2] : 0.0f;
    }
  }
}

// Weights of two tiles of 8 keys as the A operand of P V.
template <bool kBF16>
__device__ __forceinline__ void PackWeights(const float (&first)[4], const float (&second)[4],
                                            uint32_t (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* p = i < 2 ? &first[2 * i] : &second[2 * (i - 2)];
    a[i] = kBF16 ? RoundToBF16x2(p[0], p[1]) : RoundToF16x2(p[0], p[1]);
  }
}

}  // namespace nibble::cuda
