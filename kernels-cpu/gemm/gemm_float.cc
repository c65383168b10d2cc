// SPDX-License-Identifier: Apache-2.0
//
// Weights of any format times activations held as F32 values (F32, A16, A8F).
//
//        activations x [rows][K]            panel: K columns x 16 lanes (tile.h)
//        x[m][k] broadcast to 16 lanes  *   W[k][n .. n+15] decoded in registers
//                                       ->  acc[m][n .. n+15]
//
// Up to 4 rows: each weight byte is read once and decoded straight into the multiply-adds of
// all rows; four accumulators a row hide the latency of the FMA, and one multiply by the
// group's scales ends a segment. More rows: a block of columns of two panels is decoded once,
// scales folded in, into scratch, which then serves every row through a register tile of 12 (6
// with 16 registers) rows by two vectors. A block has up to 256 columns, 32 KiB of scratch; or
// 64 while the weights of four streams come from memory, for which it leaves the first-level
// cache some room.
//
// Precision. Every operand is exact in F32: codes have at most 11 significant bits, A8F
// values 4, A16 values 8. An I4 code times an E4M3 or power-of-two scale is exact as well
// (3 + 4 bits), and its product with an A8F value too (11 bits), so that only the sum
// rounds; with other scales the scaled weight rounds once. Sums of K terms in F32 in a
// fixed order err by at most (K + 2) * 2^-24 * sum|terms|. Nothing overflows that would
// not overflow in the reference: |q * s| <= 448 * 7.
#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/gemm/gemm_float.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/gemm/gemm_kernels.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {  // the same names in other files are other functions

HWY_INLINE VF SegmentScales(const WeightFormat& format, const Segment& s, const uint8_t* panel,
                            size_t lane) {
  return format.scale == DType::kNone ? hn::Set(TileF(), 1.0f)
                                      : LoadScales(format.scale, panel + s.scales_offset, lane);
}

// ---- few rows ----

template <DType kType, int kRows>
HWY_INLINE void FewRowsSegment(const TileDecoder<kType>& decoder, const WeightFormat& format,
                               const Segment& s, const uint8_t* panel, const float* x,
                               WeightsAhead* ahead, float* acc) {
  const TileF df;
  for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(df)) {
    VF a0[kRows], a1[kRows], a2[kRows], a3[kRows];
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) a0[r] = a1[r] = a2[r] = a3[r] = hn::Zero(df);
    for (int64_t k = 0; k < s.columns; k += kTileColumns) {
      const uint8_t* chunk = panel + s.codes_offset + TileBytes(kType, k);
      ahead->Step();
      const float* xk = x + (s.column + k) * kRows;
      decoder.Chunk(chunk, lane, [&](size_t i, VF w) HWY_ATTR {
        NIBBLE_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const VF v = hn::Set(df, xk[4 * r + FewRowsOffset(kRows, i)]);
          VF& a = i % 4 == 0 ? a0[r] : i % 4 == 1 ? a1[r] : i % 4 == 2 ? a2[r] : a3[r];
          a = hn::MulAdd(w, v, a);
        }
      });
    }
    const VF scale = SegmentScales(format, s, panel, lane);
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      float* to = acc + r * kUnitColumns + lane;
      const VF sum = hn::Add(hn::Add(a0[r], a1[r]), hn::Add(a2[r], a3[r]));
      hn::StoreU(hn::MulAdd(sum, scale, hn::LoadU(df, to)), df, to);
    }
  }
}

template <DType kType, int kRows>
void FewRows(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input,
             float* acc) {
  std::fill(acc, acc + kRows * kUnitColumns, 0.0f);
  const TileDecoder<kType> decoder;
  const int64_t vectors = panels.count * static_cast<int64_t>(kTileLanes / hn::Lanes(TileF()));
  WeightsAhead ahead(m, panels, 0, panels.count, kMaxSegment, vectors);
  for (const Segment& s : m.segments) {  // of the four streams in turn
    for (int64_t p = 0; p < panels.count; ++p) {
      FewRowsSegment<kType, kRows>(decoder, m.format, s, m.panel(panels.index[p]), input.values,
                                   &ahead, acc + p * kPanelRows);
    }
  }
}

// ---- more rows ----

// Where a block of columns begins: `skipped` columns into a segment.
struct BlockBegin {
  size_t segment;
  int64_t skipped;
};

// Scaled weights of the columns [first, last) of one segment, [last - first][16].
template <DType kType>
void DecodeSegment(const WeightFormat& format, const Segment& s, int64_t first, int64_t last,
                   const uint8_t* panel, float* out) {
  const TileF df;
  const TileDecoder<kType> decoder;
  const bool scaled = format.scale != DType::kNone;
  for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(df)) {
    const VF scale = SegmentScales(format, s, panel, lane);
    for (int64_t k = first; k < last; k += kTileColumns) {
      float* to = out + (k - first) * kTileLanes + lane;
      decoder.Chunk(panel + s.codes_offset + TileBytes(kType, k), lane,
                    [&](size_t i, VF w) HWY_ATTR {
                      hn::Store(scaled ? hn::Mul(w, scale) : w, df, to + i * kTileLanes);
                    });
    }
  }
}

