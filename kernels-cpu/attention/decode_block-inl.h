// SPDX-License-Identifier: Apache-2.0
//
// Decodes what a step of attention uses for all its rows: scales to F32, and for many rows the
// tiles of keys and values into panels. Layout: kv_cache.h, numerics/tile.h. Every decode is
// exact but for KV4's scales, whose product with the layer's factor rounds once, as their
// definition says. Included once per SIMD target.

#if defined(NIBBLE_DECODE_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_DECODE_BLOCK_INL_H_
#undef NIBBLE_DECODE_BLOCK_INL_H_
#else
#define NIBBLE_DECODE_BLOCK_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {  // the same names in other files are other functions

// The F32 scales of 16 tokens.
template <DType kType>
HWY_INLINE void LoadTokenScales(const uint8_t* scales, float factor, float* out) {
  const TileF df;
  for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(df)) {
    if constexpr (kType == DType::kI4) {
      const TileU du;
      const VU code = hn::PromoteTo(du, hn::LoadU(hn::Rebind<uint8_t, TileF>(), scales + lane));
      const VF value = hn::Mul(SmallFloatMagnitude<3, 7>(code), hn::Set(df, factor));
      const auto is_nan = hn::RebindMask(df, hn::Eq(code, hn::Set(du, 0x7F)));
      hn::StoreU(hn::IfThenElse(is_nan, hn::NaN(df), value), df, out + lane);
    } else {
      hn::StoreU(hn::LoadU(df, reinterpret_cast<const float*>(scales) + lane), df, out + lane);
    }
  }
}

// Decodes `columns` columns of a tile (or of tiles of 16 columns that follow each other) to
// [columns][16 lanes].
template <DType kType>
HWY_INLINE void DecodePanel(const uint8_t* tile, int64_t columns, float* panel) {
  const TileDecoder<kType> decoder;
  constexpr int64_t kChunkBytes = TileBytes(kType, kTileColumns);
  for (int64_t k = 0; k < columns; k += kTileColumns, tile += kChunkBytes) {
    for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(TileF())) {
      float* to = panel + k * kTileLanes + lane;
      decoder.Chunk(tile, lane,
                    [&](size_t i, VF v) HWY_ATTR { hn::StoreU(v, TileF(), to + i * kTileLanes); });
    }
  }
}

// Unfolds nibbles to bytes, which are then read like KV8's, for keys that many rows use.
inline void NibblesToBytes(const uint8_t* tile, int64_t columns, uint8_t* bytes) {
  const TileU du;
  const VU nibbles = hn::Set(du, 0x0F0F0F0Fu);
  const auto store = [&](VU v, uint8_t* to, size_t lane) HWY_ATTR {
    hn::StoreU(v, du, reinterpret_cast<uint32_t*>(to) + lane);
  };
  for (int64_t step = 0; step < columns / 8; ++step) {
    for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(du)) {
      const VU both = LoadWords(tile + 64 * step, lane);
      store(hn::And(both, nibbles), bytes + 128 * step, lane);
      store(hn::And(hn::ShiftRight<4>(both), nibbles), bytes + 128 * step + 64, lane);
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_DECODE_BLOCK_INL_H_
