// SPDX-License-Identifier: Apache-2.0
//
// What calibration keeps of activations: column sums, column maxima, second moments.
#pragma once

#include <cstdint>

#include "kernels-cpu/threads/workspace.h"

namespace nibble {

// sums[k] += sum over rows of x[r][k]^2; maxima[k] = max(maxima[k], |x[r][k]|). Either may be
// null. Rows are stride elements apart. The order of the additions of a column is that of the
// rows, so any number of threads gives the same bits. A NaN in a column makes its sum NaN.
void AddChannelStatistics(Workspace& workspace, const float* x, int64_t stride, int64_t rows,
                          int64_t cols, float* sums, float* maxima);

// w[r][k] *= row_factors[r] * col_factors[k]; a null vector stands for ones.
void ScaleMatrix(Workspace& workspace, float* w, int64_t stride, int64_t rows, int64_t cols,
                 const float* row_factors, const float* col_factors);

// moments += x^T x: [cols][cols], rows contiguous, both triangles. Computed by the F32 product of
// gemm/, block by block of the lower triangle, and mirrored. Throws std::bad_alloc.
void AddSecondMoments(Workspace& workspace, const float* x, int64_t stride, int64_t rows,
                      int64_t cols, float* moments);

}  // namespace nibble
