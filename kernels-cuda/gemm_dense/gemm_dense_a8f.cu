// SPDX-License-Identifier: Apache-2.0
//
// Weights of 8 and 16 bits with E4M3 activations (A8F). Which type they meet in, and why nothing
// is lost: dense.cuh. Layout and sums: common/strip_layout.h, common/strip_gemm.cuh. Any M, N, K.
#include "kernels-cuda/gemm_dense/dense.cuh"

template <nibble::DType kType, bool kF16>
using A8F = nibble::cuda::gemm_dense::Through16<kType, nibble::DType::kE4M3, kF16>;
using I8 = A8F<nibble::DType::kI8, true>;
using BF16 = A8F<nibble::DType::kBF16, false>;
using F16 = A8F<nibble::DType::kF16, true>;
#if NIBBLE_FP8_MMA
using E4M3 = nibble::cuda::gemm_dense::Bytes<nibble::DType::kE4M3, float>;
using E5M2 = nibble::cuda::gemm_dense::Bytes<nibble::DType::kE5M2, float>;
#else
using E4M3 = A8F<nibble::DType::kE4M3, true>;
using E5M2 = A8F<nibble::DType::kE5M2, true>;
#endif

NIBBLE_STRIP_KERNEL(gemm_a8f_w8i_decode, I8, kDecode)
NIBBLE_STRIP_KERNEL(gemm_a8f_w8i_decode_pair, I8, kDecodePair)
NIBBLE_STRIP_KERNEL(gemm_a8f_w8i_tiles, I8, kTiles)
NIBBLE_STRIP_KERNEL(gemm_a8f_w8e4m3_decode, E4M3, kDecode)
NIBBLE_STRIP_KERNEL(gemm_a8f_w8e4m3_decode_pair, E4M3, kDecodePair)
NIBBLE_STRIP_KERNEL(gemm_a8f_w8e4m3_tiles, E4M3, kTiles)
NIBBLE_STRIP_KERNEL(gemm_a8f_w8e5m2_decode, E5M2, kDecode)
NIBBLE_STRIP_KERNEL(gemm_a8f_w8e5m2_decode_pair, E5M2, kDecodePair)
NIBBLE_STRIP_KERNEL(gemm_a8f_w8e5m2_tiles, E5M2, kTiles)
NIBBLE_STRIP_KERNEL(gemm_a8f_bf16_decode, BF16, kDecode)
NIBBLE_STRIP_KERNEL(gemm_a8f_bf16_decode_pair, BF16, kDecodePair)
NIBBLE_STRIP_KERNEL(gemm_a8f_bf16_tiles, BF16, kTiles)
NIBBLE_STRIP_KERNEL(gemm_a8f_f16_decode, F16, kDecode)
NIBBLE_STRIP_KERNEL(gemm_a8f_f16_decode_pair, F16, kDecodePair)
NIBBLE_STRIP_KERNEL(gemm_a8f_f16_tiles, F16, kTiles)
