// SPDX-License-Identifier: Apache-2.0
//
// Scores against KV4 and KV8 in exact integers. Included once per SIMD target.
//
// A query element is E4M3: an integer n of at most 448 * 512 in units of 2^-9. It is split as
// n = 8 X + r, X the nearest integer to n / 8, so |X| <= 28672 and |r| <= 4. A code of a key
// is the unsigned byte or nibble u = q + z of its tile (z = 128 or 8; numerics/tile.h), four
// columns in each lane's word, lane = key:
//
//   keys      | u0 u1 u2 u3 |   x 16 keys
//   VNNI      X = 256 h + l, two signed bytes:  | h0 h1 h2 h3 | and | l0 l1 l2 l3 |
//             sum X q = 256 (sum h u - z sum h) + (sum l u - z sum l)
//   others    X as 16 bits, two columns a word: | X0 | X2 | and | X1 | X3 |, against the even
//             and the odd bytes of the keys
//   both      two words for each row and four columns: packed [columns / 4][rows][2]
//
// The corrections by z are where the sums start. r is zero but for elements below 1/3584 of
// the row's largest, so few rows have any; those take the pass again with r in the place of
// X, and an eighth of the key scales.
//
// Overflow: sum X q is at most 28672 * 128 * 256 (head_dim) = 939,524,096 < 2^31, sum h q at
// most 112 * 128 * 256 and sum l q 128 * 128 * 256. What happens on the way to them does not
// matter, since vpdpbusd and the additions wrap; products of pairs, 2 * 28672 * 255, fit.
// Precision: the integer sum is exact and rounds once on conversion to F32, the product with
// the key's scale once more, the addition of r's part once more; the bound of the tests
// (attention_reference.cc) allows one for each of head_dim >= 16 columns.

#if defined(NIBBLE_SCORE_INTEGER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_SCORE_INTEGER_INL_H_
#undef NIBBLE_SCORE_INTEGER_INL_H_
#else
#define NIBBLE_SCORE_INTEGER_INL_H_
#endif

#include <algorithm>

#include "hwy/highway.h"
#include "kernels-cpu/attention/fetch_ahead.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {  // the same names in other files are other functions

// Whether one instruction multiplies and adds four bytes.
#undef NIBBLE_ATTENTION_VNNI
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
#define NIBBLE_ATTENTION_VNNI 1
#else
#define NIBBLE_ATTENTION_VNNI 0
#endif

using VI = hn::Vec<TileI>;

// The integers of one row of queries, padded with zeros to a multiple of 16 columns.
struct QueryIntegers {
  int16_t top[256];   // X, -28672..28672
  int16_t rest[256];  // r, -4..4

  // Splits `dim` E4M3 codes (none of them NaN); returns whether any rest is not 0.
  HWY_INLINE bool Split(const uint8_t* codes, int64_t dim, bool negate) {
    const TileF df;
    const TileI di;
    const hn::Rebind<uint8_t, TileF> d8;
    const hn::Rebind<int16_t, TileF> d16;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
    const VF unit = hn::Set(df, negate ? -512.0f : 512.0f);
    VI any = hn::Zero(di);
    for (int64_t i = 0; i < RoundUp(dim, kTileColumns); i += lanes) {
      const auto code = hn::LoadN(d8, codes + i, std::clamp<int64_t>(dim - i, 0, lanes));
      const VF value = SmallFloat<3, 7, 7>(hn::PromoteTo(TileU(), code));
      const VI n = hn::ConvertTo(di, hn::Mul(value, unit));
      const VI x = hn::ShiftRight<3>(hn::Add(n, hn::Set(di, 4)));
      const VI r = hn::Sub(n, hn::ShiftLeft<3>(x));
      any = hn::Or(any, r);
      hn::StoreU(hn::DemoteTo(d16, x), d16, top + i);
      hn::StoreU(hn::DemoteTo(d16, r), d16, rest + i);
    }
    return !hn::AllFalse(di, hn::Ne(any, hn::Zero(di)));
  }
};

