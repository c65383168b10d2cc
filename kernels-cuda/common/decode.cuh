// SPDX-License-Identifier: Apache-2.0
//
// From codes to wider types, several at a time in registers; bit for bit what
// kernels-cpu/numerics/formats.h decodes, for every finite code (signed zeros included).
//
// The bit-shift decoders rest on one idea: a small float's exponent and mantissa, moved to the
// right place of a wider float, are that float's value times a power of two (2^(bias' - bias)),
// subnormals included. One exact multiplication puts it right:
//
//   E4M3          s eeee mmm                        E3M2         s eee mm
//   as BF16   s 0000eeee mmm0000   * 2^(127 - 7)    as BF16  s 00000eee mm00000   * 2^(127 - 3)
//
// It is an fma with -0.0, which keeps the sign of a zero (mul.bf16x2 needs sm_90). Both round
// nothing and take subnormal inputs. Codes for NaN and infinity come out as finite numbers, unless
// a function says otherwise: weights and scales with one are refused when they are packed, and
// quantized activations have none.
#pragma once

#include "kernels-cuda/common/ptx.cuh"

namespace nibble::cuda {

// ------------------------------------------------------------------------------------------ I4
//
// A word of eight codes, element i in bits 4i..4i+3.

// Elements 0..3 to e4m3[0], 4..7 to e4m3[1], element i in byte i % 4. Two table look-ups by prmt
// (codes 0..7 and -8..-1) and a third prmt that picks by the sign: 11 instructions for 8 values.
__device__ __forceinline__ void DecodeI4x8ToE4M3(uint32_t codes, uint32_t (&e4m3)[2]) {
  constexpr uint32_t kFrom0 = 0x44403800u, kFrom4 = 0x4E4C4A48u;    //  0  1  2  3,  4  5  6  7
  constexpr uint32_t kFromM8 = 0xCACCCED0u, kFromM4 = 0xB8C0C4C8u;  // -8 -7 -6 -5, -4 -3 -2 -1
  const uint32_t index = codes & 0x77777777u;
  // Byte i of the result is byte i of the first operand, or of the second (i + 4) if negative.
  const uint32_t sign = Lop3<kAndOr>(codes >> 1, 0x44444444u, 0x32103210u);
  e4m3[0] = Permute(Permute(kFrom0, kFrom4, index), Permute(kFromM8, kFromM4, index), sign);
  e4m3[1] = Permute(Permute(kFrom0, kFrom4, index >> 16), Permute(kFromM8, kFromM4, index >> 16),
                    sign >> 16);
}

// Elements i and i + 4 to f16[i]: a code with its top bit flipped (q + 8), put into the mantissa
// of 1024, is 1024 + q + 8; in the bits above, 1024 + 16 (q + 8). Exact.
__device__ __forceinline__ void DecodeI4x8ToF16(uint32_t codes, uint32_t (&f16)[4]) {
  constexpr uint32_t k1024 = 0x64006400u;
  constexpr uint32_t kOne = 0x3C003C00u, kMinus1032 = 0xE408E408u;
  constexpr uint32_t kSixteenth = 0x2C002C00u, kMinus72 = 0xD480D480u;
  const uint32_t flipped = codes ^ 0x88888888u;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t w = flipped >> (8 * half);
    f16[2 * half] = FmaF16x2(Lop3<kAndOr>(w, 0x000F000Fu, k1024), kOne, kMinus1032);
    f16[2 * half + 1] = FmaF16x2(Lop3<kAndOr>(w, 0x00F000F0u, k1024), kSixteenth, kMinus72);
  }
}

// Elements i and i + 4 to bf16[i], by 128 + q + 8 (BF16 has only 7 mantissa bits). Exact.
__device__ __forceinline__ void DecodeI4x8ToBF16(uint32_t codes, uint32_t (&bf16)[4]) {
  constexpr uint32_t k128 = 0x43004300u, kOne = 0x3F803F80u, kMinus136 = 0xC308C308u;
  const uint32_t flipped = codes ^ 0x88888888u;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    bf16[i] = FmaBF16x2(Lop3<kAndOr>(flipped >> (4 * i), 0x000F000Fu, k128), kOne, kMinus136);
  }
}

// Elements 0..3 to i8[0], 4..7 to i8[1], element i in byte i % 4.
__device__ __forceinline__ void DecodeI4x8ToI8(uint32_t codes, uint32_t (&i8)[2]) {
  const uint32_t even = codes & 0x0F0F0F0Fu, odd = (codes >> 4) & 0x0F0F0F0Fu;
  // (x ^ 8) - 8 in every byte: adding 0xF8 has no carry out once bit 7 is handled by the xor.
  const uint32_t low = Permute(even, odd, 0x5140u), high = Permute(even, odd, 0x7362u);
  i8[0] = ((low ^ 0x08080808u) + 0x78787878u) ^ 0x80808080u;
  i8[1] = ((high ^ 0x08080808u) + 0x78787878u) ^ 0x80808080u;
}

