// SPDX-License-Identifier: Apache-2.0
//
// Quantization of the weights W [N][K] of a projection that knows its inputs x: it makes the
// error of the output, sum over calibration tokens of |(W - Q) x|^2, small, where round-to-nearest
// makes that of the weights small. Two parts, each on its own or together:
//
//   clipping       the group scales are searched: scale_search.h
//   compensation   columns are rounded one after the other, and each makes up for the errors of
//                  those before it, as GPTQ does (arXiv 2210.17323)
//
// Compensation. With H = sum x x^T + damping the error of a row e = w - q is e H e^T. Let
// H = R R^T with R upper triangular (the Cholesky factorization, last column first). Then
// e H e^T = sum_j (sum_{i <= j} e_i R_ij)^2, and column j, once those before it are fixed, is best
// rounded from
//
//   w_j + (sum_{i < j} e_i R_ij) / R_jj
//
// which is GPTQ's update by the inverse of H, without the inverse (the nearest-plane algorithm of
// Babai on the lattice of R). A group's scale is found when its turn comes, from what its columns
// would then best be if nothing rounded them (groups of more than 128 columns: from the weights as
// they are). R_jj^2 is the weight of column j's own error, and so what the search for that scale
// uses. The sums run in blocks of 128 columns: within a block row by row, between blocks as an F32
// product.
//
// Every code is that of the value divided by the scale that is stored, in F32.
#pragma once

#include <cstdint>
#include <string>

#include "kernels-cpu/numerics/types.h"
#include "kernels-cpu/threads/workspace.h"

namespace nibble {

struct CalibratedOptions {
  bool clipping = false;         // I4 only
  bool by_magnitude = false;     // compensation: columns with the largest second moments first
  float damping = 0.01f;         // added to the diagonal of moments: this share of its mean
  float matrix_factor = 0;       // I4 with E4M3 scales: 0 for round-to-nearest's
};

// w: F32 [rows][cols], rows stride apart; importance: [cols], not negative, or null for ones; used
// for clipping without compensation. moments: [cols][cols], symmetric, for compensation, or null.
// Writes every part of out that the (quantized) format has. Returns "", or what is wrong with the
// weights or the moments (NaN, infinity). Throws std::bad_alloc.
std::string QuantizeCalibrated(Workspace& workspace, const WeightFormat& format, const float* w,
                               int64_t stride, int64_t rows, int64_t cols,
                               const float* importance, const float* moments,
                               const CalibratedOptions& options, const CanonicalWeights& out);

}  // namespace nibble
