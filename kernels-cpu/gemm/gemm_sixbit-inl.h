// SPDX-License-Identifier: Apache-2.0
//
// Six-bit weights times rows of activations, with byte permutes (AVX-512 VBMI): what the F32
// kernel (gemm_sixbit.cc) and the integer one (gemm_words.cc) share. Included once per SIMD
// target.
//
//   a quad: 16 lanes x 4 columns of codes, a byte each (put together from the planes)
//     vpermb twice       the two bytes of 16 bits of each code: 64 lookups an instruction
//     vpunpck            16-bit values, lane by lane, in two halves
//                          low   rows 0 1 4 5 8 9 12 13:  c0 c1 c2 c3 | c0 c1 c2 c3 | ...
//                          high  the others
//
// Sums of columns 0, 1 and 2, 3 (integers) or 0, 2 and 1, 3 (F32) of the quads stand side by
// side; two permutes and an addition at the end of a segment put the rows in order.
//
//   few rows    codes go from memory through registers
//   more rows   a segment of a panel is decoded once, at most 16 KiB, and serves all tiles of
//               a panel x 12 rows: 24 sums

#if defined(NIBBLE_GEMM_SIXBIT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_GEMM_SIXBIT_INL_H_
#undef NIBBLE_GEMM_SIXBIT_INL_H_
#else
#define NIBBLE_GEMM_SIXBIT_INL_H_
#endif

#include <algorithm>
#include <cstring>

#include "kernels-cpu/gemm/gemm_kernels.h"
#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

#if NIBBLE_SIX_BIT_LOOKUP
HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {

using SixBitBytes = hn::Repartition<uint8_t, TileF>;
using VSixBit = hn::Vec<SixBitBytes>;

// The 16-bit values of a quad.
struct SixBitHalves {
  VU low, high;
};

// Tables of the two bytes of bits(code).
struct SixBitTables {
  VSixBit high, low;

  template <class Bits>
  explicit SixBitTables(const Bits& bits) {
    HWY_ALIGN uint8_t h[64], l[64];
    for (uint32_t code = 0; code < 64; ++code) {
      const uint16_t value = bits(code);
      h[code] = static_cast<uint8_t>(value >> 8);
      l[code] = static_cast<uint8_t>(value);
    }
    high = hn::Load(SixBitBytes(), h);
    low = hn::Load(SixBitBytes(), l);
  }

  // Columns 4 kQuad .. 4 kQuad + 3 of a chunk of 16.
  template <int kQuad>
  HWY_INLINE SixBitHalves Quad(const uint8_t* chunk) const {
    const TileU du;
    const VSixBit codes = SixBitQuad<kQuad>(chunk, 0);
    const VSixBit h = LookUpSixBits(high, codes), l = LookUpSixBits(low, codes);
    return {hn::BitCast(du, hn::InterleaveLower(SixBitBytes(), l, h)),
            hn::BitCast(du, hn::InterleaveUpper(SixBitBytes(), l, h))};
  }
};

// The 16 rows of a panel, in order, from the two halves.
HWY_INLINE VF SumSixBitHalves(VF half0, VF half1) {
  const TileF df;
  HWY_ALIGN static constexpr int32_t kEven[16] = {0, 2,  16, 18, 4,  6,  20, 22,
                                                  8, 10, 24, 26, 12, 14, 28, 30};
  HWY_ALIGN static constexpr int32_t kOdd[16] = {1, 3,  17, 19, 5,  7,  21, 23,
                                                 9, 11, 25, 27, 13, 15, 29, 31};
  return hn::Add(
      hn::TwoTablesLookupLanes(df, half0, half1, hn::SetTableIndices(df, kEven)),
      hn::TwoTablesLookupLanes(df, half0, half1, hn::SetTableIndices(df, kOdd)));
}

// One segment of a panel and one tile of rows. X: of the activations, [columns / 4][rows][4].
template <class X>
struct SixBitTile {
  const uint8_t* w;  // codes, or what they were decoded to
  VF scales;
  int64_t columns;
  const X* x;
  int64_t rows;
  float* acc;
  WeightsAhead* ahead;
};

// acc += scales times a sum of halves, for one row.
HWY_INLINE void AddSixBitSum(VF low, VF high, VF scales, float* acc) {
  const TileF df;
  const VF sum = SumSixBitHalves(low, high);
  hn::StoreU(hn::MulAdd(sum, scales, hn::LoadU(df, acc)), df, acc);
}

// The dense products of a tile of kRows rows. Each row and half of a quad has Chains(kRows) sums.
template <class Kernel, int kRows, class Source>
void MultiplySixBitTile(const Source& source, const SixBitTile<typename Kernel::X>& t) {
  using Sum = typename Kernel::Sum;
  constexpr int kChains = Kernel::Chains(kRows), kSums = 2 * kRows * kChains;
  Sum sum[kSums];
  NIBBLE_UNROLL
  for (int i = 0; i < kSums; ++i) sum[i] = hn::Zero(hn::DFromV<Sum>());
  const uint8_t* w = t.w;
  const auto* x = t.x;
  for (int64_t k = 0; k < t.columns; k += kTileColumns, x += 16 * kRows) {
    t.ahead->Step();
    Kernel::template AddQuad<0, kRows>(source, w, x, sum);
    Kernel::template AddQuad<1, kRows>(source, w, x + 4 * kRows, sum);
    Kernel::template AddQuad<2, kRows>(source, w, x + 8 * kRows, sum);
    Kernel::template AddQuad<3, kRows>(source, w, x + 12 * kRows, sum);
    w += Source::kChunkBytes;
  }
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    Sum low = sum[2 * r], high = sum[2 * r + 1];
    if constexpr (kChains == 2) {
      low = hn::Add(low, sum[2 * kRows + 2 * r]);
      high = hn::Add(high, sum[2 * kRows + 2 * r + 1]);
    }
    Kernel::AddSums(low, high, t.scales, t.acc + r * kUnitColumns);
  }
}

