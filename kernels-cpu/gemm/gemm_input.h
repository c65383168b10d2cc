// SPDX-License-Identifier: Apache-2.0
//
// Activations made ready for the kernels: normalized, rounded to the activation type,
// padded with zeros to the 16 columns of a tile, and laid out for the kernel that reads
// them.
//
//   up to 4 rows   row after row, [rows][stride]
//   more           tiles of 12 rows, so that a register tile reads one sequential stream:
//                  F32 [tile][stride][12], codes [tile][stride / 4][12][4]
#pragma once

#include <cstdint>

#include "kernels-cpu/gemm/gemm.h"

namespace nibble {

// Rows up to which a kernel decodes weights in registers instead of into scratch.
inline constexpr int64_t kFewRows = 4;
// Rows of a tile of activations: with two vectors of outputs each, 24 accumulators, two
// weights and a broadcast fit the 32 registers of AVX-512 and NEON; other targets take the
// tile in halves.
inline constexpr int64_t kInputTileRows = 12;

// Lives in the workspace's shared scratch.
struct PreparedInput {
  int64_t rows = 0;
  int64_t stride = 0;             // columns of a row: cols padded to 16, and more
  const float* scales = nullptr;  // [rows], what to multiply a finished sum with
  const float* values = nullptr;  // F32, A16 and A8F: the rounded values, not yet scaled
  const int8_t* codes = nullptr;  // A8I
  // A8I: sums of a row's codes before each multiple of 16 columns, so that the sum of any
  // segment is one subtraction; it corrects for weights that are stored with an offset.
  // Modulo 2^32, which a difference of neighbours does not notice.
  const uint32_t* sums = nullptr;

  // stride / 16 + 1 of them.
  const uint32_t* RowSums(int64_t row) const { return sums + row * (stride / 16 + 1); }

  // More than kFewRows rows: where row `row` has its first value of column `column` (a
  // multiple of 4 for codes); the next column is kInputTileRows values on.
  const float* TiledValues(int64_t row, int64_t column) const {
    return values + (row / kInputTileRows * stride + column) * kInputTileRows + row % kInputTileRows;
  }
  const int8_t* TiledCodes(int64_t row, int64_t column) const {
    return codes + (row / kInputTileRows * stride + column) * kInputTileRows +
           row % kInputTileRows * 4;
  }
};

// rows [begin, begin + count) of input. Throws std::bad_alloc.
PreparedInput PrepareInput(Workspace& workspace, const GemmInput& input, int64_t begin,
                           int64_t count);

}  // namespace nibble
