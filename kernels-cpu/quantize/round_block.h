// SPDX-License-Identifier: Apache-2.0
//
// The inner loop of compensation: one row of a block of columns, one column after the other.
#pragma once

#include <cstdint>

#include "kernels-cpu/numerics/types.h"

namespace nibble {

// For j = begin .. end - 1: codes[j] = code of (w[j] + sums[j] * inverse[j]) / scales[j] (0 where
// that is 0), errors[j] = w[j] - its value, and sums[k] += errors[j] * r[j][k] for j < k < n.
// r: [n][n], what is on or above the diagonal; inverse: of its diagonal. code: I4, I8, E4M3, E5M2,
// E3M2 or E2M3. On the calling thread.
void RoundBlock(DType code, const float* w, const float* scales, const float* r,
                const float* inverse, int64_t n, int64_t begin, int64_t end, float* sums,
                float* errors, uint8_t* codes);

// What columns begin .. end - 1 would best be if nothing rounded them, once those before begin
// are: target[j - begin] = w[j] - e_j with e_j = -(sums[j] + sum_{begin <= i < j} e_i r[i][j]) *
// inverse[j]. At most 128 columns; sums are only read. On the calling thread.
void PredictBlock(const float* w, const float* r, const float* inverse, int64_t n, int64_t begin,
                  int64_t end, const float* sums, float* target);

}  // namespace nibble
