// SPDX-License-Identifier: Apache-2.0
//
// tiled.cuh for I8 activations: gemm_i4f8_tiled_i8_<columns a unit>_<tokens a block>.
#include "kernels-cuda/gemm_i4f8/tiled.cuh"

using namespace nibble::cuda::gemm_i4f8;

#define NIBBLE_TILED(unit, tokens)                                                   \
  extern "C" __global__ void __launch_bounds__(TiledThreads(tokens), TiledBlocks(tokens)) \
      gemm_i4f8_tiled_i8_##unit##_##tokens(const GemmParams p) {                   \
    Tiled<LeftI8, unit, tokens>(p);                                                  \
  }

NIBBLE_TILED(64, 32)
NIBBLE_TILED(64, 64)
NIBBLE_TILED(64, 128)
NIBBLE_TILED(32, 32)
NIBBLE_TILED(32, 64)
NIBBLE_TILED(32, 128)
NIBBLE_TILED(16, 32)
