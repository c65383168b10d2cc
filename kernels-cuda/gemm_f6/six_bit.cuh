// SPDX-License-Identifier: Apache-2.0
//
// Six-bit codes from the planes of strip_layout.h to fragments, four at a time in registers.
//
// A quad is four columns of one row; register `low` holds the nibbles of two quads, `high` the
// other two bits (sign and second) of four. One rotation of `high` puts the bits of a pair of
// codes where a pair of BF16 has them, one shift of `low` the nibbles next to them:
//
//            E3M2 s e2 e1 e0 m1 m0                     E2M3 s e1 e0 m2 m1 m0
//   BF16     s.....e eeemm.....    * 2^(127 - 3)       s......e emmm....     * 2^(127 - 1)
//            high: 15, 9; nibble: 8..5                 high: 15, 8; nibble: 7..4
//   E4M3     s.eeemm.  = value * 2^(3 - 7)             s..eemmm  = value * 2^(1 - 7)
//   F16      s..eeemm........ = value * 2^(3 - 15)     s...eemmm....... = value * 2^(1 - 15)
//   native   ..seeemm                                  ..seemmm
//
// Moved there, exponent and mantissa are the value times a power of two, subnormal codes (exponent
// 0) included, since they are subnormal in the wider type as well. For BF16 that power would take
// products out of F32's range, so one exact fma puts it right; the others leave it to kUnit.
// A pair of codes costs two shifts, two logic operations and an fma; four in E4M3, three shifts,
// three logic operations and a prmt.
#pragma once

#include "kernels-cuda/common/strip_gemm.cuh"

namespace nibble::cuda::gemm_f6 {

// x * 2^n in the integers, either way.
__device__ __forceinline__ uint32_t Shift(uint32_t x, int n) { return n >= 0 ? x << n : x >> -n; }
__device__ __forceinline__ uint32_t Rotate(uint32_t x, int n) { return __funnelshift_l(x, x, n); }

// The registers of quad i in a slice.
template <class Words>
__device__ __forceinline__ uint32_t LowNibbles(const Words& words, int slice, int quad) {
  return words[slice / 2][2 * (slice % 2) + quad / 2];
}
template <class Words>
__device__ __forceinline__ uint32_t HighBits(const Words& words, int slice) {
  return words[2][slice];
}

// Columns 2 pair and 2 pair + 1 of a quad to BF16.
template <DType kType>
__device__ __forceinline__ uint32_t PairToBF16(uint32_t low, uint32_t high, int quad, int pair) {
  constexpr bool k3 = kType == DType::kE3M2;
  constexpr uint32_t kLow = k3 ? 0x01E001E0u : 0x00F000F0u;
  constexpr uint32_t kHigh = k3 ? 0x82008200u : 0x81008100u;
  constexpr uint32_t kPower = k3 ? 0x7D807D80u : 0x7E807E80u;  // 2^124, 2^126
  constexpr uint32_t kMinusZero = 0x80008000u;
  const uint32_t bits = Rotate(high, HighRotation(kType, quad) + (pair == 0 ? 8 : 0)) & kHigh;
  const uint32_t moved = Shift(low, (k3 ? 5 : 4) - LowBit(quad, 2 * pair));
  return FmaBF16x2(Lop3<kAndOr>(moved, kLow, bits), kPower, kMinusZero);
}

// A quad to four bytes, columns in the order 0 2 1 3: the sign at bit kSign of its byte, the
// second bit at kSecond, the nibble from kNibble on.
template <DType kType, int kSign, int kSecond, int kNibble>
__device__ __forceinline__ uint32_t QuadToBytes(uint32_t low, uint32_t high, int quad) {
  constexpr uint32_t kEach = 0x01010101u;
  // Rotated by the quad's number, the signs are in the top bits of their bytes.
  const int rotation = HighRotation(kType, quad);
  const uint32_t sign = Rotate(high, rotation + kSign - 7 + 32) & (kEach << kSign);
  const uint32_t second =
      Rotate(high, rotation + kSecond - (7 - SecondBitDistance(kType)) + 32);
  const uint32_t both = Lop3<kAndOr>(second, kEach << kSecond, sign);
  return Lop3<kAndOr>(Shift(low, kNibble - 4 * (quad % 2)), (kEach * 15u) << kNibble, both);
}

// BF16 activations (A16).
template <DType kType>
struct SixBitBF16 {
  static constexpr DType kCode = kType;
  static constexpr int kLeftBytes = 2, kParts = 1;
  static constexpr StripProduct kProduct = StripProduct::k16Bits;
  static constexpr bool kDirect = true;
  static constexpr float kUnit = 1;
  using Sum = float;

