// SPDX-License-Identifier: Apache-2.0
//
// I4 and I8 weights times A8I activations: integer dot products (VNNI's vpdpbusd, or what
// Highway makes of it elsewhere).
//
//        x[m][k..k+3], four signed bytes, broadcast to 16 lanes
//     *  four unsigned bytes a lane: columns k..k+3 of weight rows n..n+15 (tile.h)
//     -> acc[m][n..n+15], 32-bit
//
// The instruction wants one unsigned operand, so weights are stored as q + 8 (I4) and
// q + 128 (I8), and an accumulator starts at -8 or -128 times the segment's sum of x
// instead of at 0.
//
// Overflow. A segment has at most 256 columns: |sum| <= 256 * 255 * 128 < 2^23, and with
// the correction < 2^24, exact in I32 and in F32. Only the product with the group's scale
// and the sum over segments round: error at most (segments + 2) * 2^-24 * sum|terms|.
#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/gemm/gemm_integer.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "hwy/cache_control.h"
#include "kernels-cpu/gemm/gemm_kernels.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {  // the same names in other files are other functions

using TileBytesU = hn::Repartition<uint8_t, TileF>;
using TileBytesI = hn::Repartition<int8_t, TileF>;
using VB = hn::Vec<TileBytesU>;
using VI = hn::Vec<TileI>;

constexpr int64_t kPrefetchBytes = 1536;
constexpr int64_t kStep = 64;  // bytes of a tile step

// Four activations for every lane.
HWY_INLINE hn::Vec<TileBytesI> Quad(const int8_t* x) {
  int32_t bits;
  std::memcpy(&bits, x, sizeof(bits));
  return hn::BitCast(TileBytesI(), hn::Set(TileI(), bits));
}

HWY_INLINE VI Dot(VB w, hn::Vec<TileBytesI> x, VI acc) {
  return hn::SumOfMulQuadAccumulate(TileI(), w, x, acc);
}

HWY_INLINE VB LowNibbles(VU word) {
  return hn::BitCast(TileBytesU(), hn::And(word, hn::Set(TileU(), 0x0F0F0F0Fu)));
}
HWY_INLINE VB HighNibbles(VU word) { return LowNibbles(hn::ShiftRight<4>(word)); }

// What an accumulator starts at: minus the weights' offset times the sum of the segment's
// activations.
template <DType kType>
HWY_INLINE int32_t Correction(const PreparedInput& input, int64_t row, const Segment& s) {
  const uint32_t* sums = input.RowSums(row) + s.column / 16;
  return -(kType == DType::kI4 ? 8 : 128) * static_cast<int32_t>(sums[s.columns / 16] - sums[0]);
}

// acc += scale * sum, for a vector of accumulators in memory.
HWY_INLINE void AddScaled(VF scale, VI sum, float* acc) {
  const TileF df;
  hn::StoreU(hn::MulAdd(hn::ConvertTo(df, sum), scale, hn::LoadU(df, acc)), df, acc);
}

// ---- few rows: codes go from memory through registers into the products ----

template <DType kType, int kRows>
HWY_INLINE void FewRowsSegment(const WeightFormat& format, const Segment& s, const uint8_t* panel,
                               const PreparedInput& input, int64_t row, float* acc) {
  const TileI di;
  const int64_t stride = input.stride;
  const int8_t* x = input.codes + row * stride + s.column;
  for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(di)) {
    VI a[kRows], b[kRows];
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      a[r] = hn::Set(di, Correction<kType>(input, row + r, s));
      b[r] = hn::Zero(di);
    }
    const uint8_t* step = panel + s.codes_offset;
    for (int64_t k = 0; k < s.columns; k += 8) {  // one step of I4, two of I8
      hwy::Prefetch(step + kPrefetchBytes);
      VB first, second;
      if constexpr (kType == DType::kI4) {
        const VU word = LoadWords(step, lane);
        first = LowNibbles(word);
        second = HighNibbles(word);
        step += kStep;
      } else {
        hwy::Prefetch(step + kPrefetchBytes + kStep);
        first = hn::BitCast(TileBytesU(), LoadWords(step, lane));
        second = hn::BitCast(TileBytesU(), LoadWords(step + kStep, lane));
        step += 2 * kStep;
      }
      NIBBLE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        a[r] = Dot(first, Quad(x + r * stride + k), a[r]);
        b[r] = Dot(second, Quad(x + r * stride + k + 4), b[r]);
      }
    }
    const VF scale = LoadScales(format.scale, panel + s.scales_offset, lane);
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      AddScaled(scale, hn::Add(a[r], b[r]), acc + r * kUnitColumns + lane);
    }
  }
}

template <DType kType, int kRows>
void FewRows(const PackedMatrix& m, int64_t panel, int64_t panels, const PreparedInput& input,
             int64_t row, float* acc) {
  std::fill(acc, acc + kRows * kUnitColumns, 0.0f);
  for (int64_t p = 0; p < panels; ++p) {
    for (const Segment& s : m.segments) {
      FewRowsSegment<kType, kRows>(m.format, s, m.panel(panel + p), input, row,
                                   acc + p * kPanelRows);
    }
  }
}

// ---- many rows: bytes of a segment, decoded once, serve every row ----

// [columns / 4][16 lanes][4] unsigned bytes of a segment: I8 as it stands, I4 spread out.
template <DType kType>
const uint8_t* SegmentBytes(const Segment& s, const uint8_t* panel, uint8_t* scratch) {
  const uint8_t* step = panel + s.codes_offset;
  if constexpr (kType == DType::kI8) return step;
  const TileBytesU d8;
  uint8_t* to = scratch;
  for (int64_t k = 0; k < s.columns; k += 8, step += kStep, to += 2 * kStep) {
    for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(TileI())) {
      const VU word = LoadWords(step, lane);
      hn::StoreU(LowNibbles(word), d8, to + 4 * lane);
      hn::StoreU(HighNibbles(word), d8, to + kStep + 4 * lane);
    }
  }
  return scratch;
}

