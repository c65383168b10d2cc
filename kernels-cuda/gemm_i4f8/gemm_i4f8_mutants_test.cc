// SPDX-License-Identifier: Apache-2.0
//
// Of the INT4 products' kernels: mutants that no test can see, and bounds for those that are counted:
// NaN and infinity at the rounding to BF16 (a NaN may have any payload); positions of scale groups
// behind the last column; not reached: a residual in the kernels of pairs, which take none.
#include "kernels-cuda/testing/equivalent_mutants.h"

namespace nibble::cuda {
namespace {

const KnownMutantsRegistration kI4Mutants({{}, {
    {"gemm_i4f8_few_bf16", 12, 6, 2, 8},
    {"gemm_i4f8_few_e4m3", 11, 5, 2, 8},
    {"gemm_i4f8_few_i8", 14, 5, 2, 8},
    {"gemm_i4f8_finish", 38, 16, 2, 26},
    {"gemm_i4f8_tiled_bf16", 13, 5, 2, 14},
    {"gemm_i4f8_tiled_e4m3", 12, 5, 2, 15},
    {"gemm_i4f8_tiled_i8", 11, 6, 2, 16},
    {"gemm_i4f8_wgmma", 7, 0, 0, 1},
}});

}  // namespace
}  // namespace nibble::cuda
