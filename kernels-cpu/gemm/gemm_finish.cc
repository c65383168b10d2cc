// SPDX-License-Identifier: Apache-2.0
//
// The end of a product, while its sums are in the first-level cache: one multiplication
// by the unit (a power of two, exact), one by the token's scale, one by the weights'
// factor, one addition each for bias and residual. Every step rounds once.
#include "kernels-cpu/gemm/gemm_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/gemm/gemm_finish.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/elementwise/row_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

void FinishRows(const FinishArguments& a) {
  const RowF d;
  const RowV unit = hn::Set(d, a.unit);
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* acc = a.acc + r * kUnitColumns;
    const float* residual = a.residual == nullptr ? nullptr : a.residual + r * a.residual_stride;
    float* to = a.to + r * a.to_stride;
    const RowV scale = hn::Set(d, a.scales[r]);
    ForEachVector(a.columns, [&](int64_t c, int64_t count) HWY_ATTR {
      RowV v = hn::Mul(hn::Mul(LoadUpTo(acc + c, count), unit), scale);
      v = hn::Mul(v, LoadUpTo(a.factors + c, count));
      if (a.bias != nullptr) v = hn::Add(v, LoadUpTo(a.bias + c, count));
      if (residual != nullptr) v = hn::Add(v, LoadUpTo(residual + c, count));
      StoreUpTo(d, v, to + c, count);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(FinishRows);

void FinishRows(const FinishArguments& arguments) { HWY_DYNAMIC_DISPATCH(FinishRows)(arguments); }

}  // namespace nibble
#endif  // HWY_ONCE