// Writes the words of one row of `columns` integers x, word_stride words from one four columns
// to the next, and for each group of columns where its two sums start, start_stride apart.
inline void PackQueryRow(const int16_t* x, int64_t columns, int64_t group_columns, int zero_point,
                         int64_t word_stride, int32_t* words, int64_t start_stride,
                         int32_t* starts) {
  const hn::CappedTag<int16_t, 16> d16;
  const hn::RepartitionToWide<decltype(d16)> d32;
  const auto ones = hn::Set(d16, 1);
  for (int64_t begin = 0; begin < columns; begin += group_columns, starts += start_stride) {
    auto sum0 = hn::Zero(d32), sum1 = sum0;
    for (int64_t c = begin; c < begin + group_columns; c += static_cast<int64_t>(hn::Lanes(d16))) {
      const auto v = hn::LoadU(d16, x + c);
#if NIBBLE_ATTENTION_VNNI
      const auto high = hn::ShiftRight<8>(hn::Add(v, hn::Set(d16, 128)));
      const auto low = hn::Sub(v, hn::ShiftLeft<8>(high));
      const hn::Rebind<int8_t, decltype(d16)> d8;
      HWY_ALIGN int32_t first[4], second[4];
      hn::Store(hn::DemoteTo(d8, high), d8, reinterpret_cast<int8_t*>(first));
      hn::Store(hn::DemoteTo(d8, low), d8, reinterpret_cast<int8_t*>(second));
      sum0 = hn::Add(sum0, hn::WidenMulPairwiseAdd(d32, high, ones));
      sum1 = hn::Add(sum1, hn::WidenMulPairwiseAdd(d32, low, ones));
#else
      // Of each 64 bits x0 x1 x2 x3, in their low words: x0 x2 and x1 x3.
      const hn::Repartition<uint64_t, decltype(d16)> d64;
      const auto even_mask = hn::Set(d64, 0xFFFF), odd_mask = hn::Set(d64, 0xFFFF0000);
      const auto four = hn::BitCast(d64, v), next = hn::ShiftRight<16>(four);
      HWY_ALIGN uint64_t first[4], second[4];
      hn::Store(hn::Or(hn::And(four, even_mask), hn::And(next, odd_mask)), d64, first);
      hn::Store(hn::Or(hn::And(next, even_mask), hn::And(hn::ShiftRight<16>(next), odd_mask)), d64,
                second);
      sum0 = hn::Add(sum0, hn::WidenMulPairwiseAdd(d32, v, ones));
#endif
      for (size_t i = 0; i < hn::Lanes(d16) / 4; ++i, words += word_stride) {
        words[0] = static_cast<int32_t>(first[i]);
        words[1] = static_cast<int32_t>(second[i]);
      }
    }
    starts[0] = -zero_point * hn::ReduceSum(d32, sum0);
    starts[1] = -zero_point * hn::ReduceSum(d32, sum1);
  }
}

// The two running sums of each row and block of keys.
template <int kRows, int kBlocks>
struct IntegerSums {
  VI first[kRows][kBlocks], second[kRows][kBlocks];

  HWY_INLINE void Start(const int32_t* starts) {
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      NIBBLE_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        first[r][b] = hn::Set(TileI(), starts[2 * r]);
        second[r][b] = hn::Set(TileI(), starts[2 * r + 1]);
      }
    }
  }

  // Adds four columns: bytes[b] of each block of keys times two words of each row.
  HWY_INLINE void Add(const VU (&bytes)[kBlocks], const int32_t* q) {
    const TileI di;
#if NIBBLE_ATTENTION_VNNI
    const hn::Repartition<uint8_t, TileI> du8;
    const hn::Repartition<int8_t, TileI> di8;
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const auto high = hn::BitCast(di8, hn::Set(di, q[2 * r]));
      const auto low = hn::BitCast(di8, hn::Set(di, q[2 * r + 1]));
      NIBBLE_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        const auto u = hn::BitCast(du8, bytes[b]);
        first[r][b] = hn::SumOfMulQuadAccumulate(di, u, high, first[r][b]);
        second[r][b] = hn::SumOfMulQuadAccumulate(di, u, low, second[r][b]);
      }
    }
