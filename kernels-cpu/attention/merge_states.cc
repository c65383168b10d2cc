// SPDX-License-Identifier: Apache-2.0
//
// Merges the softmax states of consecutive ranges of keys (query_block.h):
//
//   m = max m_i        y = sum 2^(m_i - m) acc_i / sum 2^(m_i - m) l_i
//
// Precision: every factor is at most 1 and within 2 * 2^-24 (softmax-inl.h), each sum has one
// rounding a range, the quotient two (a product with the reciprocal), and one of the factors is
// 1, so the denominator is at least 1 where any score was finite. A range without a visible key has m = -infinity: factor 0.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels-cpu/attention/query_block.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/attention/merge_states.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/attention/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {  // the same names in other files are other functions

void MergeStates(const SoftmaxState* states, int64_t count, int64_t row, int64_t padded_dim,
                 int64_t head_dim, float* y) {
  const TileF df;
  float max = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < count; ++i) max = std::max(max, states[i].max[row]);
  const float shift = std::isinf(max) && max < 0 ? 0.0f : max;
  // The weight of a state, recomputed below rather than stored: there may be many. A single
  // state's is 1.
  const auto weight = [&](int64_t i) HWY_ATTR {
    return count == 1 ? hn::Set(df, 1.0f) : Exp2(hn::Set(df, states[i].max[row] - shift));
  };
  VF sum = hn::Zero(df);
  for (int64_t i = 0; i < count; ++i) {
    sum = hn::MulAdd(weight(i), hn::Set(df, states[i].sum[row]), sum);
  }
  const VF inverse = hn::Div(hn::Set(df, 1.0f), sum);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  for (int64_t c = 0; c < head_dim; c += lanes) {
    VF total = hn::Zero(df);
    for (int64_t i = 0; i < count; ++i) {
      const VF acc = hn::LoadU(df, states[i].acc + row * padded_dim + c);
      total = hn::MulAdd(weight(i), acc, total);
    }
    const VF mean = hn::Mul(total, inverse);
    if (c + lanes <= head_dim) {
      hn::StoreU(mean, df, y + c);
    } else {
      hn::StoreN(mean, df, y + c, static_cast<size_t>(head_dim - c));
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(MergeStates);

void MergeStates(const SoftmaxState* states, int64_t count, int64_t row, int64_t padded_dim,
                 int64_t head_dim, float* y) {
  HWY_DYNAMIC_DISPATCH(MergeStates)(states, count, row, padded_dim, head_dim, y);
}

}  // namespace nibble
#endif  // HWY_ONCE