// MultiplySixBitTile for the rows that the tile has.
template <class Kernel, int kRows = kTileLines, class Source, class X>
HWY_INLINE void SixBitRows(const Source& source, const SixBitTile<X>& t) {
  if (t.rows == kRows) {
    MultiplySixBitTile<Kernel, kRows>(source, t);
  } else if constexpr (kRows > 1) {
    SixBitRows<Kernel, kRows - 1>(source, t);
  }
}

// The sums of a unit (gemm_kernels.h). Kernel has
//   Codes, Decoded        sources of quads: codes as they lie in a panel, decoded ones
//   kDirectRows           rows up to which codes are decoded in registers
//   X, Activations(input) the prepared activations
//   DecodeQuad<kQuad>(codes, chunk, scratch)              of a chunk of 16 columns
//   Sum, Chains(rows)     a vector of sums; how many of them for each row and half
//   AddQuad<kQuad, kRows>(source, w, x, sums)             four columns
//   AddSums(low, high, scales, acc)                       the halves' sums, scaled
//   AddRests(source, input, tile index, segment, tile)    and what these leave out
template <class Kernel>
class SixBitUnit {
 public:
  static void Run(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input,
                  int64_t row, int64_t rows, const Destination&, uint8_t* scratch, float* acc) {
    std::fill(acc, acc + rows * kUnitColumns, 0.0f);
    const SixBitUnit unit(m, panels, input, row, rows, scratch, acc);
    if (input.few()) {  // segments of all streams in turn
      WeightsAhead ahead(m, panels, 0, panels.count, m.segments[0].columns,
                         panels.count * unit.tiles_);
      for (const Segment& s : m.segments) {
        for (int64_t p = 0; p < panels.count; ++p) unit.AddSegment(s, p, &ahead);
      }
      return;
    }
    for (int64_t p = 0; p < panels.count; ++p) {
      WeightsAhead ahead(m, panels, p, 1, m.segments[0].columns, unit.tiles_);
      for (const Segment& s : m.segments) unit.AddSegment(s, p, &ahead);
    }
  }

 private:
  SixBitUnit(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input,
             int64_t row, int64_t rows, uint8_t* scratch, float* acc)
      : m_(m),
        panels_(panels),
        input_(input),
        first_tile_(row / input.tile_rows()),
        tiles_(DivUp(rows, input.tile_rows())),
        direct_(rows <= Kernel::kDirectRows),
        scratch_(scratch),
        acc_(acc) {}

  // acc += segment s of panel p of the unit times all tiles.
  HWY_INLINE void AddSegment(const Segment& s, int64_t p, WeightsAhead* ahead) const {
    const uint8_t* panel = m_.panel(panels_.index[p]);
    SixBitTile<typename Kernel::X> t;
    t.w = panel + s.codes_offset;
    t.scales = LoadScales(m_.format.scale, panel + s.scales_offset, 0);
    t.columns = s.columns;
    t.ahead = ahead;
    if (direct_) {
      AddTile(codes_, s, p, 0, &t);
      return;
    }
    Decode(t.w, s.columns);
    t.w = scratch_;
    for (int64_t i = 0; i < tiles_; ++i) AddTile(typename Kernel::Decoded(), s, p, i, &t);
  }

  // One segment, to scratch.
  HWY_INLINE void Decode(const uint8_t* codes, int64_t columns) const {
    uint8_t* to = scratch_;
    for (int64_t k = 0; k < columns; k += kTileColumns) {
      Kernel::template DecodeQuad<0>(codes_, codes, to);
      Kernel::template DecodeQuad<1>(codes_, codes, to);
      Kernel::template DecodeQuad<2>(codes_, codes, to);
      Kernel::template DecodeQuad<3>(codes_, codes, to);
      codes += Kernel::Codes::kChunkBytes;
      to += Kernel::Decoded::kChunkBytes;
    }
  }

  template <class Source>
  HWY_INLINE void AddTile(const Source& source, const Segment& s, int64_t p, int64_t i,
                          SixBitTile<typename Kernel::X>* t) const {
    const int64_t tile = first_tile_ + i;
    t->rows = input_.RowsOf(tile);
    t->x = Kernel::Activations(input_) + tile * input_.tile_lines * input_.stride +
           s.column * t->rows;
    t->acc = acc_ + i * input_.tile_rows() * kUnitColumns + p * kPanelRows;
    SixBitRows<Kernel>(source, *t);
    Kernel::AddRests(source, input_, tile, s, *t);
  }

  const typename Kernel::Codes codes_;
  const PackedMatrix& m_;
  const PanelSet& panels_;
  const PreparedInput& input_;
  int64_t first_tile_, tiles_;
  bool direct_;
  uint8_t* scratch_;
  float* acc_;
};

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();
#endif  // NIBBLE_SIX_BIT_LOOKUP

#endif  // NIBBLE_GEMM_SIXBIT_INL_H_