// Scaled weights of up to `most` columns of a panel from *at on; returns how many, and moves *at
// behind them.
template <DType kType>
int64_t DecodeBlock(const PackedMatrix& m, int64_t most, const uint8_t* panel, BlockBegin* at,
                    float* out) {
  int64_t columns = 0;
  while (at->segment < m.segments.size() && columns < most) {
    const Segment& s = m.segments[at->segment];
    const int64_t last = std::min<int64_t>(s.columns, at->skipped + most - columns);
    DecodeSegment<kType>(m.format, s, at->skipped, last, panel, out + columns * kPanelRows);
    columns += last - at->skipped;
    *at = last == s.columns ? BlockBegin{at->segment + 1, 0} : BlockBegin{at->segment, last};
  }
  return columns;
}

// acc[r][0..1] += x[r][k] * w[k] for two vectors of columns; w0 and w1 step by 16 floats,
// x by the rows of its tile.
template <int kRows>
HWY_INLINE void RegisterTile(const float* HWY_RESTRICT w0, const float* HWY_RESTRICT w1,
                             int64_t columns, const float* HWY_RESTRICT x, int64_t x_step,
                             float* HWY_RESTRICT acc0, float* HWY_RESTRICT acc1,
                             WeightsAhead* ahead) {
  const TileF df;
  VF a[kRows], b[kRows];
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    a[r] = hn::LoadU(df, acc0 + r * kUnitColumns);
    b[r] = hn::LoadU(df, acc1 + r * kUnitColumns);
  }
  for (int64_t k = 0; k < columns; ++k, x += x_step) {
    if (k % kTileColumns == 0) ahead->Step();
    const VF u = hn::Load(df, w0 + k * kTileLanes);
    const VF v = hn::Load(df, w1 + k * kTileLanes);
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const VF xv = hn::Set(df, x[r]);
      a[r] = hn::MulAdd(u, xv, a[r]);
      b[r] = hn::MulAdd(v, xv, b[r]);
    }
  }
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    hn::StoreU(a[r], df, acc0 + r * kUnitColumns);
    hn::StoreU(b[r], df, acc1 + r * kUnitColumns);
  }
}

// Rows of a register tile: all of an input tile, or half where there are 16 registers.
constexpr int kTileRows = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64 ? 12 : 6;
static_assert(kTileLines % kTileRows == 0, "a register tile lies within an input tile");

// Decoded weights of two panels, and a tile of activations.
struct FloatTile {
  const float* w[2];  // [columns][16]
  int64_t columns;
  const float* x;  // [columns][rows]
  int64_t rows;
  float* acc;
  WeightsAhead* ahead;
};

// kRows rows from `first` on, times the pairs of vectors that make up two panels of 16 lanes.
template <int kRows>
void TileColumns(const FloatTile& t, int64_t first) {
  const size_t lanes = hn::Lanes(TileF());
  const float* x = t.x + first;
  float* acc = t.acc + first * kUnitColumns;
  if (lanes == kTileLanes) {
    RegisterTile<kRows>(t.w[0], t.w[1], t.columns, x, t.rows, acc, acc + kPanelRows, t.ahead);
    return;
  }
  for (int p = 0; p < 2; ++p, acc += kPanelRows) {
    for (size_t lane = 0; lane < kTileLanes; lane += 2 * lanes) {
      const float* w = t.w[p] + lane;
      RegisterTile<kRows>(w, w + lanes, t.columns, x, t.rows, acc + lane, acc + lane + lanes,
                          t.ahead);
    }
  }
}

template <int kRows>
void TileRows(const FloatTile& t, int64_t first, int64_t rows) {
  if (rows == kRows) {
    TileColumns<kRows>(t, first);
  } else if constexpr (kRows > 1) {
    TileRows<kRows - 1>(t, first, rows);
  }
}

// Passes over two panels for a tile of so many rows.
int64_t Passes(int64_t rows) {
  const size_t lanes = hn::Lanes(TileF());
  const int64_t pairs = lanes == kTileLanes ? 1 : static_cast<int64_t>(kTileLanes / lanes);
  return DivUp(rows, kTileRows) * pairs;
}

// A pair of panels of a unit, and the tiles that it meets.
struct PairOfPanels {
  const PackedMatrix& m;
  const PanelSet& panels;
  const PreparedInput& input;
  int64_t pair, first_tile, tiles;
  float* scratch;  // two blocks
  float* acc;      // of the unit
};

