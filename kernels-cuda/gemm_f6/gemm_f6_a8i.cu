// SPDX-License-Identifier: Apache-2.0
//
// Six-bit weights with I8 activations (A8I), through F16, which holds both exactly: a product has
// at most 4 + 8 significant bits, their sum is in F32. Layout, decoding and precision:
// common/strip_layout.h, six_bit.cuh, common/strip_gemm.cuh. Any M, N, K.
#include "kernels-cuda/gemm_f6/six_bit.cuh"

using E3M2 = nibble::cuda::gemm_f6::SixBitF16<nibble::DType::kE3M2, nibble::DType::kI8>;
using E2M3 = nibble::cuda::gemm_f6::SixBitF16<nibble::DType::kE2M3, nibble::DType::kI8>;

NIBBLE_STRIP_KERNEL(gemm_a8i_w6e3m2_decode, E3M2, kDecode)
NIBBLE_STRIP_KERNEL(gemm_a8i_w6e3m2_decode_pair, E3M2, kDecodePair)
NIBBLE_STRIP_KERNEL(gemm_a8i_w6e3m2_tiles, E3M2, kTiles)
NIBBLE_STRIP_KERNEL(gemm_a8i_w6e2m3_decode, E2M3, kDecode)
NIBBLE_STRIP_KERNEL(gemm_a8i_w6e2m3_decode_pair, E2M3, kDecodePair)
NIBBLE_STRIP_KERNEL(gemm_a8i_w6e2m3_tiles, E2M3, kTiles)
