// SPDX-License-Identifier: Apache-2.0
//
// Activations made ready for the kernels: normalized, rounded to the activation type and
// padded with zeros to the 16 columns of a tile.
#pragma once

#include <cstdint>

#include "kernels-cpu/gemm/gemm.h"

namespace nibble {

// Lives in the workspace's shared scratch.
struct PreparedInput {
  int64_t rows = 0;
  int64_t stride = 0;               // elements between rows: cols padded to 16, and more
  const float* scales = nullptr;    // [rows], what to multiply a finished sum with
  const float* values = nullptr;    // F32, A16 and A8F: the rounded values, not yet scaled
  const int8_t* codes = nullptr;    // A8I
  // A8I: sums of the codes over each 16 columns, [rows][stride / 16]; a segment's sum
  // corrects for weights that are stored with an offset.
  const int32_t* sums = nullptr;
};

// rows [begin, begin + count) of input. Throws std::bad_alloc.
PreparedInput PrepareInput(Workspace& workspace, const GemmInput& input, int64_t begin,
                           int64_t count);

}  // namespace nibble