// ----------------------------------------------------------------------------------- bytes to 16
//
// Four codes, one a byte, element i in byte i: elements 0 and 1 to the first word, 2 and 3 to
// the second.

// Codes into the upper bytes of 16-bit halves, zeros below.
__device__ __forceinline__ void SpreadBytes(uint32_t codes, uint32_t (&halves)[2]) {
  halves[0] = Permute(codes, 0, 0x1404u);
  halves[1] = Permute(codes, 0, 0x3424u);
}

// E4M3 to F16: one conversion for two values from sm_89 on (NaN stays NaN there), else the shift.
__device__ __forceinline__ void DecodeE4M3x4ToF16(uint32_t codes, uint32_t (&f16)[2]) {
#if NIBBLE_FP8_CVT
  asm("{\n\t.reg .b16 low, high;\n\t"
      "mov.b32 {low, high}, %2;\n\t"
      "cvt.rn.f16x2.e4m3x2 %0, low;\n\t"
      "cvt.rn.f16x2.e4m3x2 %1, high;\n\t}"
      : "=r"(f16[0]), "=r"(f16[1])
      : "r"(codes));
#else
  constexpr uint32_t k2To8 = 0x5C005C00u, kMinusZero = 0x80008000u;
  uint32_t halves[2];
  SpreadBytes(codes, halves);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t magnitude = (halves[i] & 0x7F007F00u) >> 1;
    f16[i] = FmaF16x2(Lop3<kAndOr>(halves[i], 0x80008000u, magnitude), k2To8, kMinusZero);
  }
#endif
}

__device__ __forceinline__ void DecodeE4M3x4ToBF16(uint32_t codes, uint32_t (&bf16)[2]) {
  constexpr uint32_t k2To120 = 0x7B807B80u, kMinusZero = 0x80008000u;
  uint32_t halves[2];
  SpreadBytes(codes, halves);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t magnitude = (halves[i] & 0x7F007F00u) >> 4;
    bf16[i] = FmaBF16x2(Lop3<kAndOr>(halves[i], 0x80008000u, magnitude), k2To120, kMinusZero);
  }
}

// E5M2 is the upper byte of F16; infinity and NaN stay.
__device__ __forceinline__ void DecodeE5M2x4ToF16(uint32_t codes, uint32_t (&f16)[2]) {
  SpreadBytes(codes, f16);
}

__device__ __forceinline__ void DecodeE5M2x4ToBF16(uint32_t codes, uint32_t (&bf16)[2]) {
  constexpr uint32_t k2To112 = 0x77807780u, kMinusZero = 0x80008000u;
  uint32_t halves[2];
  SpreadBytes(codes, halves);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t magnitude = (halves[i] & 0x7F007F00u) >> 3;
    bf16[i] = FmaBF16x2(Lop3<kAndOr>(halves[i], 0x80008000u, magnitude), k2To112, kMinusZero);
  }
}

// Six-bit codes in the low bits of their bytes; the two high bits of a byte are ignored.
__device__ __forceinline__ void DecodeE3M2x4ToBF16(uint32_t codes, uint32_t (&bf16)[2]) {
  constexpr uint32_t k2To124 = 0x7D807D80u, kMinusZero = 0x80008000u;
  uint32_t halves[2];
  SpreadBytes(codes, halves);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t magnitude = (halves[i] & 0x1F001F00u) >> 3;
    bf16[i] = FmaBF16x2(Lop3<kAndOr>(halves[i] << 2, 0x80008000u, magnitude), k2To124, kMinusZero);
  }
}

__device__ __forceinline__ void DecodeE2M3x4ToBF16(uint32_t codes, uint32_t (&bf16)[2]) {
  constexpr uint32_t k2To126 = 0x7E807E80u, kMinusZero = 0x80008000u;
  uint32_t halves[2];
  SpreadBytes(codes, halves);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t magnitude = (halves[i] & 0x1F001F00u) >> 4;
    bf16[i] = FmaBF16x2(Lop3<kAndOr>(halves[i] << 2, 0x80008000u, magnitude), k2To126, kMinusZero);
  }
}

// I8 to BF16, exact: all of -128..127 have at most 8 significant bits. The byte with its top bit
// flipped, as the mantissa of 2^23, is 2^23 + 128 + q in F32.
__device__ __forceinline__ void DecodeI8x4ToBF16(uint32_t codes, uint32_t (&bf16)[2]) {
  constexpr float k2To23Plus128 = 8388736.0f;
  const uint32_t flipped = codes ^ 0x80808080u;
  uint32_t f32[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t bits = Permute(flipped, 0x4B000000u, 0x7440u + i);
    f32[i] = __float_as_uint(__uint_as_float(bits) - k2To23Plus128);
  }
  bf16[0] = Permute(f32[0], f32[1], 0x7632u);
  bf16[1] = Permute(f32[2], f32[3], 0x7632u);
}

