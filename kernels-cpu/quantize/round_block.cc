// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/quantize/round_block.h"

#include <algorithm>
#include <cmath>

#include "kernels-cpu/numerics/formats.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/quantize/round_block.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/elementwise/row_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// Rounds x to a code and returns the code's value. I4 in place: the general encoders are slower.
HWY_INLINE float RoundTo(DType code, float x, uint8_t* bits) {
  if (code == DType::kI4) {
    const float q = std::nearbyint(std::min(std::max(x, -8.0f), 7.0f));
    *bits = static_cast<uint8_t>(static_cast<int>(q) & 15);
    return q;
  }
  const uint32_t encoded = Encode(code, x);
  *bits = static_cast<uint8_t>(encoded);
  return Decode(code, encoded);
}

void RoundColumns(DType code, const float* w, const float* scales, const float* r,
                  const float* inverse, int64_t n, int64_t begin, int64_t end, float* sums,
                  float* errors, uint8_t* codes) {
  const RowF d;
  for (int64_t j = begin; j < end; ++j) {
    float value = 0;
    codes[j] = 0;
    if (scales[j] != 0) {
      value = RoundTo(code, (w[j] + sums[j] * inverse[j]) / scales[j], codes + j) * scales[j];
    }
    const float error = errors[j] = w[j] - value;
    const RowV e = hn::Set(d, error);
    const float* row = r + j * n + j + 1;
    float* to = sums + j + 1;
    ForEachVector(n - j - 1, [&](int64_t i, int64_t count) HWY_ATTR {
      StoreUpTo(d, hn::MulAdd(e, LoadUpTo(row + i, count), LoadUpTo(to + i, count)), to + i,
                count);
    });
  }
}

void PredictColumns(const float* w, const float* r, const float* inverse, int64_t n,
                    int64_t begin, int64_t end, const float* sums, float* target) {
  const RowF d;
  float own[128];  // sums with the terms of this group
  std::copy(sums + begin, sums + end, own);
  for (int64_t j = begin; j < end; ++j) {
    const float error = -own[j - begin] * inverse[j];
    target[j - begin] = w[j] - error;
    const RowV e = hn::Set(d, error);
    const float* row = r + j * n + j + 1;
    float* to = own + j - begin + 1;
    ForEachVector(end - j - 1, [&](int64_t i, int64_t count) HWY_ATTR {
      StoreUpTo(d, hn::MulAdd(e, LoadUpTo(row + i, count), LoadUpTo(to + i, count)), to + i,
                count);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(RoundColumns);
HWY_EXPORT(PredictColumns);

void RoundBlock(DType code, const float* w, const float* scales, const float* r,
                const float* inverse, int64_t n, int64_t begin, int64_t end, float* sums,
                float* errors, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(RoundColumns)
  (code, w, scales, r, inverse, n, begin, end, sums, errors, codes);
}

void PredictBlock(const float* w, const float* r, const float* inverse, int64_t n, int64_t begin,
                  int64_t end, const float* sums, float* target) {
  HWY_DYNAMIC_DISPATCH(PredictColumns)(w, r, inverse, n, begin, end, sums, target);
}

}  // namespace nibble
#endif  // HWY_ONCE
