// SPDX-License-Identifier: Apache-2.0
//
// The packed layout of an I4 matrix W [N][K] for the tensor cores, the same for every generation
// and every type of activations.
//
//   matrix  = | codes | scales | factors |
//   codes   = tiles of 16 output rows x steps of 64 columns, 512 bytes each:
//               | tile 0: step 0 | step 1 | ... | tile 1: step 0 | ... |
//   step    = 16 bytes a lane, lane 0 first; a warp reads a step in one go of 512 bytes.
//             Lane l has group = l / 4 and member = l % 4, and its four words of eight codes are
//
//               word   output row       columns (in the step)
//                 0    2 group           8 member ..+7
//                 1    2 group + 1       8 member ..+7
//                 2    2 group           32 + 8 member ..+7
//                 3    2 group + 1       32 + 8 member ..+7
//
//             A word is four bytes of the canonical form: column 8 member + i in bits 4i..4i+3.
//   scales  = | tile 0: group 0 | group 1 | ... | tile 1: ... |, each 16 scales in their stored
//             type, one an output row
//   factors = F32: one a matrix (then three zeros), or 16 a tile, or none
//
// Why. Weights are the left operand of mma.m16n8kX (16 output rows against 8 tokens), so that a
// single token wastes tensor-core work but no loads. The rows of a fragment, `group` and
// `group + 8`, stand for output rows 2 group and 2 group + 1: a lane's results then lie side by
// side in memory. The order of columns inside one product is free, as long as both operands
// agree: a lane takes eight neighbouring ones of 32, which makes its share of a row of
// activations 8 bytes (E4M3, I8) or 16 (BF16) in a row, and holds for 8-bit (k32) as well as for
// 16-bit (two k16) instructions. No group of 32 or more columns is ever cut by an instruction.
//
// Padding, of the last tile to 16 rows and of a row to 64 columns, has codes 0 and scale bytes 0.
//
// Limits: any N and K from 1 to 2^31 - 1 whose bytes fit an int64_t.
#pragma once

#include <cstdint>

#include "kernels-cpu/numerics/types.h"

namespace nibble::cuda::gemm_i4f8 {

inline constexpr int kTileRows = 16;
inline constexpr int kStepColumns = 64;
inline constexpr int kStepBytes = kTileRows * kStepColumns / 2;

struct Layout {
  Layout(const WeightFormat& format, int64_t rows, int64_t cols)
      : tiles(DivUp(rows, kTileRows)),
        steps(DivUp(cols, kStepColumns)),
        groups(DivUp(steps * kStepColumns, format.Group(cols))),
        scale_bytes(format.ScaleBytes()),
        codes_bytes(tiles * steps * kStepBytes),
        scales_bytes(tiles * groups * kTileRows * scale_bytes),
        factors_bytes(format.HasMatrixFactor() ? 16
                      : format.HasRowFactors() ? tiles * kTileRows * 4
                                               : 0) {}

  int64_t scales_offset() const { return codes_bytes; }
  int64_t factors_offset() const { return codes_bytes + scales_bytes; }
  int64_t bytes() const { return codes_bytes + scales_bytes + factors_bytes; }

  int64_t tiles, steps;
  int64_t groups;       // that have a scale, those in the padding of the columns included
  int64_t scale_bytes;  // of one scale
  int64_t codes_bytes, scales_bytes, factors_bytes;
};

// Where the word of columns k .. k + 7 (k a multiple of 8) of output row n stands in the codes.
inline constexpr int64_t WordOffset(int64_t steps, int64_t n, int64_t k) {
  const int64_t lane = n % kTileRows / 2 * 4 + k % 32 / 8;
  const int64_t word = k % kStepColumns / 32 * 2 + n % 2;
  return (n / kTileRows * steps + k / kStepColumns) * kStepBytes + lane * 16 + word * 4;
}

}  // namespace nibble::cuda::gemm_i4f8
