// SPDX-License-Identifier: Apache-2.0
//
// targets: 90
//
// tiled_wgmma.cuh: gemm_i4f8_wgmma_<columns a unit>.
#include "kernels-cuda/gemm_i4f8/tiled_wgmma.cuh"

using namespace nibble::cuda::gemm_i4f8;

extern "C" __global__ void __launch_bounds__(256, 1) gemm_i4f8_wgmma_64(const GemmParams p) {
  TiledWarpgroup<64>(p);
}
extern "C" __global__ void __launch_bounds__(256, 1) gemm_i4f8_wgmma_32(const GemmParams p) {
  TiledWarpgroup<32>(p);
}
