// SPDX-License-Identifier: Apache-2.0
//
// Six-bit weights with BF16 activations (A16): the layout and the decoding are drawn in
// common/strip_layout.h and six_bit.cuh, the pipeline and its precision argument in
// common/strip_gemm.cuh. Any M, N, K.
#include "kernels-cuda/gemm_f6/six_bit.cuh"

using E3M2 = nibble::cuda::gemm_f6::SixBitBF16<nibble::DType::kE3M2>;
using E2M3 = nibble::cuda::gemm_f6::SixBitBF16<nibble::DType::kE2M3>;

NIBBLE_STRIP_KERNEL(gemm_a16_w6e3m2_decode, E3M2, kDecode)
NIBBLE_STRIP_KERNEL(gemm_a16_w6e3m2_decode_pair, E3M2, kDecodePair)
NIBBLE_STRIP_KERNEL(gemm_a16_w6e3m2_tiles, E3M2, kTiles)
NIBBLE_STRIP_KERNEL(gemm_a16_w6e3m2_wide, E3M2, kWide)
NIBBLE_STRIP_KERNEL(gemm_a16_w6e2m3_decode, E2M3, kDecode)
NIBBLE_STRIP_KERNEL(gemm_a16_w6e2m3_decode_pair, E2M3, kDecodePair)
NIBBLE_STRIP_KERNEL(gemm_a16_w6e2m3_tiles, E2M3, kTiles)
NIBBLE_STRIP_KERNEL(gemm_a16_w6e2m3_wide, E2M3, kWide)
