// SPDX-License-Identifier: Apache-2.0
//
// I8 weights with I8 activations (A8I) on the integer tensor cores, m16n8k32. Layout and overflow
// argument: common/strip_layout.h, common/strip_gemm.cuh. Any M, N, K.
#include "kernels-cuda/gemm_dense/dense.cuh"

using I8 = nibble::cuda::gemm_dense::Bytes<nibble::DType::kI8, int32_t>;

NIBBLE_STRIP_KERNEL(gemm_a8i_w8i_decode, I8, kDecode)
NIBBLE_STRIP_KERNEL(gemm_a8i_w8i_decode_pair, I8, kDecodePair)
NIBBLE_STRIP_KERNEL(gemm_a8i_w8i_tiles, I8, kTiles)
NIBBLE_STRIP_KERNEL(gemm_a8i_w8i_wide, I8, kWide)
