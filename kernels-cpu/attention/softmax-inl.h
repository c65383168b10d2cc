// SPDX-License-Identifier: Apache-2.0
//
// The softmax step of attention: one row's sums of a step become weights, the row's maximum
// and sum are brought up to date. Included once per SIMD target.
//
//   sums     | s0 s1 ... | visible | anything |       sums of products, key scales applied
//   t_j      = s_j * row scale * log2(e)              the score, in powers of two
//   weights  | 2^(40 + t_j - m) * value scale j | 0 ... 0 |   m = max t_j so far
//
// Precision. Powers of two need no multiple of ln 2 subtracted: t - m is one fused operation
// on the sum itself, and its integer and fraction separate exactly. 2^f for f in [-1/2, 1/2]
// is 1 + f P(f), P of degree 5 within 2^-26.7, so a weight is within 2 * 2^-24 of its value.
//
// Weights, and with them a row's sum and acc, are stored 2^40 times as large: those from
// 2^-140 on are then normal numbers, with room for the values' scales, and what is smaller is
// 0. A denormal weight would make each of its products some 100 cycles long; a layer whose
// scores lie far apart took 14 times as long. Up to 2^87 / keys, values cannot overflow.
//
// t <= m but for the rounding of m (|m| 2^-24), so no weight exceeds 1 by more than that. A
// NaN stays one; a sum of -infinity has weight 0; +infinity makes its row NaN (infinity -
// infinity), as the formula does.

#if defined(NIBBLE_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_SOFTMAX_INL_H_
#undef NIBBLE_SOFTMAX_INL_H_
#else
#define NIBBLE_SOFTMAX_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "hwy/highway.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {  // the same names in other files are other functions

constexpr float kLog2E = 1.44269504f;
constexpr int kWeightExponent = 40;         // of a weight of 1
constexpr float kLowestExponent = -140.0f;  // weights below 2 to it are 0

// 2^(kWeightExponent + x) for x of at most about 1, -infinity and NaN included.
HWY_INLINE VF Weight(VF x) {
  const TileF df;
  const VF lowest = hn::Set(df, kLowestExponent);
  const auto nothing = hn::Lt(x, lowest);  // not for NaN, which passes
  // Adding it leaves the nearest integer in the low bits.
  const VF magic = hn::Set(df, 12582912.0f);  // 1.5 * 2^23
  x = hn::IfThenElse(nothing, lowest, x);
  const VF shifted = hn::Add(x, magic);
  const VF n = hn::Sub(shifted, magic);
  const VF f = hn::Sub(x, n);
  VF p = hn::MulAdd(hn::Set(df, 0x1.44138ap-13f), f, hn::Set(df, 0x1.5f0890p-10f));
  p = hn::MulAdd(p, f, hn::Set(df, 0x1.3b2a54p-7f));
  p = hn::MulAdd(p, f, hn::Set(df, 0x1.c6af6cp-5f));
  p = hn::MulAdd(p, f, hn::Set(df, 0x1.ebfbe0p-3f));
  p = hn::MulAdd(p, f, hn::Set(df, 0x1.62e430p-1f));
  p = hn::MulAdd(p, f, hn::Set(df, 1.0f));
#if NIBBLE_TILE_TABLES
  p = VF{_mm512_scalef_ps(p.raw, hn::Add(n, hn::Set(df, float{kWeightExponent})).raw)};
#else
  const TileI di;
  const auto whole = hn::Sub(hn::BitCast(di, shifted), hn::BitCast(di, magic));
  const auto exponent = hn::Add(whole, hn::Set(di, 127 + kWeightExponent));
  p = hn::Mul(p, hn::BitCast(df, hn::ShiftLeft<23>(exponent)));
#endif
  return hn::IfThenZeroElse(nothing, p);
}

// 2^x in the same way, 0 below 2^-140.
HWY_INLINE VF Exp2(VF x) {
  return hn::Mul(Weight(x), hn::Set(TileF(), 1.0f / (int64_t{1} << kWeightExponent)));
}
HWY_INLINE float Exp2(float x) { return hn::GetLane(Exp2(hn::Set(TileF(), x))); }

