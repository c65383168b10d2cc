// SPDX-License-Identifier: Apache-2.0
//
// Of the kernels of strips (gemm_f6, gemm_dense, strip_*): bounds for mutants that are counted. Not
// seen: a lane's number that loses its lowest bit, where what is made of it has no use for that bit;
// the last bit of a BF16 scale of some folds of pairs, which also passes, within the tolerance of
// SwiGLU. Not reached: guards that no lane of any case meets, and in strip_f32 what the compiler
// adds to its loops.
#include "kernels-cuda/testing/equivalent_mutants.h"

namespace nibble::cuda {
namespace {

const KnownMutantsRegistration kStripMutants({{}, {
    {"gemm_dense_a16", 9, 0.1, 0.05, 1},
    {"gemm_dense_a8f", 12, 0.1, 0, 1},
    {"gemm_dense_a8i", 12, 0.3, 0, 1},
    {"gemm_f6_a16", 10, 0.1, 0.05, 1},
    {"gemm_f6_a8f", 11, 0.2, 0.05, 1},
    {"gemm_f6_a8i", 9, 0.1, 0.05, 1},
    {"strip_f32", 11, 0.8, 0.15, 3},
    {"strip_rows", 5, 0, 0, 1},
}});

}  // namespace
}  // namespace nibble::cuda
