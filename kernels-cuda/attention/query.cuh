// SPDX-License-Identifier: Apache-2.0
//
// Queries as the A operand of Q K^T: 16 rows of a tile, in registers from beginning to end.
//
// A dot product may take its elements in any order, as long as both operands do; which order a
// kernel takes is what its key fragments give for free, so each names its own.
//
// Against KV4 and KV8 a row becomes E4M3 codes and one F32 scale (amax / 448), bit for bit those
// of QuantizeRowE4M3 in kernels-cpu/elementwise/; every E4M3 code is exact in F16, so the 16-bit
// path multiplies the very same numbers. Against KV16 each element is rounded once to BF16,
// |error| <= 2^-9 |q|, saturating.
#pragma once

#include "kernels-cuda/attention/shapes.h"
#include "kernels-cuda/common/encode.cuh"

namespace nibble::cuda {

inline constexpr float kInfinity = __builtin_huge_valf();

// What an element order is called with: step of the mma, half (registers a[0], a[1] or a[2],
// a[3]), member = lane % 4, i-th element of the register.
//
// Bytes of E4M3, 32 a step, keys from words of eight I4 codes: member m's word 16 bytes into
// the row has elements 8 m .. 8 m + 7, even ones first (attention.h).
struct OrderI4Bytes {
  static constexpr int kElements = 4;
  __device__ static int Element(int step, int half, int member, int i) {
    return 32 * step + 8 * member + 2 * i + half;
  }
};
// F16, 16 a step, keys from the same words: two steps a word.
struct OrderI4Halves {
  static constexpr int kElements = 2;
  __device__ static int Element(int step, int half, int member, int i) {
    return 32 * (step / 2) + 8 * member + 4 * (step % 2) + 2 * half + i;
  }
};
// F16, keys from words of four I8 codes.
struct OrderI8 {
  static constexpr int kElements = 2;
  __device__ static int Element(int step, int half, int member, int i) {
    return 16 * step + 4 * member + 2 * half + i;
  }
};
// 16 bits, keys by ldmatrix from rows in natural order.
struct OrderNatural {
  static constexpr int kElements = 2;
  __device__ static int Element(int step, int half, int member, int i) {
    return 16 * step + 8 * half + 2 * member + i;
  }
};
// Bytes of E4M3, keys by ldmatrix from rows in which each eight elements stand even ones first.
struct OrderE4M3Rows {
  static constexpr int kElements = 4;
  __device__ static int Element(int step, int half, int member, int i) {
    return 32 * step + 16 * half + 8 * (member / 2) + 2 * i + member % 2;
  }
};

// One row's quantizer.
struct RowScale {
  float scale;   // what scores are multiplied with: NaN for a row that is not finite
  float divide;  // 0 where all codes are 0
};

// All four lanes of a group take part; row may be null (zeros). dim <= kDim.
template <int kDim>
__device__ __forceinline__ RowScale QueryScale(const float* row, int dim, int member) {
  float largest = 0;
  if (row != nullptr) {
    // 16 loads under way at a time, and no copy of the loop for what is left.
    int first = member;
#pragma unroll 1
    do {
#pragma unroll
      for (int i = first; i < first + 64; i += 4) {
        if (i == first || i < dim) largest = LargerMagnitude(largest, row[i]);
      }
      first += 64;
    } while (kDim > 64 && first < dim);
  }
  const uint32_t bits = WarpMax<4>(__float_as_uint(largest));  // NaN is above infinity
  if (bits >= 0x7F800000u) return {__uint_as_float(0x7FC00000u), 0};
  if (bits == 0) return {0, 0};
  const float scale = fmaxf(__fdiv_rn(__uint_as_float(bits), 448.0f), 0x1p-126f);
  return {scale, scale};
}

// The A operand of one step.
struct Fragment {
  uint32_t word[4];
};

// Rows `group` and group + 8 of a tile (null: zeros), and what scores of them are scaled by.
template <class Order, int kDim, bool kQuantize>
struct QueryRows {
  static constexpr int kElements = Order::kElements;
  const float* row[2];
  float scale[2];   // 1 without quantization; NaN for a row that is not finite
  float divide[2];  // 0 where all codes are 0
  int dim, member;

  __device__ __forceinline__ QueryRows(const float* row0, const float* row1, int head_dim,
                                       int lane_member)
      : row{row0, row1}, scale{1, 1}, divide{1, 1}, dim(head_dim), member(lane_member) {
    if constexpr (kQuantize) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const RowScale quantizer = QueryScale<kDim>(row[r], dim, member);
        scale[r] = quantizer.scale;
        divide[r] = quantizer.divide;
      }
    }
  }

  __device__ __forceinline__ Fragment Step(int step) const {
    Fragment fragment;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const bool present = row[r] != nullptr && divide[r] != 0;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float x[kElements];
#pragma unroll
        for (int i = 0; i < kElements; ++i) {
          const int element = Order::Element(step, half, member, i);
          x[i] = present && element < dim ? row[r][element] : 0.0f;
          if constexpr (kQuantize) {
            if (present) x[i] = __fdiv_rn(x[i], divide[r]);
          }
        }
        uint32_t& word = fragment.word[2 * half + r];
        if constexpr (kElements == 4) {
          word = EncodeE4M3x4(x[0], x[1], x[2], x[3]);
        } else if constexpr (kQuantize) {
          uint32_t f16[2];
          DecodeE4M3x4ToF16(EncodeE4M3x2(x[0], x[1]), f16);
          word = f16[0];
        } else {
          word = EncodeBF16x2(x[0], x[1]);
        }
      }
    }
    return fragment;
  }
};

// Where a warp keeps its queries: in registers, or, where those are needed for the results of
// large heads, in shared memory, [step][lane] 16 bytes each, once for all warps of the tile.
template <int kSteps>
struct QueryInRegisters {
  static constexpr int kUnroll = kSteps;  // of a loop over steps: registers have no index
  Fragment fragments[kSteps];
  __device__ __forceinline__ Fragment Get(int step) const { return fragments[step]; }
};
struct QueryInShared {
  static constexpr int kUnroll = 4;
  const uint4* words;  // of this lane
  __device__ __forceinline__ Fragment Get(int step) const {
    const uint4 w = words[step * kWarpLanes];
    return {w.x, w.y, w.z, w.w};
  }
};

}  // namespace nibble::cuda