// One row's state; sum in 16 lanes that are added up at the end.
struct RowSoftmax {
  float* max;
  float* sums;  // [16]
  float* acc;
  int64_t padded_dim;

  HWY_INLINE void Rescale(float factor) const {
    const TileF df;
    const VF f = hn::Set(df, factor);
    for (int64_t i = 0; i < kTileLanes; i += static_cast<int64_t>(hn::Lanes(df))) {
      hn::StoreU(hn::Mul(hn::LoadU(df, sums + i), f), df, sums + i);
    }
    for (int64_t i = 0; i < padded_dim; i += static_cast<int64_t>(hn::Lanes(df))) {
      hn::StoreU(hn::Mul(hn::LoadU(df, acc + i), f), df, acc + i);
    }
  }
};

// s: `length` sums (a multiple of 16) of which the row sees the first `visible`; becomes its
// weights. scale: not negative, log2(e) included. kFold: multiplies by value_scales[length].
template <bool kFold>
HWY_INLINE void SoftmaxRow(const RowSoftmax& row, float scale, float* s, int64_t visible,
                           int64_t length, const float* value_scales) {
  const TileF df;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  const VF zero = hn::Zero(df);
  const int64_t whole = visible / lanes * lanes;
  const auto seen = hn::FirstN(df, static_cast<size_t>(visible - whole));
  VF largest = hn::Set(df, -kInfinity);
  for (int64_t i = 0; i < whole; i += lanes) largest = hn::Max(largest, hn::LoadU(df, s + i));
  if (whole < visible) {
    const VF last = hn::IfThenElse(seen, hn::LoadU(df, s + whole), largest);
    largest = hn::Max(largest, last);
  }
  const float before = *row.max;
  const float now = visible > 0 ? std::max(before, hn::ReduceMax(df, largest) * scale) : before;
  // A row of sums -infinity has no maximum to subtract; its weights are 0.
  const float shift = now == -kInfinity ? 0.0f : now;
  if (now != before) {
    // What was summed up before the first finite score is 0 or NaN, whatever the factor.
    if (before != -kInfinity) row.Rescale(Exp2(before - shift));
    *row.max = now;
  }
  const VF scales = hn::Set(df, scale), shifts = hn::Set(df, shift);
  const auto weigh = [&](int64_t i) HWY_ATTR {
    return Weight(hn::MulSub(hn::LoadU(df, s + i), scales, shifts));
  };
  // Lane i of a vector always adds to the same one of 16 sums.
  VF sums[kTileLanes / 4];
  const int64_t vectors = kTileLanes / lanes;
  for (int64_t v = 0; v < vectors; ++v) sums[v] = hn::LoadU(df, row.sums + v * lanes);
  const auto store = [&](int64_t i, VF weight) HWY_ATTR {
    if constexpr (kFold) {
      // Scales of keys that are not seen may be anything.
      const VF scaled = hn::Mul(weight, hn::LoadU(df, value_scales + i));
      weight = i < whole ? scaled : hn::IfThenElseZero(seen, scaled);
    }
    hn::StoreU(weight, df, s + i);
  };
  for (int64_t i = 0; i < whole; i += lanes) {
    const VF weight = weigh(i);
    VF& sum = sums[i / lanes % vectors];
    sum = hn::Add(sum, weight);
    store(i, weight);
  }
  int64_t i = whole;
  if (whole < visible) {
    const VF weight = hn::IfThenElseZero(seen, weigh(whole));
    VF& sum = sums[whole / lanes % vectors];
    sum = hn::Add(sum, weight);
    store(whole, weight);
    i += lanes;
  }
  for (int64_t v = 0; v < vectors; ++v) hn::StoreU(sums[v], df, row.sums + v * lanes);
  for (; i < length; i += lanes) hn::StoreU(zero, df, s + i);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_SOFTMAX_INL_H_
