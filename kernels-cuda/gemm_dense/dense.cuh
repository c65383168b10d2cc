// SPDX-License-Identifier: Apache-2.0
//
// Codes of 8 and 16 bits (strip_layout.h) to fragments, for each type of activations:
//
//   weights     with BF16           with E4M3                            with I8
//   I8          BF16                F16                                  I8
//   E4M3, E5M2  BF16                FP8 (sm_89, sm_120), else F16
//   BF16        BF16                BF16
//   F16         BF16, two parts     F16
//
// Each is exact. I8 has 8 significant bits at most, as BF16 has; E4M3 has 4 and exponents from
// -9 to 8, inside F16 and BF16; E5M2 is the upper half of an F16. F16 has 11 significant bits,
// which is why it meets BF16 activations as the sum of two BF16: w = high + low, high = w rounded
// to BF16, low = w - high, which is exact and has at most 3 bits. BF16 and E4M3 share BF16 since
// F16 lacks its exponents; I8 and E4M3 share F16, where both conversions are shorter than to BF16.
#pragma once

#include "kernels-cuda/common/encode.cuh"
#include "kernels-cuda/common/strip_gemm.cuh"

namespace nibble::cuda::gemm_dense {

// Two codes of 16 bits at a time: what a register of F16 weights is in two parts of BF16.
__device__ __forceinline__ void SplitF16x2(uint32_t pair, uint32_t& high, uint32_t& low) {
  const float v0 = DecodeF16(static_cast<uint16_t>(pair));
  const float v1 = DecodeF16(static_cast<uint16_t>(pair >> 16));
  high = RoundToBF16x2(v0, v1);
  low = RoundToBF16x2(v0 - DecodeBF16Low(high), v1 - DecodeBF16High(high));
}

#if NIBBLE_FP8_MMA
// c += a * b of E5M2 and E4M3, as MmaE4M3.
__device__ __forceinline__ void MmaE5M2E4M3(float (&c)[4], const uint32_t (&a)[4],
                                            const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.f32.e5m2.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// Products in 16 bits: kF16 or BF16.
template <DType kType, DType kLeft, bool kF16>
struct Through16 {
  static constexpr DType kCode = kType;
  static constexpr int kLeftBytes = kLeft == DType::kBF16 ? 2 : 1;
  static constexpr int kParts = kType == DType::kF16 && !kF16 ? 2 : 1;
  static constexpr StripProduct kProduct = StripProduct::k16Bits;
  static constexpr bool kDirect = true;
  static constexpr float kUnit = 1;
  using Sum = float;

  static __device__ __forceinline__ void Decode(uint32_t codes, uint32_t (&pairs)[2]) {
    if constexpr (kType == DType::kI8) {
      if constexpr (kF16) {
        DecodeI8x4ToF16(codes, pairs);
      } else {
        DecodeI8x4ToBF16(codes, pairs);
      }
    } else if constexpr (kType == DType::kE4M3) {
      if constexpr (kF16) {
        DecodeE4M3x4ToF16(codes, pairs);
      } else {
        DecodeE4M3x4ToBF16(codes, pairs);
      }
    } else if constexpr (kF16) {
      DecodeE5M2x4ToF16(codes, pairs);
    } else {
      DecodeE5M2x4ToBF16(codes, pairs);
    }
  }

  template <class Words>
  static __device__ __forceinline__ void Weights(const Words& words, int slice,
                                                 uint32_t (&a)[2][kParts][4]) {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      if constexpr (CodeBytes(kType) == 2) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t pair = words[2 * slice + t][i];
          if constexpr (kParts == 2) {
            SplitF16x2(pair, a[t][0][i], a[t][1][i]);
          } else {
            a[t][0][i] = pair;
          }
        }
      } else {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          uint32_t pairs[2];
          Decode(words[slice][2 * t + h], pairs);
          a[t][0][h] = pairs[0];
          a[t][0][2 + h] = pairs[1];
        }
      }
    }
  }
  static __device__ __forceinline__ void Left(uint32_t codes, uint32_t (&b)[2]) {
    if constexpr (kF16) {
      DecodeE4M3x4ToF16(codes, b);
    } else {
      DecodeE4M3x4ToBF16(codes, b);
    }
  }
  static __device__ __forceinline__ void Multiply(float (&c)[4], const uint32_t (&a)[4],
                                                  const uint32_t (&b)[2]) {
    if constexpr (kF16) {
      MmaF16(c, a, b);
    } else {
      MmaBF16(c, a, b);
    }
  }
};

// Products of bytes as they are: I8 with I8, FP8 with E4M3.
template <DType kType, class SumType>
struct Bytes {
  static constexpr DType kCode = kType;
  static constexpr int kLeftBytes = 1, kParts = 1;
  static constexpr StripProduct kProduct =
      kType == DType::kI8 ? StripProduct::kI8 : StripProduct::kFP8;
  static constexpr bool kDirect = false;
  static constexpr float kUnit = 1;
  using Sum = SumType;

  template <class Words>
  static __device__ __forceinline__ void Weights(const Words& words, int slice,
                                                 uint32_t (&a)[2][1][2]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i / 2][0][i % 2] = words[slice][i];
  }
  static __device__ __forceinline__ void Multiply(SumType (&c)[4], const uint32_t (&a)[4],
                                                  const uint32_t (&b)[2]) {
    if constexpr (kType == DType::kI8) MmaI8(c, a, b);
#if NIBBLE_FP8_MMA
    if constexpr (kType == DType::kE4M3) MmaE4M3(c, a, b);
    if constexpr (kType == DType::kE5M2) MmaE5M2E4M3(c, a, b);
#endif
  }
};

}  // namespace nibble::cuda::gemm_dense
