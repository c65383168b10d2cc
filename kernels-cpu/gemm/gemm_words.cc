// SPDX-License-Identifier: Apache-2.0
//
// E3M2 weights times A8F by dot products of 16-bit pairs (VNNI's vpdpwssd), on targets where
// one permute looks up 64 codes (AVX-512 VBMI): gemm_sixbit-inl.h has the layout.
//
//        x[row][k..k+3], four 16-bit values, broadcast to 8 pairs of lanes
//     *  columns k..k+3 of 8 weight rows, 16 w each: integers of at most 448
//     -> sum[row][half], 32-bit
//
// An E4M3 activation is 8 h + rest in units of 2^-9 with |h| <= 28672 (e4m3_digits.h): h goes
// into the dense sums and the few rests are a list, as in gemm_integer.cc. Two columns cost one
// instruction for 16 outputs, F32 FMAs two.
//
// Overflow. A lane sums two products a quad, 128 in a segment of at most 256 columns: below
// 128 * 448 * 28672 < 2^31. Rests: 128 * 448 * 4 < 2^18. All exact in I32. The conversion to
// F32, the addition of the lane beside, the product with the scale and the sum over segments and
// rests round, each at most once a column: below (K + 3) * 2^-24 * sum|terms|; of one term, at
// most 448 * 28672 < 2^24, the first two are exact.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/gemm/gemm_words.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/gemm/gemm_kernels.h"
#include "kernels-cpu/gemm/gemm_sixbit-inl.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

