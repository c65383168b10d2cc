// SPDX-License-Identifier: Apache-2.0
//
// The packed layout of a weight matrix W [N][K] for the CPU kernels.
//
//   matrix   = panels of 16 output rows (the last padded with zero weights):
//   panel    = | group 0 | group 1 | ... |          one contiguous stream
//   group    = | 16 scales, one a row | codes |     (no scales when unquantized)
//   codes    = tile of 16 lanes x (group size rounded up to 16) columns, as drawn in
//              kernels-cpu/numerics/tile.h: lane = output row
//
// Why: a vector lane is an output row, so no horizontal sum is ever needed, a group's
// scales are one vector, and one activation is broadcast to 16 rows. A thread that owns
// a range of panels reads one sequential stream.
//
// Padding, of the last group to 16 columns and of the last panel to 16 rows, is made of
// codes whose value is zero. Groups are multiples of 16 columns, or the whole row. The
// factor (of the matrix, or of the row; 1 without) multiplies the finished sum.
//
// Limits: any N and K from 1 whose panel_bytes * panels fits an int64_t.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels-cpu/memory/buffer.h"
#include "kernels-cpu/numerics/types.h"
#include "kernels-cpu/threads/thread_pool.h"

namespace nibble {

inline constexpr int64_t kPanelRows = 16;

// Kernels walk a panel in segments: a group, or a slice of a long group. 256 columns keep
// a decoded segment of two panels in the first-level cache, and the integer sum of a
// segment below 256 * 255 * 128 < 2^23, exact in F32.
inline constexpr int64_t kMaxSegment = 256;

struct Segment {
  int64_t column;        // the first one
  int32_t columns;       // padded to a multiple of 16
  int32_t group;
  int64_t codes_offset;  // from the start of a panel
  int64_t scales_offset;
};

struct PackedMatrix {
  WeightFormat format;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t panel_bytes = 0;
  std::vector<Segment> segments;  // the same for every panel
  Buffer data;                    // panels() * panel_bytes
  Buffer factors;                 // F32, one for each row of every panel (0 for padding)

  int64_t panels() const { return DivUp(rows, kPanelRows); }
  int64_t padded_cols() const { return RoundUp(cols, 16); }
  const uint8_t* panel(int64_t p) const { return data.data() + p * panel_bytes; }
  const float* panel_factors(int64_t p) const { return factors.as<float>() + p * kPanelRows; }
  // What one pass of a kernel reads.
  int64_t packed_bytes() const {
    return panels() * (panel_bytes + kPanelRows * static_cast<int64_t>(sizeof(float)));
  }
};

// panel_bytes of a matrix of this format.
int64_t PanelBytes(const WeightFormat& format, int64_t cols);

// A matrix laid out, its memory all zero bits and not touched yet. Throws std::bad_alloc.
PackedMatrix AllocateMatrix(const WeightFormat& format, int64_t rows, int64_t cols);

// Packs canonical weights (already checked). Throws std::bad_alloc.
PackedMatrix PackMatrix(ThreadPool& pool, const WeightFormat& format, int64_t rows, int64_t cols,
                        const CanonicalWeights& weights);

// QuantizeWeights (numerics/quantize.h) and PackMatrix, a panel at a time: the canonical form
// of a panel stays in a cache. Returns "" and fills *matrix, or what QuantizeWeights returns
// and leaves *matrix alone. Throws std::bad_alloc.
std::string QuantizeAndPackMatrix(ThreadPool& pool, const WeightFormat& format, DType type,
                                  const void* weights, int64_t rows, int64_t cols, int64_t stride,
                                  PackedMatrix* matrix);

// The exact inverse.
void UnpackMatrix(ThreadPool& pool, const PackedMatrix& matrix, const CanonicalWeights& out);

// Row `row` of the matrix as F32 (embedding lookup, dequantization): cols values.
void DequantizeRow(const PackedMatrix& matrix, int64_t row, float* out);

}  // namespace nibble
