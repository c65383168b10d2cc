// SPDX-License-Identifier: Apache-2.0
//
// Weights of any format times activations held as F32 values (F32, A16, A8F).
//
//        activations x [rows][K]            panel: K columns x 16 lanes (tile.h)
//        x[m][k] broadcast to 16 lanes  *   W[k][n .. n+15] decoded in registers
//                                       ->  acc[m][n .. n+15]
//
// Few rows (decode): each weight byte is read once and decoded straight into the
// multiply-adds of all rows (six-bit codes with AVX-512 VBMI: gemm_sixbit-inl.h); four accumulators a row hide the latency of the FMA, and one
// multiply by the group's scales ends a segment. Many rows (prefill): a block of up to
// 256 columns of both panels is decoded once, scales folded in, into 32 KiB of scratch,
// which then serves every row through a register tile of 12 (6 with 16 registers) rows by
// two vectors.
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
#include "hwy/cache_control.h"
#include "kernels-cpu/gemm/gemm_kernels.h"
#include "kernels-cpu/gemm/gemm_sixbit-inl.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {  // the same names in other files are other functions

// Bytes that the stream of weights is fetched ahead: some 100 ns at 15 GB/s.
constexpr int64_t kPrefetchBytes = 1536;

HWY_INLINE VF SegmentScales(const WeightFormat& format, const Segment& s, const uint8_t* panel,
                            size_t lane) {
  return format.scale == DType::kNone ? hn::Set(TileF(), 1.0f)
                                      : LoadScales(format.scale, panel + s.scales_offset, lane);
}

// ---- few rows ----

template <DType kType, int kRows>
HWY_INLINE void FewRowsSegment(const TileDecoder<kType>& decoder, const WeightFormat& format,
                               const Segment& s, const uint8_t* panel, const float* x,
                               float* acc) {
  const TileF df;
  for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(df)) {
    VF a0[kRows], a1[kRows], a2[kRows], a3[kRows];
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) a0[r] = a1[r] = a2[r] = a3[r] = hn::Zero(df);
    for (int64_t k = 0; k < s.columns; k += kTileColumns) {
      const uint8_t* chunk = panel + s.codes_offset + TileBytes(kType, k);
      for (int64_t b = 0; b < TileBytes(kType, kTileColumns); b += 64) {
        hwy::Prefetch(chunk + kPrefetchBytes + b);
      }
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
#if NIBBLE_SIX_BIT_LOOKUP
  if constexpr (IsSixBit(kType)) return SixBitFewRows<kType, kRows>(m, panels, input, acc);
#endif
  const TileDecoder<kType> decoder;
  for (int64_t p = 0; p < panels.count; ++p) {
    for (const Segment& s : m.segments) {
      FewRowsSegment<kType, kRows>(decoder, m.format, s, m.panel(panels.index[p]), input.values,
                                   acc + p * kPanelRows);
    }
  }
}

// ---- many rows ----

// Scaled weights of one segment, [columns][16].
template <DType kType>
void DecodeSegment(const WeightFormat& format, const Segment& s, const uint8_t* panel,
                   float* out) {
  const TileF df;
  const TileDecoder<kType> decoder;
  for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(df)) {
    const VF scale = SegmentScales(format, s, panel, lane);
    for (int64_t k = 0; k < s.columns; k += kTileColumns) {
      float* to = out + k * kTileLanes + lane;
      decoder.Chunk(panel + s.codes_offset + TileBytes(kType, k), lane,
                    [&](size_t i, VF w) HWY_ATTR {
                      hn::Store(hn::Mul(w, scale), df, to + i * kTileLanes);
                    });
    }
  }
}

// acc[r][0..1] += x[r][k] * w[k] for two vectors of columns; w0 and w1 step by 16 floats,
// x by the rows of its tile.
template <int kRows>
HWY_INLINE void RegisterTile(const float* HWY_RESTRICT w0, const float* HWY_RESTRICT w1,
                             int64_t columns, const float* HWY_RESTRICT x, int64_t x_step,
                             float* HWY_RESTRICT acc0, float* HWY_RESTRICT acc1) {
  const TileF df;
  VF a[kRows], b[kRows];
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    a[r] = hn::LoadU(df, acc0 + r * kUnitColumns);
    b[r] = hn::LoadU(df, acc1 + r * kUnitColumns);
  }
  for (int64_t k = 0; k < columns; ++k, x += x_step) {
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
};

// kRows rows from `first` on, times the pairs of vectors that make up two panels of 16 lanes.
template <int kRows>
void TileColumns(const FloatTile& t, int64_t first) {
  const size_t lanes = hn::Lanes(TileF());
  const float* x = t.x + first;
  float* acc = t.acc + first * kUnitColumns;
  if (lanes == kTileLanes) {
    RegisterTile<kRows>(t.w[0], t.w[1], t.columns, x, t.rows, acc, acc + kPanelRows);
    return;
  }
  for (int p = 0; p < 2; ++p, acc += kPanelRows) {
    for (size_t lane = 0; lane < kTileLanes; lane += 2 * lanes) {
      const float* w = t.w[p] + lane;
      RegisterTile<kRows>(w, w + lanes, t.columns, x, t.rows, acc + lane, acc + lane + lanes);
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

// Rows of the destination to ask for a tile: tiles are few where K is one segment.
constexpr int kAskedATile = 2;

template <DType kType>
void ManyRows(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input,
              int64_t row, int64_t rows, const Destination& destination, uint8_t* scratch,
              float* acc) {
  float* const w = reinterpret_cast<float*>(scratch);
  std::fill(acc, acc + rows * kUnitColumns, 0.0f);
  FloatTile t;
  int64_t asked = 0;
  for (int64_t pair = 0; pair < panels.count; pair += 2) {
    const int64_t count = std::min<int64_t>(2, panels.count - pair);
    t.w[0] = w;
    t.w[1] = w + (count - 1) * kMaxSegment * kPanelRows;
    for (size_t i = 0; i < m.segments.size();) {
      const int64_t column = m.segments[i].column;
      t.columns = 0;
      while (i < m.segments.size() && t.columns + m.segments[i].columns <= kMaxSegment) {
        const Segment& s = m.segments[i++];
        for (int64_t p = 0; p < count; ++p) {
          DecodeSegment<kType>(m.format, s, m.panel(panels.index[pair + p]),
                               w + (p * kMaxSegment + t.columns) * kPanelRows);
        }
        t.columns += s.columns;
      }
      for (int64_t r = 0; r < rows; r += kTileLines) {
        const int64_t tile = (row + r) / kTileLines;
        t.rows = input.RowsOf(tile);
        t.x = input.values + tile * kTileLines * input.stride + column * t.rows;
        t.acc = acc + r * kUnitColumns + pair * kPanelRows;
        for (int64_t i = 0; i < kAskedATile && asked < rows; ++i) destination.Prefetch(asked++);
        for (int64_t first = 0; first < t.rows; first += kTileRows) {
          TileRows<kTileRows>(t, first, std::min<int64_t>(kTileRows, t.rows - first));
        }
      }
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
    default: return ManyRows<kType>(m, panels, input, row, rows, destination, scratch, acc);
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