  template <class Words>
  static __device__ __forceinline__ void Weights(const Words& words, int slice,
                                                 uint32_t (&a)[2][1][4]) {
    const uint32_t high = HighBits(words, slice);
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
      const uint32_t low = LowNibbles(words, slice, quad);
      a[quad / 2][0][quad % 2] = PairToBF16<kType>(low, high, quad, 0);
      a[quad / 2][0][2 + quad % 2] = PairToBF16<kType>(low, high, quad, 1);
    }
  }
  static __device__ __forceinline__ void Multiply(float (&c)[4], const uint32_t (&a)[4],
                                                  const uint32_t (&b)[2]) {
    MmaBF16(c, a, b);
  }
};

// 8-bit activations through F16, which holds every E4M3 and every I8.
template <DType kType, DType kLeft>
struct SixBitF16 {
  static constexpr DType kCode = kType;
  static constexpr int kLeftBytes = 1, kParts = 1;
  static constexpr StripProduct kProduct = StripProduct::k16Bits;
  static constexpr bool kDirect = true;
  static constexpr float kUnit = kType == DType::kE3M2 ? 0x1p12f : 0x1p14f;
  using Sum = float;

  template <class Words>
  static __device__ __forceinline__ void Weights(const Words& words, int slice,
                                                 uint32_t (&a)[2][1][4]) {
    const uint32_t high = HighBits(words, slice);
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
      const uint32_t low = LowNibbles(words, slice, quad);
      uint32_t pair[2];
      if constexpr (kType == DType::kE3M2) {  // the upper byte is all of it
        const uint32_t bytes = QuadToBytes<kType, 7, 4, 0>(low, high, quad);
        pair[0] = Permute(bytes, 0, 0x2404u);
        pair[1] = Permute(bytes, 0, 0x3414u);
      } else {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int rotation = HighRotation(kType, quad) + (i == 0 ? 8 : 0);
          const uint32_t sign = Rotate(high, rotation) & 0x80008000u;
          const uint32_t both = Lop3<kAndOr>(Rotate(high, rotation + 3), 0x08000800u, sign);
          pair[i] = Lop3<kAndOr>(Shift(low, 7 - LowBit(quad, 2 * i)), 0x07800780u, both);
        }
      }
      a[quad / 2][0][quad % 2] = pair[0];
      a[quad / 2][0][2 + quad % 2] = pair[1];
    }
  }
  static __device__ __forceinline__ void Left(uint32_t codes, uint32_t (&b)[2]) {
    if constexpr (kLeft == DType::kE4M3) {
      DecodeE4M3x4ToF16(codes, b);
    } else {
      DecodeI8x4ToF16(codes, b);
    }
  }
  static __device__ __forceinline__ void Multiply(float (&c)[4], const uint32_t (&a)[4],
                                                  const uint32_t (&b)[2]) {
    MmaF16(c, a, b);
  }
};

#if NIBBLE_FP8_MMA
// E4M3 activations on the FP8 tensor cores: on sm_120a the six bits as they are, else as E4M3.
template <DType kType>
struct SixBitE4M3 {
  static constexpr DType kCode = kType;
  static constexpr int kLeftBytes = 1, kParts = 1;
  static constexpr StripProduct kProduct = StripProduct::kFP8;
  static constexpr bool kDirect = false;
  static constexpr bool k3 = kType == DType::kE3M2;
  static constexpr float kUnit = NIBBLE_F8F6F4_MMA ? 1.0f : k3 ? 16.0f : 64.0f;
  using Sum = float;

  template <class Words>
  static __device__ __forceinline__ void Weights(const Words& words, int slice,
                                                 uint32_t (&a)[2][1][2]) {
    constexpr int kSign = NIBBLE_F8F6F4_MMA ? 5 : 7;
    constexpr int kSecond = NIBBLE_F8F6F4_MMA ? 4 : k3 ? 5 : 4;
    constexpr int kNibble = !NIBBLE_F8F6F4_MMA && k3 ? 1 : 0;
    const uint32_t high = HighBits(words, slice);
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
      const uint32_t bytes = QuadToBytes<kType, kSign, kSecond, kNibble>(
          LowNibbles(words, slice, quad), high, quad);
      a[quad / 2][0][quad % 2] = Permute(bytes, 0, 0x3120u);
    }
  }
  static __device__ __forceinline__ void Multiply(float (&c)[4], const uint32_t (&a)[4],
                                                  const uint32_t (&b)[2]) {
#if NIBBLE_F8F6F4_MMA
    if constexpr (k3) {
      MmaE3M2E4M3(c, a, b);
    } else {
      MmaE2M3E4M3(c, a, b);
    }
#else
    MmaE4M3(c, a, b);
#endif
  }
};
#endif

}  // namespace nibble::cuda::gemm_f6
