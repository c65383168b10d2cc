// SPDX-License-Identifier: Apache-2.0
//
// Of the elementwise kernels and the choice of a token: mutants that no test can see, and bounds for
// those that are counted: whether an address stands on a boundary of 4, 8 or 16 bytes, where either
// way is right; not reached: a norm in front of SwiGLU, which nobody asks for.
#include "kernels-cuda/testing/equivalent_mutants.h"

namespace nibble::cuda {
namespace {

const KnownMutantsRegistration kElementwiseMutants({{}, {
    {"elementwise", 60, 30, 2, 44},
    {"sampling", 30, 10, 3, 10},
}});

}  // namespace
}  // namespace nibble::cuda