#else
    const hn::Repartition<int16_t, TileI> di16;
    const hn::Repartition<uint16_t, TileI> du16;
    hn::Vec<hn::Repartition<int16_t, TileI>> even[kBlocks], odd[kBlocks];
    NIBBLE_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      even[b] = hn::BitCast(di16, hn::And(bytes[b], hn::Set(TileU(), 0x00FF00FFu)));
      odd[b] = hn::BitCast(di16, hn::ShiftRight<8>(hn::BitCast(du16, bytes[b])));
    }
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const auto x0 = hn::BitCast(di16, hn::Set(di, q[2 * r]));
      const auto x1 = hn::BitCast(di16, hn::Set(di, q[2 * r + 1]));
      NIBBLE_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        first[r][b] = hn::Add(first[r][b], hn::WidenMulPairwiseAdd(di, even[b], x0));
        second[r][b] = hn::Add(second[r][b], hn::WidenMulPairwiseAdd(di, odd[b], x1));
      }
    }
#endif
  }

  HWY_INLINE VF Total(int r, int b) const {
#if NIBBLE_ATTENTION_VNNI
    const VI total = hn::Add(hn::ShiftLeft<8>(first[r][b]), second[r][b]);
#else
    const VI total = hn::Add(first[r][b], second[r][b]);
#endif
    return hn::ConvertTo(TileF(), total);
  }
};

// Blocks of keys that share a row's broadcast words: as many sums as fit the registers beside
// the keys, and enough that the latency of the multiplication is hidden.
template <int kRows>
constexpr int IntegerBlocks() {
  return NIBBLE_TILE_TABLES ? (kRows == 4 ? 2 : 4) : (kRows == 4 ? 1 : kRows == 2 ? 2 : 4);
}

// Sums of kRows packed rows against `columns` columns of kBlocks key tiles, times the keys'
// scales; kAdd: added to what is there. scores: [kRows] of stride floats, 16 a block.
// scales: [kBlocks][16], multiplied by `factor`. kFetch: fetches a line with each line
// that is read.
template <DType kType, int kRows, int kBlocks, bool kAdd, bool kFetch>
HWY_INLINE void ScoreInteger(const int32_t* q, const int32_t* starts, int64_t columns,
                             const uint8_t* const (&tiles)[kBlocks], FetchAhead fetch,
                             const float* scales, float factor, float* scores, int64_t stride) {
  const TileF df;
  constexpr int64_t kWords = 2 * kRows;  // of four columns
  for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(df)) {
    IntegerSums<kRows, kBlocks> sums;
    sums.Start(starts);
    const int32_t* words = q;
    VU bytes[kBlocks];
    if constexpr (kType == DType::kI4) {
      const VU nibbles = hn::Set(TileU(), 0x0F0F0F0Fu);
      const int64_t end = columns / 8 * 64;
      for (int64_t step = 0; step < end; step += 64, words += 2 * kWords) {
        VU both[kBlocks];
        NIBBLE_UNROLL
        for (int b = 0; b < kBlocks; ++b) {
          both[b] = LoadWords(tiles[b] + step, lane);
          bytes[b] = hn::And(both[b], nibbles);
          if constexpr (kFetch) fetch.Line();
        }
        sums.Add(bytes, words);
        NIBBLE_UNROLL
        for (int b = 0; b < kBlocks; ++b) bytes[b] = hn::And(hn::ShiftRight<4>(both[b]), nibbles);
        sums.Add(bytes, words + kWords);
      }
    } else {
      const int64_t end = columns / 4 * 64;
      for (int64_t step = 0; step < end; step += 64, words += kWords) {
        NIBBLE_UNROLL
        for (int b = 0; b < kBlocks; ++b) {
          bytes[b] = LoadWords(tiles[b] + step, lane);
          if constexpr (kFetch) fetch.Line();
        }
        sums.Add(bytes, words);
      }
    }
    NIBBLE_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      const VF scale =
          hn::Mul(hn::LoadU(df, scales + b * kTileLanes + lane), hn::Set(df, factor));
      NIBBLE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        float* to = scores + r * stride + b * kTileLanes + lane;
        const VF total = sums.Total(r, b);
        hn::StoreU(kAdd ? hn::MulAdd(total, scale, hn::LoadU(df, to)) : hn::Mul(total, scale), df,
                   to);
      }
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_SCORE_INTEGER_INL_H_