// acc += the columns of a pair of panels from `at` on, up to `most`, times all tiles. Returns
// where the next block begins.
template <DType kType>
BlockBegin AddBlock(const PairOfPanels& a, BlockBegin at, int64_t most, WeightsAhead* ahead) {
  const int64_t count = std::min<int64_t>(2, a.panels.count - a.pair);
  const int64_t column = a.m.segments[at.segment].column + at.skipped;
  BlockBegin next{};
  FloatTile t;
  t.ahead = ahead;
  for (int64_t p = 0; p < count; ++p) {
    next = at;
    float* w = a.scratch + p * most * kPanelRows;
    t.columns = DecodeBlock<kType>(a.m, most, a.m.panel(a.panels.index[a.pair + p]), &next, w);
  }
  t.w[0] = a.scratch;
  t.w[1] = a.scratch + (count - 1) * most * kPanelRows;
  for (int64_t i = 0; i < a.tiles; ++i) {
    const int64_t tile = a.first_tile + i;
    t.rows = a.input.RowsOf(tile);
    t.x = a.input.values + tile * a.input.tile_lines * a.input.stride + column * t.rows;
    t.acc = a.acc + i * a.input.tile_rows() * kUnitColumns + a.pair * kPanelRows;
    for (int64_t first = 0; first < t.rows; first += kTileRows) {
      TileRows<kTileRows>(t, first, std::min<int64_t>(kTileRows, t.rows - first));
    }
  }
  return next;
}

constexpr int64_t kFewRowsBlock = 64;  // columns

template <DType kType>
void MoreRows(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input,
              int64_t row, int64_t rows, const Destination& destination, uint8_t* scratch,
              float* acc) {
  std::fill(acc, acc + rows * kUnitColumns, 0.0f);
  const int64_t first_tile = row / input.tile_rows();
  const int64_t tiles = DivUp(rows, input.tile_rows());
  const int64_t passes = tiles * Passes(input.RowsOf(first_tile));
  PairOfPanels a = {m, panels, input, 0, first_tile, tiles, reinterpret_cast<float*>(scratch),
                    acc};
  const BlockBegin begin = {0, 0};
  if (input.few()) {  // blocks of the four streams in turn
    WeightsAhead ahead(m, panels, 0, panels.count, kFewRowsBlock, DivUp(panels.count, 2) * passes);
    for (BlockBegin at = begin; at.segment < m.segments.size();) {
      BlockBegin next = at;
      for (a.pair = 0; a.pair < panels.count; a.pair += 2) {
        next = AddBlock<kType>(a, at, kFewRowsBlock, &ahead);
      }
      at = next;
    }
    return;
  }
  int64_t asked = 0;
  for (; a.pair < panels.count; a.pair += 2) {
    WeightsAhead ahead(m, panels, a.pair, std::min<int64_t>(2, panels.count - a.pair), kMaxSegment,
                       passes);
    for (BlockBegin at = begin; at.segment < m.segments.size();) {
      for (int64_t i = 0; i < 2 * tiles && asked < rows; ++i) destination.Prefetch(asked++);
      at = AddBlock<kType>(a, at, kMaxSegment, &ahead);
    }
  }
}

// ---- choice ----

template <DType kType>
void Unit(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input, int64_t row,
          int64_t rows, const Destination& destination, uint8_t* scratch, float* acc) {
  static_assert(kFewRows == 4, "one case a row count");
  switch (input.rows) {
    case 1: return FewRows<kType, 1>(m, panels, input, acc);
    case 2: return FewRows<kType, 2>(m, panels, input, acc);
    case 3: return FewRows<kType, 3>(m, panels, input, acc);
    case 4: return FewRows<kType, 4>(m, panels, input, acc);
    default: return MoreRows<kType>(m, panels, input, row, rows, destination, scratch, acc);
  }
}

}  // namespace

void FloatUnit(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input,
               int64_t row, int64_t rows, const Destination& destination, uint8_t* scratch,
               float* acc) {
  const auto unit = [&] {
    switch (m.format.code) {
      case DType::kI4: return &Unit<DType::kI4>;
      case DType::kI8: return &Unit<DType::kI8>;
      case DType::kE4M3: return &Unit<DType::kE4M3>;
      case DType::kE5M2: return &Unit<DType::kE5M2>;
      case DType::kE3M2: return &Unit<DType::kE3M2>;
      case DType::kE2M3: return &Unit<DType::kE2M3>;
      case DType::kBF16: return &Unit<DType::kBF16>;
      case DType::kF16: return &Unit<DType::kF16>;
      default: return &Unit<DType::kF32>;
    }
  }();
  unit(m, panels, input, row, rows, destination, scratch, acc);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(FloatUnit);
UnitKernel FloatUnitKernel() { return HWY_DYNAMIC_POINTER(FloatUnit); }
}  // namespace nibble
#endif
