// SPDX-License-Identifier: Apache-2.0
//
// Single values of packed weights (strip_layout.h) as F32: four columns of a row at a time, of any
// type; the type's branches are the same for all threads. For what runs on CUDA cores.
#pragma once

#include "kernels-cuda/common/decode.cuh"
#include "kernels-cuda/common/strip_arguments.h"

namespace nibble::cuda {

__device__ __forceinline__ uint32_t LoadStrip32(const uint8_t* from) {
  return __ldg(reinterpret_cast<const uint32_t*>(from));
}

// The values of columns k .. k + 3 (k a multiple of 4) of row r of a brick of six-bit codes.
template <DType kType>
__device__ __forceinline__ void DecodeSixBitQuad(const uint8_t* brick, unsigned r, unsigned k,
                                                 float (&v)[4]) {
  const unsigned quad = r % 4;
  const uint32_t low = LoadStrip32(brick + LowRegisterOffset(r, k)) >> (4 * (quad % 2));
  const uint32_t all = LoadStrip32(brick + HighRegisterOffset(r, k));
  // As if it were the first quad.
  const uint32_t high =
      __funnelshift_l(all, all, HighRotation(kType, static_cast<int>(quad)));
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const uint32_t bits = (low >> LowBit(0, c) & 15u) |
                          (high >> SecondBit(kType, 0, c) & 1u) << 4 |
                          (high >> SignBit(kType, 0, c) & 1u) << 5;
    v[c] = kType == DType::kE3M2 ? DecodeE3M2(bits) : DecodeE2M3(bits);
  }
}

// The same of any code, unscaled.
__device__ __forceinline__ void DecodeStripQuad(DType code, const uint8_t* brick, unsigned r,
                                                unsigned k, float (&v)[4]) {
  if (code == DType::kE3M2) return DecodeSixBitQuad<DType::kE3M2>(brick, r, k, v);
  if (code == DType::kE2M3) return DecodeSixBitQuad<DType::kE2M3>(brick, r, k, v);
  if (code == DType::kF32) {
    const float4 four =
        __ldg(reinterpret_cast<const float4*>(brick + CodeOffset(DType::kF32, r, k)));
    v[0] = four.x;
    v[1] = four.y;
    v[2] = four.z;
    v[3] = four.w;
    return;
  }
  if (code == DType::kBF16 || code == DType::kF16) {
    const uint8_t* from = brick + CodeOffset(DType::kF16, r, k);
    const uint32_t first = LoadStrip32(from), second = LoadStrip32(from + 8);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const uint16_t bits = static_cast<uint16_t>((c < 2 ? first : second) >> (16 * (c % 2)));
      v[c] = code == DType::kBF16 ? DecodeBF16(bits) : DecodeF16(bits);
    }
    return;
  }
  const uint32_t bytes = LoadStrip32(brick + CodeOffset(DType::kI8, r, k));
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const uint32_t byte = bytes >> (8 * c) & 0xFFu;
    v[c] = code == DType::kI8     ? static_cast<float>(static_cast<int8_t>(byte))
           : code == DType::kE4M3 ? DecodeFiniteE4M3(byte)
                                  : DecodeE5M2(byte);
  }
}

// The scale with this index in a matrix's scales.
__device__ __forceinline__ float StripScale(int scale_type, const uint8_t* scales, int64_t index) {
  const DType type = static_cast<DType>(scale_type);
  if (type == DType::kF32) return __ldg(reinterpret_cast<const float*>(scales) + index);
  const uint16_t bits = __ldg(reinterpret_cast<const uint16_t*>(scales) + index);
  return type == DType::kBF16 ? DecodeBF16(bits) : DecodeF16(bits);
}

}  // namespace nibble::cuda
