// SPDX-License-Identifier: Apache-2.0
//
// Weights for inputs that have drifted. A quantized model's layer sees x where the original's sees
// y, since the layers before it are quantized too. Rounding W so that |(W - Q) x| is small keeps
// what W makes of x, drift included; what is wanted is W y. The matrix V that is best before
// anything is rounded,
//
//   min over V of  sum over tokens |W y - V x|^2 + d |W - V|^2
//     V = W + W (sum y x^T - sum x x^T) (sum x x^T + d)^-1
//
// takes back as much of the drift as is linear in x; compensation (calibrated_quantize.h) then
// rounds V for x. The asymmetric calibration of GPTAQ (arXiv 2504.02692), whose target this is,
// does both at once and approximately.
#pragma once

#include <cstdint>
#include <string>

#include "kernels-cpu/threads/workspace.h"

namespace nibble {

// moments += x^T y: [cols][cols], rows contiguous. x, y: [rows][cols], rows stride elements apart.
// Throws std::bad_alloc.
void AddCrossMoments(Workspace& workspace, const float* x, int64_t x_stride, const float* y,
                     int64_t y_stride, int64_t rows, int64_t cols, float* moments);

// w [rows][cols], rows stride apart, becomes V of the header. moments: sum x x^T; cross: sum x y^T
// (AddCrossMoments); damping: d as a share of the mean of moments' diagonal, more where the
// factorization needs it. Returns "", or what is wrong with the moments; w is then as it was. F32
// products over blocks of 128 columns: beside the solution's own condition the error of an element
// is some sqrt(cols) 2^-24 of its row's largest. Throws std::bad_alloc.
std::string CorrectDrift(Workspace& workspace, float* w, int64_t stride, int64_t rows,
                         int64_t cols, const float* moments, const float* cross, float damping);

}  // namespace nibble