// ------------------------------------------------------------------------------ six bits to E4M3
//
// Exact: E4M3 has the exponents and the mantissa bits of both. Normal codes are shifted and
// rebiased; subnormal ones are looked up.

// Element i's low three bits, from byte i to nibble i (the selector of a prmt).
__device__ __forceinline__ uint32_t BytesToSelector(uint32_t bytes) {
  const uint32_t low = bytes & 0x07070707u;
  return Permute(low | (low >> 4), 0, 0x4420u);
}

// The bytes of normal where those of magnitude are at least limit, else those of small.
template <uint32_t kLimit>
__device__ __forceinline__ uint32_t SelectNormal(uint32_t magnitude, uint32_t normal,
                                                 uint32_t small) {
  const uint32_t at_least = magnitude + (0x80u - kLimit) * 0x01010101u;  // in bit 7 of each byte
  const uint32_t mask = Permute(at_least, 0, 0xBA98u);                   // replicated
  return (normal & mask) | (small & ~mask);
}

// Four codes in bytes (high two bits ignored) to four E4M3 codes.
__device__ __forceinline__ uint32_t DecodeE3M2x4ToE4M3(uint32_t codes) {
  constexpr uint32_t kSmall = 0x24201800u;  // 0, 1/16, 2/16, 3/16
  const uint32_t magnitude = codes & 0x1F1F1F1Fu;
  const uint32_t normal = (magnitude << 1) + 0x20202020u;  // bias 3 to 7
  const uint32_t small = Permute(kSmall, kSmall, BytesToSelector(codes));
  return Lop3<kAndOr>(codes << 2, 0x80808080u, SelectNormal<4>(magnitude, normal, small));
}

__device__ __forceinline__ uint32_t DecodeE2M3x4ToE4M3(uint32_t codes) {
  constexpr uint32_t kFrom0 = 0x2C282000u, kFrom4 = 0x36343230u;  // 0/8 .. 3/8, 4/8 .. 7/8
  const uint32_t magnitude = codes & 0x1F1F1F1Fu;
  const uint32_t normal = magnitude + 0x30303030u;  // bias 1 to 7
  const uint32_t small = Permute(kFrom0, kFrom4, BytesToSelector(codes));
  return Lop3<kAndOr>(codes << 2, 0x80808080u, SelectNormal<8>(magnitude, normal, small));
}

// --------------------------------------------------------------------------------------- to F32

__device__ __forceinline__ float DecodeBF16(uint16_t code) {
  return __uint_as_float(static_cast<uint32_t>(code) << 16);
}

__device__ __forceinline__ float DecodeBF16Low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float DecodeBF16High(uint32_t pair) {
  return __uint_as_float(pair & 0xFFFF0000u);
}

__device__ __forceinline__ float DecodeF16(uint16_t code) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(code));
  return value;
}

// One code in the low byte, any code: NaN stays NaN. F32 takes the subnormals that the shift
// makes (bias 127 - 7), so kernels must not be compiled with flush-to-zero.
__device__ __forceinline__ float DecodeE4M3(uint32_t code) {
  const uint32_t sign = (code & 0x80u) << 24, magnitude = code & 0x7Fu;
  const float value = __uint_as_float(magnitude << 20) * 0x1p120f;
  const uint32_t bits = magnitude == 0x7F ? 0x7FC00000u : __float_as_uint(value);
  return __uint_as_float(bits | sign);
}

// The same for a weight, which is no NaN.
__device__ __forceinline__ float DecodeFiniteE4M3(uint32_t code) {
  return __uint_as_float((code & 0x80u) << 24 | (code & 0x7Fu) << 20) * 0x1p120f;
}

// One code, infinity and NaN included.
__device__ __forceinline__ float DecodeE5M2(uint32_t code) {
  return DecodeF16(static_cast<uint16_t>(code << 8));
}

// One six-bit code; higher bits are ignored.
__device__ __forceinline__ float DecodeE3M2(uint32_t code) {
  return __uint_as_float((code & 0x20u) << 26 | (code & 0x1Fu) << 21) * 0x1p124f;
}

__device__ __forceinline__ float DecodeE2M3(uint32_t code) {
  return __uint_as_float((code & 0x20u) << 26 | (code & 0x1Fu) << 20) * 0x1p126f;
}

// One code in the low four bits; higher bits are ignored.
__device__ __forceinline__ float DecodeI4(uint32_t code) {
  return static_cast<float>(static_cast<int32_t>((code & 15u) ^ 8u) - 8);
}

// A power-of-two scale: the signed byte e, -126 <= e <= 127, stands for 2^e.
__device__ __forceinline__ float DecodePow2(int8_t e) {
  return __uint_as_float(static_cast<uint32_t>(e + 127) << 23);
}

}  // namespace nibble::cuda
