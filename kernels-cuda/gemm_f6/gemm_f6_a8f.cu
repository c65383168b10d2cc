// SPDX-License-Identifier: Apache-2.0
//
// Six-bit weights with E4M3 activations (A8F): on FP8 tensor cores where mma.sync reaches them
// (sm_89 and sm_120, there without any conversion of the codes), else through F16. Layout,
// decoding and precision: common/strip_layout.h, six_bit.cuh, common/strip_gemm.cuh. Any M, N, K.
#include "kernels-cuda/gemm_f6/six_bit.cuh"

#if NIBBLE_FP8_MMA
using E3M2 = nibble::cuda::gemm_f6::SixBitE4M3<nibble::DType::kE3M2>;
using E2M3 = nibble::cuda::gemm_f6::SixBitE4M3<nibble::DType::kE2M3>;
#else
using E3M2 = nibble::cuda::gemm_f6::SixBitF16<nibble::DType::kE3M2, nibble::DType::kE4M3>;
using E2M3 = nibble::cuda::gemm_f6::SixBitF16<nibble::DType::kE2M3, nibble::DType::kE4M3>;
#endif

NIBBLE_STRIP_KERNEL(gemm_a8f_w6e3m2_decode, E3M2, kDecode)
NIBBLE_STRIP_KERNEL(gemm_a8f_w6e3m2_decode_pair, E3M2, kDecodePair)
NIBBLE_STRIP_KERNEL(gemm_a8f_w6e3m2_tiles, E3M2, kTiles)
NIBBLE_STRIP_KERNEL(gemm_a8f_w6e2m3_decode, E2M3, kDecode)
NIBBLE_STRIP_KERNEL(gemm_a8f_w6e2m3_decode_pair, E2M3, kDecodePair)
NIBBLE_STRIP_KERNEL(gemm_a8f_w6e2m3_tiles, E2M3, kTiles)
