// SPDX-License-Identifier: Apache-2.0
//
// Decodes tiles (tile.h) to F32 in registers. Included once per SIMD target.
//
// Every decode is exact: an I4, I8, FP8, FP6 or 16-bit code has at most 11 significant
// bits. Small floats are built from their bits; a subnormal (exponent field 0) is built
// with exponent field 1 and its implicit one subtracted, so that no denormal F32 ever
// reaches an arithmetic unit, where it would cost a microcode assist.

#if defined(NIBBLE_TILE_DECODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_TILE_DECODE_INL_H_
#undef NIBBLE_TILE_DECODE_INL_H_
#else
#define NIBBLE_TILE_DECODE_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels-cpu/numerics/tile.h"

// Before a loop over an array of vectors whose trip count is a constant: the array lives
// in registers only when the loop is gone, which -O2 does not promise by itself.
#ifndef NIBBLE_UNROLL
#define NIBBLE_UNROLL _Pragma("GCC unroll 16")
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A vector of at most the 16 lanes of a tile.
using TileF = hn::CappedTag<float, 16>;
using TileU = hn::RebindToUnsigned<TileF>;
using TileI = hn::RebindToSigned<TileF>;
using VF = hn::Vec<TileF>;
using VU = hn::Vec<TileU>;

// Whether one vector is exactly a tile row, so that 16-entry lookups are one permute.
#undef NIBBLE_TILE_TABLES
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
#define NIBBLE_TILE_TABLES 1
#else
#define NIBBLE_TILE_TABLES 0
#endif

// magnitude: code bits below the sign, already isolated.
template <int kMantissa, int kBias>
HWY_INLINE VF SmallFloatMagnitude(VU magnitude) {
  const TileF df;
  const TileU du;
  const VU bits =
      hn::Add(hn::ShiftLeft<23 - kMantissa>(magnitude), hn::Set(du, uint32_t(127 - kBias) << 23));
  const auto subnormal = hn::Lt(magnitude, hn::Set(du, 1u << kMantissa));
  const VU one_up = hn::Add(bits, hn::Set(du, 1u << 23));
  const VF implicit_one = hn::BitCast(df, hn::Set(du, uint32_t(128 - kBias) << 23));
  return hn::IfThenElse(hn::RebindMask(df, subnormal),
                        hn::Sub(hn::BitCast(df, one_up), implicit_one), hn::BitCast(df, bits));
}

// code: any bits above the sign (bit kSign) are ignored.
template <int kMantissa, int kBias, int kSign>
HWY_INLINE VF SmallFloat(VU code) {
  const TileF df;
  const TileU du;
  const VU magnitude = hn::And(code, hn::Set(du, (1u << kSign) - 1));
  const VU sign = hn::And(hn::ShiftLeft<31 - kSign>(code), hn::Set(du, 0x80000000u));
  return hn::Or(SmallFloatMagnitude<kMantissa, kBias>(magnitude), hn::BitCast(df, sign));
}

// Decodes the four-bit code in the low bits of each word; the bits above are ignored.
struct NibbleDecoder {
#if NIBBLE_TILE_TABLES
  VF table;
  NibbleDecoder() {
    HWY_ALIGN static constexpr float kValues[16] = {-8, -7, -6, -5, -4, -3, -2, -1,
                                                    0,  1,  2,  3,  4,  5,  6,  7};
    table = hn::Load(TileF(), kValues);
  }
  HWY_INLINE VF operator()(VU code) const {
#if HWY_IS_DEBUG_BUILD  // Highway then checks indices; the instruction itself ignores the bits
    code = hn::And(code, hn::Set(TileU(), 15));
#endif
    return hn::TableLookupLanes(table, hn::IndicesFromVec(TileF(), hn::BitCast(TileI(), code)));
  }
#else
  HWY_INLINE VF operator()(VU code) const {
    const TileI di;
    const auto q = hn::BitCast(di, hn::And(code, hn::Set(TileU(), 15)));
    return hn::ConvertTo(TileF(), hn::Sub(q, hn::Set(di, 8)));
  }
#endif
};

// Six-bit codes: sign in bit 5; the bits above are ignored.
template <DType kType>
struct SixBitDecoder {
  static constexpr int kMantissa = kType == DType::kE3M2 ? 2 : 3;
  static constexpr int kBias = kType == DType::kE3M2 ? 3 : 1;
#if NIBBLE_TILE_TABLES
  VF low, high;  // values of magnitudes 0..15 and 16..31
  SixBitDecoder() {
    const TileU du;
    const VU magnitude = hn::Iota(du, 0);
    low = SmallFloatMagnitude<kMantissa, kBias>(magnitude);
    high = SmallFloatMagnitude<kMantissa, kBias>(hn::Add(magnitude, hn::Set(du, 16)));
  }
  HWY_INLINE VF operator()(VU code) const {
    const TileF df;
    const TileU du;
    const VU sign = hn::And(hn::ShiftLeft<26>(code), hn::Set(du, 0x80000000u));
#if HWY_IS_DEBUG_BUILD
    code = hn::And(code, hn::Set(du, 31));
#endif
    const VF value = hn::TwoTablesLookupLanes(
        df, low, high, hn::IndicesFromVec(df, hn::BitCast(TileI(), code)));
    return hn::Or(value, hn::BitCast(df, sign));
  }
#else
  HWY_INLINE VF operator()(VU code) const { return SmallFloat<kMantissa, kBias, 5>(code); }
#endif
};

