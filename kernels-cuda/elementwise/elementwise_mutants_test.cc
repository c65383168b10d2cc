// SPDX-License-Identifier: Apache-2.0
//
// Of the row operators and the choice of a token: bounds for the mutants that are counted. What
// computes the same: bounds that no thread meets exactly, thresholds of the logarithm's bins (only
// their order matters), guards of lanes whose share is empty. Not reached: loops' first tests, which
// the compiler doubles, its division of 64-bit numbers, and of the three selections' one code what
// the compiler splits off for the first where it can be bounded, which it never is.
#include "kernels-cuda/testing/equivalent_mutants.h"

namespace nibble::cuda {
namespace {

const KnownMutantsRegistration kElementwiseMutants({{}, {
    {"elementwise", 22, 0, 0, 4},
    {"sampling", 24, 0, 0, 11},
}});

}  // namespace
}  // namespace nibble::cuda
