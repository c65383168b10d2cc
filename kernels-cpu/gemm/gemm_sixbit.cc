// SPDX-License-Identifier: Apache-2.0
//
// Six-bit weights times activations held as F32 values (F32, A16; E2M3 has A8F as bytes, E3M2 as
// words), on targets where one permute looks up 64 codes (AVX-512 VBMI): gemm_sixbit-inl.h has
// the layout.
//
//   a half of a quad      c0 c1 c2 c3 | c0 c1 c2 c3 | ...       BF16
//     shift, mask         c0 c2 | c0 c2 | ...,  c1 c3 | ...     F32
//     FMA with the activations x0 x2 | x0 x2 | ..., as gemm_input.h lays them out
//
// Per 64 weights: 1 to 3 operations for the codes, 2 permutes, 2 unpacks, 4 shifts and masks, and
// 4 FMAs a row; a F32 table lookup takes four times that.
//
// Precision. E3M2 and E2M3 have at most 4 significant bits: exact in BF16 and F32. Each lane sums
// in a fixed order and the scale multiplies the sum of a segment: as in gemm_float.cc.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/gemm/gemm_sixbit.cc"
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

constexpr int64_t kQuadBytes = 4 * 64;  // of F32: two halves, even and odd columns

// F32 of even and of odd columns, of the low and of the high half.
struct QuadValues {
  VF even[2], odd[2];
};

template <DType kType>
struct FloatKernel {
  using X = float;
  using Sum = VF;
  // Measured: with more, the registers are short of what decoding needs beside the sums.
  static constexpr int64_t kDirectRows = 4;

  struct Codes {
    static constexpr int64_t kChunkBytes = TileBytes(kType, kTileColumns);
    SixBitTables tables;

    Codes()
        : tables([](uint32_t code) { return EncodeBF16(nibble::Decode(kType, code)); }) {}
    template <int kQuad>
    HWY_INLINE QuadValues Quad(const uint8_t* chunk) const {
      const TileF df;
      const VU odd = hn::Set(TileU(), 0xFFFF0000u);
      const SixBitHalves w = tables.Quad<kQuad>(chunk);
      return {{hn::BitCast(df, hn::ShiftLeft<16>(w.low)),
               hn::BitCast(df, hn::ShiftLeft<16>(w.high))},
              {hn::BitCast(df, hn::And(w.low, odd)), hn::BitCast(df, hn::And(w.high, odd))}};
    }
  };

  // [columns / 4][even low, odd low, even high, odd high][16 lanes] F32.
  struct Decoded {
    static constexpr int64_t kChunkBytes = 4 * kQuadBytes;
    template <int kQuad>
    HWY_INLINE QuadValues Quad(const uint8_t* chunk) const {
      const TileF df;
      const float* from = reinterpret_cast<const float*>(chunk + kQuad * kQuadBytes);
      return {{hn::Load(df, from), hn::Load(df, from + 32)},
              {hn::Load(df, from + 16), hn::Load(df, from + 48)}};
    }
  };

  static const float* Activations(const PreparedInput& input) { return input.values; }

  template <int kQuad>
  static HWY_INLINE void DecodeQuad(const Codes& source, const uint8_t* chunk, uint8_t* to) {
    const TileF df;
    const QuadValues w = source.template Quad<kQuad>(chunk);
    float* quad = reinterpret_cast<float*>(to + kQuad * kQuadBytes);
    hn::Store(w.even[0], df, quad);
    hn::Store(w.odd[0], df, quad + 16);
    hn::Store(w.even[1], df, quad + 32);
    hn::Store(w.odd[1], df, quad + 48);
  }

  // Sums of each row and half: with few rows two, of even and of odd columns, which hide the
  // latency of the FMA.
  static constexpr int Chains(int rows) { return rows <= 4 ? 2 : 1; }

  template <int kQuad, int kRows, class Source>
  static HWY_INLINE void AddQuad(const Source& source, const uint8_t* w, const float* x,
                                 VF (&sum)[2 * kRows * Chains(kRows)]) {
    const TileF df;
    const hn::Repartition<double, TileF> pairs;
    constexpr int kOdd = Chains(kRows) == 2 ? 2 * kRows : 0;
    const QuadValues quad = source.template Quad<kQuad>(w);
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      double even_bits, odd_bits;  // two activations each
      std::memcpy(&even_bits, x + 4 * r, 8);
      std::memcpy(&odd_bits, x + 4 * r + 2, 8);
      const VF even = hn::BitCast(df, hn::Set(pairs, even_bits));
      const VF odd = hn::BitCast(df, hn::Set(pairs, odd_bits));
      NIBBLE_UNROLL
      for (int half = 0; half < 2; ++half) {
        VF& s = sum[2 * r + half];
        s = hn::MulAdd(quad.even[half], even, s);
        VF& t = sum[kOdd + 2 * r + half];
        t = hn::MulAdd(quad.odd[half], odd, t);
      }
    }
  }

  static HWY_INLINE void AddSums(VF low, VF high, VF scales, float* acc) {
    AddSixBitSum(low, high, scales, acc);
  }

  template <class Source>
  static HWY_INLINE void AddRests(const Source&, const PreparedInput&, int64_t, const Segment&,
                                  const SixBitTile<float>&) {}
};

}  // namespace

UnitKernel SixBitUnitOf(DType code) {
  return code == DType::kE3M2   ? &SixBitUnit<FloatKernel<DType::kE3M2>>::Run
         : code == DType::kE2M3 ? &SixBitUnit<FloatKernel<DType::kE2M3>>::Run
                                : nullptr;
}

#else

UnitKernel SixBitUnitOf(DType) { return nullptr; }

#endif  // NIBBLE_SIX_BIT_LOOKUP

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(SixBitUnitOf);
UnitKernel SixBitUnitKernel(DType code) { return HWY_DYNAMIC_DISPATCH(SixBitUnitOf)(code); }
}  // namespace nibble
#endif