// Decodes 16 columns of one vector of lanes. Chunk(base, lane, f) calls f(k, value) for
// k = 0..15; base: the 16 columns of a tile; lane: first lane of the vector.
template <DType kType>
struct TileDecoder;

template <int kShift>
HWY_INLINE VU Shifted(VU word) {
  if constexpr (kShift == 0) {
    return word;
  } else if constexpr (kShift > 0) {
    return hn::ShiftRight<kShift>(word);
  } else {
    return hn::ShiftLeft<-kShift>(word);
  }
}

HWY_INLINE VU LoadWords(const uint8_t* step, size_t lane) {
  return hn::LoadU(TileU(), reinterpret_cast<const uint32_t*>(step) + lane);
}

// Six-bit codes as bytes: columns 4 kQuad + i of a chunk of 16 in byte i of each lane's word.
// The code is in bits 0..5; the bits above are anything.
template <int kQuad>
HWY_INLINE hn::Vec<hn::Repartition<uint8_t, TileF>> SixBitQuad(const uint8_t* chunk,
                                                               size_t lane) {
  const VU low = Shifted<4 * (kQuad % 2)>(LoadWords(chunk + 64 * (kQuad / 2), lane));
  const VU high = Shifted<2 * kQuad - 4>(LoadWords(chunk + 128, lane));
  return hn::BitCast(hn::Repartition<uint8_t, TileF>(),
                     hn::BitwiseIfThenElse(hn::Set(TileU(), 0x0F0F0F0Fu), low, high));
}

// Whether one permute looks up 64 bytes by their six-bit codes (AVX-512 VBMI).
#undef NIBBLE_SIX_BIT_LOOKUP
#if HWY_TARGET <= HWY_AVX3_DL && HWY_ARCH_X86
#define NIBBLE_SIX_BIT_LOOKUP 1
// vpermb itself ignores the bits above the code.
HWY_INLINE hn::Vec<hn::Repartition<uint8_t, TileF>> LookUpSixBits(
    hn::Vec<hn::Repartition<uint8_t, TileF>> table,
    hn::Vec<hn::Repartition<uint8_t, TileF>> codes) {
  hn::Vec<hn::Repartition<uint8_t, TileF>> bytes;
  asm("vpermb %2, %1, %0" : "=v"(bytes.raw) : "v"(codes.raw), "v"(table.raw));
  return bytes;
}
#else
#define NIBBLE_SIX_BIT_LOOKUP 0
#endif

template <>
struct TileDecoder<DType::kI4> {
  NibbleDecoder nibble;
  template <class F>
  HWY_INLINE void Chunk(const uint8_t* base, size_t lane, const F& f) const {
    NIBBLE_UNROLL
    for (size_t s = 0; s < 2; ++s) {
      const VU w = LoadWords(base + 64 * s, lane);
      const size_t k = 8 * s;
      f(k + 0, nibble(w));
      f(k + 1, nibble(Shifted<8>(w)));
      f(k + 2, nibble(Shifted<16>(w)));
      f(k + 3, nibble(Shifted<24>(w)));
      f(k + 4, nibble(Shifted<4>(w)));
      f(k + 5, nibble(Shifted<12>(w)));
      f(k + 6, nibble(Shifted<20>(w)));
      f(k + 7, nibble(Shifted<28>(w)));
    }
  }
};

template <DType kType>
struct SixBitTileDecoder {
  SixBitDecoder<kType> decode;

  // Column 4 * kF + kI: low bits at 8i + 4h of its step's word, high bits at 8i + 2f.
  template <int kF, int kI>
  HWY_INLINE VF Column(VU low, VU high) const {
    const TileU du;
    const VU four = hn::And(Shifted<8 * kI + 4 * (kF % 2)>(low), hn::Set(du, 15));
    const VU two = hn::AndNot(hn::Set(du, 15), Shifted<8 * kI + 2 * kF - 4>(high));
    return decode(hn::Or(four, two));
  }
  template <int kF, class F>
  HWY_INLINE void Columns(VU low, VU high, const F& f) const {
    f(4 * kF + 0, Column<kF, 0>(low, high));
    f(4 * kF + 1, Column<kF, 1>(low, high));
    f(4 * kF + 2, Column<kF, 2>(low, high));
    f(4 * kF + 3, Column<kF, 3>(low, high));
  }
  template <class F>
  HWY_INLINE void Chunk(const uint8_t* base, size_t lane, const F& f) const {
    const VU low0 = LoadWords(base, lane);
    const VU low1 = LoadWords(base + 64, lane);
    const VU high = LoadWords(base + 128, lane);
    Columns<0>(low0, high, f);
    Columns<1>(low0, high, f);
    Columns<2>(low1, high, f);
    Columns<3>(low1, high, f);
  }
};
template <>
struct TileDecoder<DType::kE3M2> : SixBitTileDecoder<DType::kE3M2> {};
template <>
struct TileDecoder<DType::kE2M3> : SixBitTileDecoder<DType::kE2M3> {};

