// SPDX-License-Identifier: Apache-2.0
//
// Six-bit weights times one to four rows of F32 values, with byte permutes (AVX-512 VBMI).
// Included once per SIMD target.
//
//   a quad: 16 lanes x 4 columns of codes, a byte each (put together from the planes)
//     vpermb twice       the two bytes of each code's BF16: 64 lookups an instruction
//     vpunpck            16-bit values, lane by lane      c0 c1 c2 c3 | c0 c1 c2 c3 | ...
//     shift, mask        F32 of even and of odd columns   c0 c2 | c0 c2 | ...,  c1 c3 | ...
//     FMA with the activations x0 x2 | x0 x2 | ..., as gemm_input.h lays them out
//
// Per 64 weights: 2 or 3 operations for the codes, 2 permutes, 2 unpacks, 4 shifts and
// masks, and 4 FMAs a row; a F32 table lookup takes twice that. The rows of a panel come
// out of the unpack in two halves, {0 1 4 5 8 9 12 13} and the others, two columns side by
// side: two permutes and an addition at the end of a segment put them in order.
//
// Precision. E3M2 and E2M3 have at most 4 significant bits: exact in BF16 and F32. The sums
// are as in gemm_float.cc.

#if defined(NIBBLE_GEMM_SIXBIT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_GEMM_SIXBIT_INL_H_
#undef NIBBLE_GEMM_SIXBIT_INL_H_
#else
#define NIBBLE_GEMM_SIXBIT_INL_H_
#endif

#include <cstring>

#include "hwy/cache_control.h"
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

constexpr int64_t kSixBitAhead = 3072;  // bytes that a stream is fetched ahead

// Tables of the bytes of the BF16 of each code.
template <DType kType>
struct SixBitTables {
  VSixBit high, low;
  SixBitTables() {
    HWY_ALIGN uint8_t h[64], l[64];
    for (uint32_t code = 0; code < 64; ++code) {
      const uint16_t bits = EncodeBF16(Decode(kType, code));
      h[code] = static_cast<uint8_t>(bits >> 8);
      l[code] = static_cast<uint8_t>(bits);
    }
    high = hn::Load(SixBitBytes(), h);
    low = hn::Load(SixBitBytes(), l);
  }
};

// Four vectors of sums: half * 2 + (0 for even columns, 1 for odd).
template <int kQuad, int kRows, DType kType>
HWY_INLINE void AddSixBitQuad(const SixBitTables<kType>& tables, const uint8_t* chunk,
                              const float* x, VF (&sum)[4 * kRows]) {
  const TileF df;
  const TileU du;
  const hn::Repartition<double, TileF> pairs;
  const VSixBit codes = SixBitQuad<kQuad>(chunk, 0);
  const VSixBit high = LookUpSixBits(tables.high, codes);
  const VSixBit low = LookUpSixBits(tables.low, codes);
  const VU half0 = hn::BitCast(du, hn::InterleaveLower(SixBitBytes(), low, high));
  const VU half1 = hn::BitCast(du, hn::InterleaveUpper(SixBitBytes(), low, high));
  const VU odd = hn::Set(du, 0xFFFF0000u);
  const VF w0 = hn::BitCast(df, hn::ShiftLeft<16>(half0));
  const VF w1 = hn::BitCast(df, hn::And(half0, odd));
  const VF w2 = hn::BitCast(df, hn::ShiftLeft<16>(half1));
  const VF w3 = hn::BitCast(df, hn::And(half1, odd));
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    double even_bits, odd_bits;  // two activations each
    std::memcpy(&even_bits, x + 4 * r, 8);
    std::memcpy(&odd_bits, x + 4 * r + 2, 8);
    const VF xe = hn::BitCast(df, hn::Set(pairs, even_bits));
    const VF xo = hn::BitCast(df, hn::Set(pairs, odd_bits));
    sum[4 * r + 0] = hn::MulAdd(w0, xe, sum[4 * r + 0]);
    sum[4 * r + 1] = hn::MulAdd(w1, xo, sum[4 * r + 1]);
    sum[4 * r + 2] = hn::MulAdd(w2, xe, sum[4 * r + 2]);
    sum[4 * r + 3] = hn::MulAdd(w3, xo, sum[4 * r + 3]);
  }
}

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

// acc += one segment of one panel.
template <DType kType, int kRows>
HWY_INLINE void SixBitSegment(const SixBitTables<kType>& tables, const WeightFormat& format,
                              const Segment& s, const uint8_t* panel, const float* x,
                              float* acc) {
  const TileF df;
  VF sum[4 * kRows];
  NIBBLE_UNROLL
  for (int i = 0; i < 4 * kRows; ++i) sum[i] = hn::Zero(df);
  const uint8_t* chunk = panel + s.codes_offset;
  const float* xk = x + s.column * kRows;
  for (int64_t k = 0; k < s.columns; k += kTileColumns, xk += 16 * kRows) {
    hwy::Prefetch(chunk + kSixBitAhead);
    hwy::Prefetch(chunk + kSixBitAhead + 64);
    hwy::Prefetch(chunk + kSixBitAhead + 128);
    AddSixBitQuad<0, kRows>(tables, chunk, xk, sum);
    AddSixBitQuad<1, kRows>(tables, chunk, xk + 4 * kRows, sum);
    AddSixBitQuad<2, kRows>(tables, chunk, xk + 8 * kRows, sum);
    AddSixBitQuad<3, kRows>(tables, chunk, xk + 12 * kRows, sum);
    chunk += TileBytes(kType, kTileColumns);
  }
  const VF scale = LoadScales(format.scale, panel + s.scales_offset, 0);
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    float* to = acc + r * kUnitColumns;
    const VF total = SumSixBitHalves(hn::Add(sum[4 * r], sum[4 * r + 1]),
                                     hn::Add(sum[4 * r + 2], sum[4 * r + 3]));
    hn::StoreU(hn::MulAdd(total, scale, hn::LoadU(df, to)), df, to);
  }
}

template <DType kType, int kRows>
void SixBitFewRows(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input,
                   float* acc) {
  const SixBitTables<kType> tables;
  // Segments of the four streams in turn: few activations stay in the first-level cache.
  for (const Segment& s : m.segments) {
    for (int64_t p = 0; p < panels.count; ++p) {
      SixBitSegment<kType, kRows>(tables, m.format, s, m.panel(panels.index[p]), input.values,
                                  acc + p * kPanelRows);
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();
#endif  // NIBBLE_SIX_BIT_LOOKUP

#endif  // NIBBLE_GEMM_SIXBIT_INL_H_
