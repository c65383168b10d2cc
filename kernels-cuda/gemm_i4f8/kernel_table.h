// SPDX-License-Identifier: Apache-2.0
//
// The kernels for products, by what they are made for.
#pragma once

#include "kernels-cpu/numerics/types.h"
#include "kernels-cuda/common/device.h"

namespace nibble::cuda::gemm_i4f8 {

struct ProductKernel {
  DType activation;
  int unit;          // columns: 16, 32 or 64
  int block_tokens;  // 8 or 16: few_rows.cuh; else tiled.cuh
  KernelId id;       // names live as long as the process: a device knows kernels by them
};

#define NIBBLE_KERNEL(type, kind, act, unit, tokens) \
  {DType::type, unit, tokens,                        \
   {"gemm_i4f8_" #kind "_" #act, "gemm_i4f8_" #kind "_" #act "_" #unit "_" #tokens}},
#define NIBBLE_KERNELS(type, act)                                                       \
  NIBBLE_KERNEL(type, few, act, 64, 8) NIBBLE_KERNEL(type, few, act, 64, 16)            \
  NIBBLE_KERNEL(type, few, act, 32, 8) NIBBLE_KERNEL(type, few, act, 32, 16)            \
  NIBBLE_KERNEL(type, few, act, 16, 8) NIBBLE_KERNEL(type, few, act, 16, 16)            \
  NIBBLE_KERNEL(type, tiled, act, 64, 32) NIBBLE_KERNEL(type, tiled, act, 64, 64)       \
  NIBBLE_KERNEL(type, tiled, act, 64, 128) NIBBLE_KERNEL(type, tiled, act, 32, 32)      \
  NIBBLE_KERNEL(type, tiled, act, 32, 64) NIBBLE_KERNEL(type, tiled, act, 32, 128)      \
  NIBBLE_KERNEL(type, tiled, act, 16, 32)

inline constexpr ProductKernel kProductKernels[] = {
    NIBBLE_KERNELS(kE4M3, e4m3) NIBBLE_KERNELS(kI8, i8) NIBBLE_KERNELS(kBF16, bf16)};

#undef NIBBLE_KERNELS
#undef NIBBLE_KERNEL

// Null where there is none.
inline const ProductKernel* FindKernel(DType activation, int unit, int block_tokens) {
  for (const ProductKernel& k : kProductKernels) {
    if (k.activation == activation && k.unit == unit && k.block_tokens == block_tokens) return &k;
  }
  return nullptr;
}

// tiled_wgmma.cuh; unit: 32 or 64.
inline KernelId WarpgroupKernel(int unit) {
  return {"gemm_i4f8_wgmma", unit == 64 ? "gemm_i4f8_wgmma_64" : "gemm_i4f8_wgmma_32"};
}

}  // namespace nibble::cuda::gemm_i4f8
