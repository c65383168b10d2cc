// SPDX-License-Identifier: Apache-2.0
//
// Weighted sums of values. Included once per SIMD target.
//
//   weights  [row][16 tokens of each block]            softmax weights times value scales
//   values   tiles of 16 tokens x 16 elements (lanes)  decoded in registers, or F32 panels
//   acc      [row][elements] += weights[row][token] * values[token][elements]
//
// A register tile of rows by value tiles runs over all blocks of a step: each code is decoded
// once for all its rows, each weight is broadcast once for all its tiles, and the accumulators
// leave the registers once a step. kFetch: fetches a line with each line that is read.
//
// Every decode is exact: I4 by a lookup (numerics/tile_decode-inl.h), BF16 by a shift; a byte
// u = q + 128 is put into the low mantissa bits of a power of two 2^e >= 2^15, which makes it
// 2^e + u, and 2^e + 128 is subtracted. Each term of a sum rounds once (a chain of fused
// multiply-adds; twice where the target has no FMA). A token of weight 0 adds 0 only where
// its values are finite: codes of KV4 and KV8 always are; for the others see ValueTail in
// query_block.cc.

#if defined(NIBBLE_VALUES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_VALUES_INL_H_
#undef NIBBLE_VALUES_INL_H_
#else
#define NIBBLE_VALUES_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels-cpu/attention/fetch_ahead.h"
#include "kernels-cpu/attention/kv_cache.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {  // the same names in other files are other functions

// Token kToken of a word of a value tile.
template <DType kType>
struct ValueDecoder;

template <>
struct ValueDecoder<DType::kI4> {
  static constexpr int kTokens = 8;  // of a word
  NibbleDecoder nibble;
  template <int kToken>
  HWY_INLINE VF Get(VU word) const {
    return nibble(Shifted<kToken % 4 * 8 + kToken / 4 * 4>(word));
  }
};

template <>
struct ValueDecoder<DType::kI8> {
  static constexpr int kTokens = 4;
  template <int kToken>
  HWY_INLINE VF Get(VU word) const {
    const TileF df;
    const TileU du;
    // Bytes 0 and 1 stay where they are, 2 and 3 take their places.
    const VU half = Shifted<kToken / 2 * 16>(word);
    constexpr uint32_t kMask = kToken % 2 == 0 ? 0xFF : 0xFF00;
    constexpr uint32_t kPower = kToken % 2 == 0 ? 0x4B000000 : 0x47000000;  // 2^23, 2^15
    constexpr float kBias = (kToken % 2 == 0 ? 8388608.0f : 32768.0f) + 128.0f;
    const VU bits = hn::OrAnd(hn::Set(du, kPower), half, hn::Set(du, kMask));
    return hn::Sub(hn::BitCast(df, bits), hn::Set(df, kBias));
  }
};

template <>
struct ValueDecoder<DType::kBF16> {
  static constexpr int kTokens = 2;
  template <int kToken>
  HWY_INLINE VF Get(VU word) const {
    const VU bits =
        kToken == 0 ? hn::ShiftLeft<16>(word) : hn::And(word, hn::Set(TileU(), 0xFFFF0000u));
    return hn::BitCast(TileF(), bits);
  }
};

template <>
struct ValueDecoder<DType::kF32> {
  static constexpr int kTokens = 1;
  template <int kToken>
  HWY_INLINE VF Get(VU word) const {
    return hn::BitCast(TileF(), word);
  }
};

template <int kToken, int kStride, class Decoder, int kRows, int kTiles>
HWY_INLINE void AddToken(const Decoder& decoder, const VU (&words)[kTiles], const float* weights,
                         VF (&acc)[kRows][kTiles]) {
  if constexpr (kToken < Decoder::kTokens) {
    VF values[kTiles];
    NIBBLE_UNROLL
    for (int j = 0; j < kTiles; ++j) values[j] = decoder.template Get<kToken>(words[j]);
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const VF w = hn::Set(TileF(), weights[r * kStride + kToken]);
      NIBBLE_UNROLL
      for (int j = 0; j < kTiles; ++j) acc[r][j] = hn::MulAdd(w, values[j], acc[r][j]);
    }
  }
}

