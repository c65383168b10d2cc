// SPDX-License-Identifier: Apache-2.0
//
// What gemm.cc needs of the SIMD kernels: the sums of some rows of activations with a few
// panels of weights, and what finishes them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "hwy/cache_control.h"
#include "kernels-cpu/gemm/gemm_input.h"
#include "kernels-cpu/gemm/packed_matrix.h"
#include "kernels-cpu/numerics/tile.h"

namespace nibble {

// A unit of work: four panels, 64 output columns. With few rows they are four streams, so
// that enough lines are on their way from memory; a hardware prefetcher follows each.
inline constexpr int64_t kUnitPanels = 4;
inline constexpr int64_t kUnitColumns = kUnitPanels * kPanelRows;

// Scratch of one thread: a decoded segment of two panels in F32, 64-byte aligned.
inline constexpr int64_t kUnitScratchBytes = 2 * kMaxSegment * kPanelRows * 4;

// Panels by their index, not necessarily neighbours; unused ones repeat the last.
struct PanelSet {
  int64_t index[kUnitPanels];
  int64_t count;  // 1 to kUnitPanels
};

// Asks for the weights of some panels ahead of their use, a line of each at a time and a little
// beside every chunk of 16 columns that is computed. A core waits for 16 lines at a time at most,
// so that a burst of requests stops it; and the hardware's own prefetching, which begins anew in
// every page, is lost on a stream that is read in bursts.
class WeightsAhead {
 public:
  // The panels from `first` on are read from their begin to their end, up to `columns` columns
  // of each in turn, in `passes` passes over all of them: Step is called once a chunk of columns
  // and pass.
  WeightsAhead(const PackedMatrix& m, const PanelSet& panels, int64_t first, int64_t streams,
               int64_t columns, int64_t passes)
      : streams_(streams),
        step_(m.panel_bytes * kFraction / (m.padded_cols() / 16 * passes) + 1) {
    const int64_t turn = m.segments[0].codes_offset + TileBytes(m.format.code, columns);
    asked_ = std::max<int64_t>(kLeastBytes, turn);
    due_ = asked_ * kFraction;
    for (int64_t i = 0; i < streams; ++i) stream_[i] = m.panel(panels.index[first + i]);
  }

  HWY_INLINE void Step() {
    due_ += step_;
    for (; asked_ * kFraction < due_; asked_ += 64) {
      for (int64_t i = 0; i < streams_; ++i) hwy::Prefetch(stream_[i] + asked_);
    }
  }

 private:
  static constexpr int64_t kLeastBytes = 1024;  // some 100 ns of one of 8 streams
  static constexpr int64_t kFraction = 256;

  const uint8_t* stream_[kUnitPanels];
  int64_t streams_;
  int64_t step_, due_;  // bytes * kFraction of each stream
  int64_t asked_;
};

// Where the finished sums of a unit will go: kUnitColumns values in each row. A kernel of
// many rows asks for them while it computes, so that the stores at the end do not wait for
// the lines that they replace. data: null to ask for nothing.
struct Destination {
  const float* data;
  int64_t stride;

  void Prefetch(int64_t row) const {
    if (data == nullptr) return;
    for (int64_t c = 0; c < kUnitColumns; c += 16) hwy::Prefetch(data + row * stride + c);
  }
};

// acc[r][16 i + c] = sum over k of input row (row + r) times weight row
// (panels.index[i] * 16 + c), group scales applied; token scale, units and factor not.
// acc: [rows][kUnitColumns]; columns behind the count are undefined. row: the first of a
// tile. Adds nothing to what was there.
using UnitKernel = void (*)(const PackedMatrix& matrix, const PanelSet& panels,
                            const PreparedInput& input, int64_t row, int64_t rows,
                            const Destination& destination, uint8_t* scratch, float* acc);

UnitKernel FloatUnitKernel();           // Operand::kFloats: every code type
UnitKernel IntegerUnitKernel();         // Operand::kBytes: I4, I8 and E2M3 codes
UnitKernel WordUnitKernel();            // Operand::kWords: E3M2; null where there is none
UnitKernel SixBitUnitKernel(DType code);  // Operand::kQuads: E3M2 and E2M3; null likewise
UnitKernel PairUnitKernel(DType code);  // Operand::kPairs; null where there is none

// What one unit of an integer code is worth: OperandFor's code types.
inline constexpr float CodeUnit(DType code) {
  return code == DType::kE3M2 ? 1.0f / 16 : code == DType::kE2M3 ? 1.0f / 8 : 1.0f;
}

// to[r][c] = acc[r][c] * unit * scales[r] * factors[c] (+ bias[c]) (+ residual[r][c]) for
// `columns` columns; in this order. bias and residual may be null; to may be acc.
struct FinishArguments {
  const float* acc;  // rows kUnitColumns apart
  int64_t rows, columns;
  float unit;
  const float* scales;
  const float* factors;
  const float* bias;
  const float* residual;
  int64_t residual_stride;
  float* to;
  int64_t to_stride;
};
void FinishRows(const FinishArguments& arguments);

}  // namespace nibble
