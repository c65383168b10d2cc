// SPDX-License-Identifier: Apache-2.0
//
// From F32 to codes: to nearest, ties to even, saturating; bit for bit what
// kernels-cpu/numerics/formats.h encodes, for every input but NaN: it stays NaN, but may lose its
// sign and its other bits.
#pragma once

#include "kernels-cuda/common/decode.cuh"

namespace nibble::cuda {

// ---------------------------------------------------------------------------------------- 16 bits

// Finite values come within BF16's largest; infinity and NaN stay.
__device__ __forceinline__ float SaturateToBF16(float value) {
  constexpr float kLargest = 0x1.FEp127f;
  return fabsf(value) < INFINITY ? fmaxf(fminf(value, kLargest), -kLargest) : value;
}

__device__ __forceinline__ uint32_t EncodeBF16x2(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;"
      : "=r"(pair) : "f"(SaturateToBF16(high)), "f"(SaturateToBF16(low)));
  return pair;
}

__device__ __forceinline__ uint16_t EncodeBF16(float value) {
  return static_cast<uint16_t>(EncodeBF16x2(value, 0.0f));
}

// In one instruction, for values known to be below BF16's largest (3.39e38): above it, this one
// gives infinity.
__device__ __forceinline__ uint32_t RoundToBF16x2(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// In one instruction, for values known to be at most 65504 in magnitude: above 65520 it gives
// infinity.
__device__ __forceinline__ uint32_t RoundToF16x2(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// ------------------------------------------------------------------------------------------- E4M3

// By integer arithmetic, on any device: see EncodeE4M3Lanes in kernels-cpu/elementwise/rows.cc.
__device__ __forceinline__ uint32_t EncodeE4M3Software(float value) {
  const uint32_t bits = __float_as_uint(value);
  const uint32_t any = bits & 0x7FFFFFFFu;
  const uint32_t m = min(any, 0x43E00000u);  // 448: saturates
  // Normal codes keep 3 of 23 mantissa bits; half a step minus one plus the lowest kept bit
  // rounds to nearest even, and a carry moves into the exponent, as it should.
  const uint32_t normal = ((m + 0x7FFFFu + (m >> 20 & 1u)) >> 20) - ((127u - 7u) << 3);
  // Subnormal codes are multiples of 2^-9, the last bit of a float near 2^14: the sum rounds.
  const uint32_t small =
      __float_as_uint(__fadd_rn(__uint_as_float(m), 16384.0f)) - 0x46800000u;
  uint32_t code = m >= (127u - 6u) << 23 ? normal : small;
  if (any > 0x7F800000u) code = 0x7F;
  return code | (bits >> 24 & 0x80u);
}

// Two codes in the low 16 bits, low in the low byte.
__device__ __forceinline__ uint32_t EncodeE4M3x2(float low, float high) {
#if NIBBLE_FP8_CVT
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return EncodeE4M3Software(low) | EncodeE4M3Software(high) << 8;
#endif
}

__device__ __forceinline__ uint32_t EncodeE4M3(float value) {
#if NIBBLE_FP8_CVT
  return EncodeE4M3x2(value, 0.0f) & 0xFFu;
#else
  return EncodeE4M3Software(value);
#endif
}

// Element i to byte i.
__device__ __forceinline__ uint32_t EncodeE4M3x4(float v0, float v1, float v2, float v3) {
  return EncodeE4M3x2(v0, v1) | EncodeE4M3x2(v2, v3) << 16;
}

// A group's scale: never 0 for a positive ideal scale (the quantizers' rule).
__device__ __forceinline__ uint32_t EncodeE4M3Scale(float ideal) {
  const uint32_t code = EncodeE4M3(ideal);
  return code == 0 && ideal > 0 ? 1u : code;
}

// --------------------------------------------------------------------------------------- integers
//
// cvt.rni clamps to the 32-bit range and turns NaN into 0, so that clamping afterwards is exact.

__device__ __forceinline__ int32_t EncodeI8(float value) {
  return max(-128, min(127, __float2int_rn(value)));
}

// -8..7, as a signed number.
__device__ __forceinline__ int32_t EncodeI4(float value) {
  return max(-8, min(7, __float2int_rn(value)));
}

// Element i to byte i.
__device__ __forceinline__ uint32_t EncodeI8x4(float v0, float v1, float v2, float v3) {
  const uint32_t low = Permute(EncodeI8(v0), EncodeI8(v1), 0x0040u);
  const uint32_t high = Permute(EncodeI8(v2), EncodeI8(v3), 0x0040u);
  return Permute(low, high, 0x5410u);
}

// Element i of eight to bits 4i..4i+3.
__device__ __forceinline__ uint32_t EncodeI4x8(const float (&v)[8]) {
  uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) codes |= (static_cast<uint32_t>(EncodeI4(v[i])) & 15u) << (4 * i);
  return codes;
}

}  // namespace nibble::cuda
