// SPDX-License-Identifier: Apache-2.0
//
// Blocked Cholesky factorization of a damped matrix of second moments.
#pragma once

#include <cstdint>

#include "kernels-cpu/threads/workspace.h"

namespace nibble {

// a [n][n], rows contiguous, symmetric (the lower triangle is read): overwritten by L of
// a = L L^T in the lower triangle; the upper one is undefined. The blocks on the diagonal are
// factored in F64, everything else is F32 products. False where a is not positive definite to
// this precision; a is then lost. Throws std::bad_alloc.
bool Cholesky(Workspace& workspace, float* a, int64_t n);

}  // namespace nibble
