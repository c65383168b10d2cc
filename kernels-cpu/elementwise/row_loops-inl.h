// SPDX-License-Identifier: Apache-2.0
//
// Loops over one row of F32 of any length and alignment. Included once per SIMD target.

#if defined(NIBBLE_ROW_LOOPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_ROW_LOOPS_INL_H_
#undef NIBBLE_ROW_LOOPS_INL_H_
#else
#define NIBBLE_ROW_LOOPS_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using RowF = hn::ScalableTag<float>;
using RowI = hn::RebindToSigned<RowF>;
using RowV = hn::Vec<RowF>;

// Calls body(i, count) for each full vector, then once for the rest.
template <class Body>
HWY_INLINE void ForEachVector(int64_t n, const Body& body) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(RowF()));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, lanes);
  if (i < n) body(i, n - i);
}

// LoadN and StoreN of a full vector cost more than a plain load on targets without masks.
HWY_INLINE RowV LoadUpTo(const float* p, int64_t count) {
  const RowF d;
  return count == static_cast<int64_t>(hn::Lanes(d)) ? hn::LoadU(d, p)
                                                     : hn::LoadN(d, p, static_cast<size_t>(count));
}

template <class D, class V>
HWY_INLINE void StoreUpTo(D d, V v, hn::TFromD<D>* p, int64_t count) {
  if (count == static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(v, d, p);
  } else {
    hn::StoreN(v, d, p, static_cast<size_t>(count));
  }
}

// The largest magnitude as F32 bits. Without the sign, the bits of floats order as
// integers do, with infinity and NaN above all finite values, so that one integer maximum
// finds both amax and whether the row is finite.
HWY_INLINE uint32_t LargestMagnitudeBits(const float* x, int64_t n) {
  const RowF d;
  const RowI di;
  using VI = hn::Vec<RowI>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VI magnitude_mask = hn::Set(di, 0x7FFFFFFF);
  VI m0 = hn::Zero(di), m1 = m0;
  const auto magnitude = [&](RowV v) HWY_ATTR {
    return hn::And(hn::BitCast(di, v), magnitude_mask);
  };
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    m0 = hn::Max(m0, magnitude(hn::LoadU(d, x + i)));
    m1 = hn::Max(m1, magnitude(hn::LoadU(d, x + i + lanes)));
  }
  ForEachVector(n - i, [&](int64_t k, int64_t count) HWY_ATTR {
    m0 = hn::Max(m0, magnitude(LoadUpTo(x + i + k, count)));
  });
  return static_cast<uint32_t>(hn::ReduceMax(di, hn::Max(m0, m1)));
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_ROW_LOOPS_INL_H_