#if NIBBLE_SIX_BIT_LOOKUP
namespace {  // the same names in other files are other functions

using VI = hn::Vec<TileI>;

constexpr int64_t kQuadBytes = 2 * 64;  // of words: two halves

// Two products of signed 16-bit values a lane.
HWY_INLINE VI Dot(VU w, VI x, VI sum) {
  // Assembler keeps the sum where it is: see byte_dot-inl.h.
  asm("vpdpwssd %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
  return sum;
}

// Four activations for every pair of lanes.
HWY_INLINE VI Broadcast(const int16_t* x) {
  int64_t bits;
  std::memcpy(&bits, x, sizeof(bits));
  return hn::BitCast(TileI(), hn::Set(hn::Repartition<int64_t, TileI>(), bits));
}

struct WordKernel {
  using X = int16_t;
  using Sum = VI;
  // Measured: with more, the registers are short of what decoding needs beside the sums.
  static constexpr int64_t kDirectRows = 7;

  struct Codes {
    static constexpr int64_t kChunkBytes = TileBytes(DType::kE3M2, kTileColumns);
    SixBitTables tables;

    Codes()
        : tables([](uint32_t code) {
            return static_cast<uint16_t>(static_cast<int>(16 * nibble::Decode(DType::kE3M2, code)));
          }) {}
    template <int kQuad>
    HWY_INLINE SixBitHalves Quad(const uint8_t* chunk) const {
      return tables.Quad<kQuad>(chunk);
    }
    HWY_INLINE SixBitHalves QuadAt(const uint8_t* codes, int64_t k) const {
      const uint8_t* chunk = codes + k / 16 * kChunkBytes;
      switch (k / 4 % 4) {
        case 0: return Quad<0>(chunk);
        case 1: return Quad<1>(chunk);
        case 2: return Quad<2>(chunk);
        default: return Quad<3>(chunk);
      }
    }
  };

  // [columns / 4][half][16 lanes] of two words.
  struct Decoded {
    static constexpr int64_t kChunkBytes = 4 * kQuadBytes;
    template <int kQuad>
    HWY_INLINE SixBitHalves Quad(const uint8_t* chunk) const {
      return QuadAt(chunk, 4 * kQuad);
    }
    HWY_INLINE SixBitHalves QuadAt(const uint8_t* words, int64_t k) const {
      const uint8_t* quad = words + k / 4 * kQuadBytes;
      return {LoadWords(quad, 0), LoadWords(quad + 64, 0)};
    }
  };

  static const int16_t* Activations(const PreparedInput& input) { return input.words; }

  template <int kQuad>
  static HWY_INLINE void DecodeQuad(const Codes& source, const uint8_t* chunk, uint8_t* to) {
    const SixBitHalves w = source.template Quad<kQuad>(chunk);
    hn::Store(w.low, TileU(), reinterpret_cast<uint32_t*>(to + kQuad * kQuadBytes));
    hn::Store(w.high, TileU(), reinterpret_cast<uint32_t*>(to + kQuad * kQuadBytes + 64));
  }

  // Sums of each row and half: with few rows two, which hide the latency of the dot product.
  static constexpr int Chains(int rows) { return rows <= 2 ? 2 : 1; }

  template <int kQuad, int kRows, class Source>
  static HWY_INLINE void AddQuad(const Source& source, const uint8_t* w, const int16_t* x,
                                 VI (&sum)[2 * kRows * Chains(kRows)]) {
    constexpr int kFirst = kQuad % Chains(kRows) * 2 * kRows;
    const SixBitHalves quad = source.template Quad<kQuad>(w);
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const VI xv = Broadcast(x + 4 * r);
      sum[kFirst + 2 * r] = Dot(quad.low, xv, sum[kFirst + 2 * r]);
      sum[kFirst + 2 * r + 1] = Dot(quad.high, xv, sum[kFirst + 2 * r + 1]);
    }
  }

  static HWY_INLINE void AddSums(VI low, VI high, VF scales, float* acc) {
    const TileF df;
    AddSixBitSum(hn::ConvertTo(df, low), hn::ConvertTo(df, high), scales, acc);
  }

  // The rests of a tile in one segment of a panel, summed as integers first.
  template <class Source>
  static HWY_INLINE void AddRests(const Source& source, const PreparedInput& input, int64_t tile,
                                  const Segment& s, const SixBitTile<int16_t>& t) {
    const TileI di;
    const uint32_t* counts = input.rest_counts + tile * input.blocks() + s.column / 16;
    const uint32_t first = counts[0], last = counts[s.columns / 16];
    if (first == last) return;
    HWY_ALIGN int32_t sums[kTileLines * 32];
    uint32_t rows = 0;  // bit r: row r has a rest, and sums
    const RowRest* rests = input.rests + tile * input.most_rests();
    for (uint32_t i = first; i < last; ++i) {
      const RestQuad& quad = rests[i].quad;
      int32_t* to = sums + rests[i].row * 32;
      if ((rows >> rests[i].row & 1) == 0) {
        rows |= 1u << rests[i].row;
        hn::Store(hn::Zero(di), di, to);
        hn::Store(hn::Zero(di), di, to + 16);
      }
      const int16_t four[4] = {quad.rest[0], quad.rest[1], quad.rest[2], quad.rest[3]};
      const VI x = Broadcast(four);
      const SixBitHalves w = source.QuadAt(t.w, quad.column - s.column);
      hn::Store(Dot(w.low, x, hn::Load(di, to)), di, to);
      hn::Store(Dot(w.high, x, hn::Load(di, to + 16)), di, to + 16);
    }
    const VF scales = hn::Mul(t.scales, hn::Set(TileF(), kE4M3RestUnit));
    for (int64_t r = 0; r < t.rows; ++r) {
      if ((rows >> r & 1) == 0) continue;
      const int32_t* from = sums + r * 32;
      AddSums(hn::Load(di, from), hn::Load(di, from + 16), scales, t.acc + r * kUnitColumns);
    }
  }
};

}  // namespace

UnitKernel WordUnit() { return &SixBitUnit<WordKernel>::Run; }

#else

UnitKernel WordUnit() { return nullptr; }

#endif  // NIBBLE_SIX_BIT_LOOKUP

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(WordUnit);
UnitKernel WordUnitKernel() { return HWY_DYNAMIC_DISPATCH(WordUnit)(); }
}  // namespace nibble
#endif