// kRows rows and kTiles tiles over `blocks` blocks, whose first tiles are block_stride bytes
// apart. weights: [kRows] of kStride floats, a constant, so that one pointer reaches them all.
template <DType kType, int kRows, int kTiles, int kStride, bool kFetch>
HWY_NOINLINE void AddValues(const float* weights, const uint8_t* tiles, int64_t block_stride,
                            int64_t blocks, FetchAhead fetch, float* acc,
                            int64_t acc_stride) {
  const TileF df;
  const ValueDecoder<kType> decoder;
  constexpr int64_t kTokens = ValueDecoder<kType>::kTokens;
  constexpr int64_t kTileBytes = TileBytes(kType, kKvBlockTokens);
  for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(df)) {
    VF a[kRows][kTiles];
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      NIBBLE_UNROLL
      for (int j = 0; j < kTiles; ++j) {
        a[r][j] = hn::LoadU(df, acc + r * acc_stride + j * kTileLanes + lane);
      }
    }
    const uint8_t* block = tiles;
    const float* w = weights;
    for (int64_t b = 0; b < blocks; ++b, block += block_stride) {
      const uint8_t* step = block;
      for (int64_t t = 0; t < kTileLanes; t += kTokens, step += 64, w += kTokens) {
        VU words[kTiles];
        NIBBLE_UNROLL
        for (int j = 0; j < kTiles; ++j) {
          words[j] = LoadWords(step + j * kTileBytes, lane);
          if constexpr (kFetch) fetch.Line();
        }
        AddToken<0, kStride>(decoder, words, w, a);
        AddToken<1, kStride>(decoder, words, w, a);
        AddToken<2, kStride>(decoder, words, w, a);
        AddToken<3, kStride>(decoder, words, w, a);
        AddToken<4, kStride>(decoder, words, w, a);
        AddToken<5, kStride>(decoder, words, w, a);
        AddToken<6, kStride>(decoder, words, w, a);
        AddToken<7, kStride>(decoder, words, w, a);
      }
    }
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      NIBBLE_UNROLL
      for (int j = 0; j < kTiles; ++j) {
        hn::StoreU(a[r][j], df, acc + r * acc_stride + j * kTileLanes + lane);
      }
    }
  }
}

// Tiles at once: as many accumulators as fit the registers, at most four tiles, the whole of
// a head of 64.
template <int kRows>
constexpr int ValueTilesAtOnce() {
  constexpr int kAccumulators = NIBBLE_TILE_TABLES || !HWY_ARCH_X86 ? 16 : 8;
  return kAccumulators / kRows < 4 ? kAccumulators / kRows : 4;
}

// acc[kRows][count tiles] += weights * values, for `blocks` blocks.
template <DType kType, int kRows, int kStride, bool kFetch>
HWY_INLINE void AddAllTiles(const float* weights, const uint8_t* tiles, int64_t block_stride,
                            int64_t count, int64_t blocks, FetchAhead fetch, float* acc,
                            int64_t acc_stride) {
  constexpr int kMost = ValueTilesAtOnce<kRows>();
  const auto skip = [&](int64_t n) HWY_ATTR {
    tiles += n * TileBytes(kType, kKvBlockTokens);
    acc += n * kTileLanes;
    fetch.at += n * blocks * TileBytes(kType, kKvBlockTokens);
    count -= n;
  };
  for (; count >= kMost; skip(kMost)) {
    AddValues<kType, kRows, kMost, kStride, kFetch>(weights, tiles, block_stride, blocks, fetch,
                                                    acc, acc_stride);
  }
  if constexpr (kMost > 2) {
    if (count >= 2) {
      AddValues<kType, kRows, 2, kStride, kFetch>(weights, tiles, block_stride, blocks, fetch,
                                                  acc, acc_stride);
      skip(2);
    }
  }
  if constexpr (kMost > 1) {
    if (count > 0) {
      AddValues<kType, kRows, 1, kStride, kFetch>(weights, tiles, block_stride, blocks, fetch,
                                                  acc, acc_stride);
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_VALUES_INL_H_
