// SPDX-License-Identifier: Apache-2.0
//
// Of the INT4 products' kernels: bounds for mutants that are counted. Not seen in the tiled kernels:
// a lane's number that loses its lowest bit, where what is made of it has no use for that bit. Not
// reached: guards of loops of blocks that the compiler unrolls, which no lane of any case meets.
#include "kernels-cuda/testing/equivalent_mutants.h"

namespace nibble::cuda {
namespace {

const KnownMutantsRegistration kI4Mutants({{}, {
    {"gemm_i4f8_few_bf16", 6, 0, 0, 1},
    {"gemm_i4f8_few_e4m3", 6, 0, 0, 1},
    {"gemm_i4f8_few_i8", 6, 0, 0, 1},
    {"gemm_i4f8_finish", 9, 0, 0, 2},
    {"gemm_i4f8_tiled_bf16", 6, 0.1, 0, 1},
    {"gemm_i4f8_tiled_e4m3", 5, 0.2, 0, 1},
    {"gemm_i4f8_tiled_i8", 5, 0.2, 0, 1},
    {"gemm_i4f8_wgmma", 7, 0, 0, 1},
}});

}  // namespace
}  // namespace nibble::cuda
