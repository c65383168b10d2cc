// SPDX-License-Identifier: Apache-2.0
//
// few_rows.cuh for E4M3 activations: gemm_i4f8_few_e4m3_<columns a unit>_<most tokens>.
#include "kernels-cuda/gemm_i4f8/few_rows.cuh"

using namespace nibble::cuda::gemm_i4f8;

#define NIBBLE_FEW_ROWS(unit, tiles, tokens)                                         \
  extern "C" __global__ void __launch_bounds__(32 * kFewRowsWarps, 2)                \
      gemm_i4f8_few_e4m3_##unit##_##tokens(const GemmParams p) {                     \
    FewRows<LeftE4M3, unit, tiles>(p);                                                     \
  }

NIBBLE_FEW_ROWS(64, 1, 8)
NIBBLE_FEW_ROWS(64, 2, 16)
NIBBLE_FEW_ROWS(32, 1, 8)
NIBBLE_FEW_ROWS(32, 2, 16)
NIBBLE_FEW_ROWS(16, 1, 8)
NIBBLE_FEW_ROWS(16, 2, 16)
