// SPDX-License-Identifier: Apache-2.0
//
// The products that second moments and their Cholesky factor consist of, on top of gemm/.
#pragma once

#include <cstdint>

#include "kernels-cpu/gemm/packed_matrix.h"
#include "kernels-cpu/threads/workspace.h"

namespace nibble {

// rows x cols of F32, contiguous, as the right operand of a product. Throws std::bad_alloc.
PackedMatrix PackFloats(ThreadPool& pool, const float* values, int64_t rows, int64_t cols);

// c += a b^T: a [rows][cols] with a_stride, b packed [n][cols], c [rows][n] with c_stride.
void AddProduct(Workspace& workspace, const float* a, int64_t a_stride, int64_t rows,
                const PackedMatrix& b, float* c, int64_t c_stride);

// The lower triangle (and some of the upper) of c += sign * a a^T: a [n][cols], contiguous;
// c [n][n] with c_stride; sign 1 or -1. Blocks of rows times the blocks above and on the
// diagonal, so that about half of the full product is computed. Throws std::bad_alloc.
void AddSymmetricProduct(Workspace& workspace, const float* a, int64_t n, int64_t cols, float sign,
                         float* c, int64_t c_stride);

// to [cols][rows] = from [rows][cols] transposed; from has from_stride.
void Transpose(ThreadPool& pool, const float* from, int64_t from_stride, int64_t rows,
               int64_t cols, float* to);

}  // namespace nibble