// Eight-bit codes; Value maps a word whose low byte is the code (other bits anything).
template <class Value>
struct ByteTileDecoder {
  template <class F>
  HWY_INLINE void Chunk(const uint8_t* base, size_t lane, const F& f) const {
    const Value value;
    NIBBLE_UNROLL
    for (size_t s = 0; s < 4; ++s) {
      const VU w = LoadWords(base + 64 * s, lane);
      f(4 * s + 0, value(w));
      f(4 * s + 1, value(Shifted<8>(w)));
      f(4 * s + 2, value(Shifted<16>(w)));
      f(4 * s + 3, value(Shifted<24>(w)));
    }
  }
};
struct I8Value {
  HWY_INLINE VF operator()(VU word) const {
    const TileI di;
    const auto byte = hn::BitCast(di, hn::And(word, hn::Set(TileU(), 255)));
    return hn::ConvertTo(TileF(), hn::Sub(byte, hn::Set(di, 128)));
  }
};
struct E4M3Value {
  HWY_INLINE VF operator()(VU word) const { return SmallFloat<3, 7, 7>(word); }
};
struct E5M2Value {
  HWY_INLINE VF operator()(VU word) const { return SmallFloat<2, 15, 7>(word); }
};
template <>
struct TileDecoder<DType::kI8> : ByteTileDecoder<I8Value> {};
template <>
struct TileDecoder<DType::kE4M3> : ByteTileDecoder<E4M3Value> {};
template <>
struct TileDecoder<DType::kE5M2> : ByteTileDecoder<E5M2Value> {};

template <>
struct TileDecoder<DType::kBF16> {
  template <class F>
  HWY_INLINE void Chunk(const uint8_t* base, size_t lane, const F& f) const {
    const TileF df;
    NIBBLE_UNROLL
    for (size_t s = 0; s < 8; ++s) {
      const VU w = LoadWords(base + 64 * s, lane);
      f(2 * s, hn::BitCast(df, hn::ShiftLeft<16>(w)));
      f(2 * s + 1, hn::BitCast(df, hn::And(w, hn::Set(TileU(), 0xFFFF0000u))));
    }
  }
};

template <>
struct TileDecoder<DType::kF16> {
  template <class F>
  HWY_INLINE void Chunk(const uint8_t* base, size_t lane, const F& f) const {
    NIBBLE_UNROLL
    for (size_t s = 0; s < 8; ++s) {
      const VU w = LoadWords(base + 64 * s, lane);
      f(2 * s, SmallFloat<10, 15, 15>(w));
      f(2 * s + 1, SmallFloat<10, 15, 15>(hn::ShiftRight<16>(w)));
    }
  }
};

template <>
struct TileDecoder<DType::kF32> {
  template <class F>
  HWY_INLINE void Chunk(const uint8_t* base, size_t lane, const F& f) const {
    NIBBLE_UNROLL
    for (size_t k = 0; k < 16; ++k) f(k, hn::BitCast(TileF(), LoadWords(base + 64 * k, lane)));
  }
};

// Scales of the lanes from `lane` on, from 16 consecutive scales of a type. Those of E4M3 are never
// negative.
HWY_INLINE VF LoadScales(DType type, const uint8_t* scales, size_t lane) {
  const TileF df;
  const TileU du;
  const TileI di;
  switch (type) {
    case DType::kE4M3: {
      const hn::Rebind<uint8_t, TileF> d8;
      return SmallFloatMagnitude<3, 7>(hn::PromoteTo(du, hn::LoadU(d8, scales + lane)));
    }
    case DType::kPow2: {
      const hn::Rebind<int8_t, TileF> d8;
      const auto e =
          hn::PromoteTo(di, hn::LoadU(d8, reinterpret_cast<const int8_t*>(scales) + lane));
      return hn::BitCast(df, hn::ShiftLeft<23>(hn::Add(e, hn::Set(di, 127))));
    }
    case DType::kF16: {
      const hn::Rebind<uint16_t, TileF> d16;
      return SmallFloat<10, 15, 15>(
          hn::PromoteTo(du, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(scales) + lane)));
    }
    case DType::kBF16: {
      const hn::Rebind<uint16_t, TileF> d16;
      const auto upper =
          hn::PromoteTo(du, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(scales) + lane));
      return hn::BitCast(df, hn::ShiftLeft<16>(upper));
    }
    default: return hn::LoadU(df, reinterpret_cast<const float*>(scales) + lane);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_TILE_DECODE_INL_H_
