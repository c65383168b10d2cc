// SPDX-License-Identifier: Apache-2.0
//
// Of the kernels of strips (gemm_f6, gemm_dense, strip_*): mutants that no test can see, and bounds for
// those that are counted: NaN and infinity at the rounding to BF16 (a NaN may have any payload);
// positions of scale groups behind the last column; decoders of single rows, special codes; not
// reached: a residual in the kernels of pairs, which take none.
#include "kernels-cuda/testing/equivalent_mutants.h"

namespace nibble::cuda {
namespace {

const KnownMutantsRegistration kStripMutants({{
    {"gemm_dense", "", "drop", "cp.async.wait_all;", 2, Fate::kSame,
     "The last stages of the loop are empty groups, since nothing is loaded behind the last brick; "
     "it has waited for all others."},
    {"gemm_f6", "", "drop", "cp.async.wait_all;", 2, Fate::kSame, "As for gemm_dense."},
}, {
    {"gemm_dense_a16", 25, 16, 3, 25},
    {"gemm_dense_a8f", 27, 18, 3, 30},
    {"gemm_dense_a8i", 27, 7, 3, 25},
    {"gemm_f6_a16", 22, 9, 2, 18},
    {"gemm_f6_a8f", 31, 12, 3, 23},
    {"gemm_f6_a8i", 23, 8, 2, 21},
    {"strip_f32", 19, 12, 2, 12},
    {"strip_rows", 46, 42, 2, 50},
}});

}  // namespace
}  // namespace nibble::cuda
