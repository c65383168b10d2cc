// SPDX-License-Identifier: Apache-2.0
//
// Activations made ready for the kernels: normalized, rounded to the activation type,
// padded with zeros to the 16 columns of a tile, and laid out so that a register tile
// reads one sequential stream.
//
//   lines   a row of values is one line; as bytes, A8I is one line of codes and A8F two,
//           the high and the low digits of its values (e4m3_digits.h): lines 2r and 2r + 1;
//           as words, A8F is one line of 256 times the high digit plus the low
//   tiles   of at most 12 lines each, or one of up to 24 of bytes, R of them, the last with
//           what is left:
//             F32    [tile][stride][R]
//             quads  of F32, [tile][stride / 4][R][4], columns of a quad in the order 0 2 1 3,
//                    which is how pairs of 16-bit weights come apart (gemm_sixbit.cc); F32 of at
//                    most 4 rows in all lies so too
//             bytes  [tile][stride / 4][R][4]
//             words  [tile][stride / 4][R][4]
//             BF16   [tile][stride / 2][R][2]
#pragma once

#include <cstdint>

#include "kernels-cpu/gemm/e4m3_digits.h"
#include "kernels-cpu/gemm/gemm.h"

namespace nibble {

// The most lines of a tile: with two vectors of outputs each, 24 accumulators, two weights and a
// broadcast fit the 32 registers of AVX-512 and NEON; other targets take a tile in halves.
inline constexpr int64_t kTileLines = 12;
// Lines of bytes up to which they are one tile.
inline constexpr int64_t kMostTileLines = 24;
// Lines that are computed together (gemm.cc): 96 lines of 4096 bytes are 384 KiB, which stay in
// the second-level cache, and their sums with two panels 12 KiB.
inline constexpr int64_t kBlockLines = 8 * kTileLines;

// Tiles up to which a unit's weights are read as four streams, by the thread that owns them.
inline constexpr int64_t kFewTiles = 4;

// Rows of floats up to which weights are decoded in registers instead of into scratch.
inline constexpr int64_t kFewRows = 4;
// Where column k of a row lies in quads of so many rows, behind the row's first value.
inline constexpr int64_t FewRowsOffset(int64_t rows, int64_t k) {
  return k / 4 * 4 * rows + (k % 4 % 2 * 2 + k % 4 / 2);
}

// What the kernels multiply.
enum class Operand {
  kFloats,  // F32 values
  kQuads,   // the same for six-bit weights
  kBytes,   // integer dot products of bytes: A8I and A8F with weights that are integers
  kWords,   // integer dot products of 16-bit pairs: A8F with weights that are integers then
  kPairs,   // dot products of BF16 pairs: A16 and A8F, more than kFewRows rows
};

// A rest, of row `row` of its tile, and the sum of its four bytes.
struct RowRest {
  RestQuad quad;
  int32_t row;
  int32_t sum;
};

// Lives in the workspace's shared scratch.
struct PreparedInput {
  int64_t rows = 0;
  int64_t stride = 0;             // columns of a line: cols padded to 16, and more
  int64_t digits = 1;             // lines of a row
  int64_t tile_lines = kTileLines;  // of every tile but the last
  const float* scales = nullptr;  // [rows], what to multiply a finished sum with
  float unit = 1;                 // and what else: a power of two

  const float* values = nullptr;  // kFloats, kQuads: the rounded values, not yet scaled
  const uint16_t* pairs = nullptr;  // kPairs: the same as BF16
  const int8_t* codes = nullptr;    // kBytes
  const int16_t* words = nullptr;   // kWords
  // kBytes, [tile][stride / 16 + 1][R]: sums of a line's codes before each multiple of 16
  // columns, so that the sum of any segment is one subtraction; it corrects for weights
  // that are stored with an offset. Wraps, which a difference of neighbours does not notice.
  // 64 bytes behind the last may be read.
  const int32_t* sums = nullptr;
  // A8F as bytes and words: the rests of tile t, by their columns, are rests[t * most_rests() + i],
  // and rest_counts[t * blocks() + b] of them lie before column 16 b.
  const RowRest* rests = nullptr;
  const uint32_t* rest_counts = nullptr;

  int64_t blocks() const { return stride / 16 + 1; }
  int64_t most_rests() const { return tile_rows() * (stride / 4); }
  int64_t lines() const { return rows * digits; }
  // Whether the lines are so few that reading the weights takes a good part of the time.
  bool few() const { return tiles() <= kFewTiles; }
  int64_t tile_rows() const { return tile_lines / digits; }
  int64_t tiles() const { return DivUp(rows, tile_rows()); }
  // Rows of tile t.
  int64_t RowsOf(int64_t t) const {
    return rows - t * tile_rows() < tile_rows() ? rows - t * tile_rows() : tile_rows();
  }
};

// rows [begin, begin + count) of input. Rows of one block share its tiles evenly: 8 + 8 lines
// keep the multipliers busier than 12 + 4. Throws std::bad_alloc.
PreparedInput PrepareInput(Workspace& workspace, const GemmInput& input, Operand operand,
                           int64_t begin, int64_t count);

}  // namespace nibble