// One segment, kRows rows, two vectors of lanes: lane0 of panel0 and lane1 of panel1.
template <DType kType, int kRows>
HWY_INLINE void RegisterTile(const WeightFormat& format, const Segment& s, const uint8_t* panel0,
                             const uint8_t* panel1, const uint8_t* w0, const uint8_t* w1,
                             size_t lane0, size_t lane1, const PreparedInput& input, int64_t row,
                             float* acc0, float* acc1) {
  const TileI di;
  const TileBytesU d8;
  const int8_t* x = input.TiledCodes(row, s.column);
  VI a[kRows], b[kRows];
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) a[r] = b[r] = hn::Set(di, Correction<kType>(input, row + r, s));
  for (int64_t k = 0; k < s.columns; k += 4) {
    const VB u = hn::LoadU(d8, w0 + k * 16 + 4 * lane0);
    const VB v = hn::LoadU(d8, w1 + k * 16 + 4 * lane1);
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const auto xv = Quad(x + k * kInputTileRows + 4 * r);
      a[r] = Dot(u, xv, a[r]);
      b[r] = Dot(v, xv, b[r]);
    }
  }
  const VF scale0 = LoadScales(format.scale, panel0 + s.scales_offset, lane0);
  const VF scale1 = LoadScales(format.scale, panel1 + s.scales_offset, lane1);
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    AddScaled(scale0, a[r], acc0 + r * kUnitColumns);
    AddScaled(scale1, b[r], acc1 + r * kUnitColumns);
  }
}

constexpr int kTileRows = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64 ? 12 : 6;
static_assert(kInputTileRows % kTileRows == 0, "a register tile lies within an input tile");

template <DType kType, int kRows>
void TileColumns(const WeightFormat& format, const Segment& s, const uint8_t* const* panels,
                 const uint8_t* const* w, const PreparedInput& input, int64_t row, float* acc) {
  const size_t lanes = hn::Lanes(TileI());
  if (lanes == kTileLanes) {
    RegisterTile<kType, kRows>(format, s, panels[0], panels[1], w[0], w[1], 0, 0, input, row, acc,
                               acc + kPanelRows);
    return;
  }
  for (int p = 0; p < 2; ++p) {
    for (size_t lane = 0; lane < kTileLanes; lane += 2 * lanes) {
      float* to = acc + p * kPanelRows + lane;
      RegisterTile<kType, kRows>(format, s, panels[p], panels[p], w[p], w[p], lane, lane + lanes,
                                 input, row, to, to + lanes);
    }
  }
}

template <DType kType, int kRows>
void LastRows(int64_t rows, const WeightFormat& format, const Segment& s,
              const uint8_t* const* panels, const uint8_t* const* w, const PreparedInput& input,
              int64_t row, float* acc) {
  if (rows == kRows) {
    TileColumns<kType, kRows>(format, s, panels, w, input, row, acc);
  } else if constexpr (kRows > 1) {
    LastRows<kType, kRows - 1>(rows, format, s, panels, w, input, row, acc);
  }
}

template <DType kType>
void ManyRows(const PackedMatrix& m, int64_t panel, int64_t count, const PreparedInput& input,
              int64_t row, int64_t rows, uint8_t* scratch, float* acc) {
  std::fill(acc, acc + rows * kUnitColumns, 0.0f);
  const uint8_t* panels[2] = {m.panel(panel), m.panel(panel + count - 1)};
  for (const Segment& s : m.segments) {
    const uint8_t* w[2];
    w[0] = SegmentBytes<kType>(s, panels[0], scratch);
    w[1] = count == 1 ? w[0]
                      : SegmentBytes<kType>(s, panels[1], scratch + kMaxSegment * kPanelRows);
    int64_t r = 0;
    for (; r + kTileRows <= rows; r += kTileRows) {
      TileColumns<kType, kTileRows>(m.format, s, panels, w, input, row + r,
                                    acc + r * kUnitColumns);
    }
    LastRows<kType, kTileRows - 1>(rows - r, m.format, s, panels, w, input, row + r,
                                   acc + r * kUnitColumns);
  }
}

// ---- choice ----

template <DType kType>
void Unit(const PackedMatrix& m, int64_t panel, int64_t panels, const PreparedInput& input,
          int64_t row, int64_t rows, uint8_t* scratch, float* acc) {
  switch (rows) {
    case 1: return FewRows<kType, 1>(m, panel, panels, input, row, acc);
    case 2: return FewRows<kType, 2>(m, panel, panels, input, row, acc);
    case 3: return FewRows<kType, 3>(m, panel, panels, input, row, acc);
    case 4: return FewRows<kType, 4>(m, panel, panels, input, row, acc);
    default: return ManyRows<kType>(m, panel, panels, input, row, rows, scratch, acc);
  }
}

}  // namespace

void IntegerUnit(const PackedMatrix& m, int64_t panel, int64_t panels, const PreparedInput& input,
                 int64_t row, int64_t rows, uint8_t* scratch, float* acc) {
  const auto unit = m.format.code == DType::kI4 ? &Unit<DType::kI4> : &Unit<DType::kI8>;
  unit(m, panel, panels, input, row, rows, scratch, acc);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(IntegerUnit);
UnitKernel IntegerUnitKernel() { return HWY_DYNAMIC_POINTER(IntegerUnit); }
}  // namespace nibble
#endif
