// SPDX-License-Identifier: Apache-2.0
//
// Scores against KV16 and f32 caches. Included once per SIMD target.
//
//   q      [columns][rows]        packed, one broadcast each
//   keys   columns x 16 lanes     a key tile (numerics/tile.h), or the same decoded to F32
//   score  [row][16 keys] += q[column][row] * keys[column][16]
//
// Precision: a chain of head_dim fused multiply-adds in F32 for each score, one rounding each
// (two where the target has no FMA); BF16 keys are exact in F32. Overflow gives an infinity,
// as in the formula.

#if defined(NIBBLE_SCORE_FLOAT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_SCORE_FLOAT_INL_H_
#undef NIBBLE_SCORE_FLOAT_INL_H_
#else
#define NIBBLE_SCORE_FLOAT_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels-cpu/attention/fetch_ahead.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {  // the same names in other files are other functions

// Blocks of keys at once: as many accumulators as fit the registers.
constexpr int kFloatBlocks = NIBBLE_TILE_TABLES || !HWY_ARCH_X86 ? 4 : 2;

template <int kRows, int kBlocks>
HWY_INLINE void AddColumn(const VF (&keys)[kBlocks], const float* q, VF (&sums)[kRows][kBlocks]) {
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const VF x = hn::Set(TileF(), q[r]);
    NIBBLE_UNROLL
    for (int b = 0; b < kBlocks; ++b) sums[r][b] = hn::MulAdd(x, keys[b], sums[r][b]);
  }
}

// scores: [kRows] of stride floats, 16 a block. kFetch: fetches a line with each line that is
// read.
template <DType kType, int kRows, bool kFetch, int kBlocks>
HWY_INLINE void ScoreFloat(const float* q, int64_t columns, const uint8_t* const (&tiles)[kBlocks],
                           FetchAhead fetch, float* scores, int64_t stride) {
  static_assert(kType == DType::kBF16 || kType == DType::kF32, "");
  const TileF df;
  for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(df)) {
    VF sums[kRows][kBlocks];
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      NIBBLE_UNROLL
      for (int b = 0; b < kBlocks; ++b) sums[r][b] = hn::Zero(df);
    }
    const float* x = q;
    constexpr int64_t kColumns = kType == DType::kBF16 ? 2 : 1;  // of a step
    for (int64_t step = 0; step < columns / kColumns * 64; step += 64, x += kColumns * kRows) {
      VU words[kBlocks];
      VF keys[kBlocks];
      NIBBLE_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        words[b] = LoadWords(tiles[b] + step, lane);
        if constexpr (kFetch) fetch.Line();
        keys[b] = hn::BitCast(df, kColumns == 2 ? hn::ShiftLeft<16>(words[b]) : words[b]);
      }
      AddColumn(keys, x, sums);
      if constexpr (kColumns == 2) {
        NIBBLE_UNROLL
        for (int b = 0; b < kBlocks; ++b) {
          keys[b] = hn::BitCast(df, hn::And(words[b], hn::Set(TileU(), 0xFFFF0000u)));
        }
        AddColumn(keys, x + kRows, sums);
      }
    }
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      NIBBLE_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        hn::StoreU(sums[r][b], df, scores + r * stride + b * kTileLanes + lane);
      }
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_SCORE_FLOAT_INL_H_
