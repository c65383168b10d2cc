// SPDX-License-Identifier: Apache-2.0
//
// Columns are shared out to threads in blocks of 64: a cache line of four neighbours never
// belongs to two threads, and a block of rows passes through the first-level cache once.
#include "kernels-cpu/quantize/channel_statistics.h"

#include <algorithm>

#include "kernels-cpu/numerics/types.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/quantize/channel_statistics.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/elementwise/row_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

void AddRowStatistics(const float* x, int64_t n, float* sums, float* maxima) {
  const RowF d;
  ForEachVector(n, [&](int64_t i, int64_t count) HWY_ATTR {
    const RowV v = LoadUpTo(x + i, count);
    if (sums != nullptr) {
      StoreUpTo(d, hn::MulAdd(v, v, LoadUpTo(sums + i, count)), sums + i, count);
    }
    if (maxima != nullptr) {
      StoreUpTo(d, hn::Max(hn::Abs(v), LoadUpTo(maxima + i, count)), maxima + i, count);
    }
  });
}

void ScaleRow(float* w, int64_t n, float row_factor, const float* col_factors) {
  const RowF d;
  const RowV row = hn::Set(d, row_factor);
  ForEachVector(n, [&](int64_t i, int64_t count) HWY_ATTR {
    RowV factor = row;
    if (col_factors != nullptr) factor = hn::Mul(factor, LoadUpTo(col_factors + i, count));
    StoreUpTo(d, hn::Mul(LoadUpTo(w + i, count), factor), w + i, count);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(AddRowStatistics);
HWY_EXPORT(ScaleRow);

void AddChannelStatistics(Workspace& workspace, const float* x, int64_t stride, int64_t rows,
                          int64_t cols, float* sums, float* maxima) {
  constexpr int64_t kBlock = 64;
  workspace.pool().Run([&](int thread) {
    const Range blocks = Share(DivUp(cols, kBlock), thread, workspace.threads());
    const int64_t begin = blocks.begin * kBlock, end = std::min(cols, blocks.end * kBlock);
    if (begin >= end) return;
    for (int64_t r = 0; r < rows; ++r) {
      HWY_DYNAMIC_DISPATCH(AddRowStatistics)
      (x + r * stride + begin, end - begin, sums == nullptr ? nullptr : sums + begin,
       maxima == nullptr ? nullptr : maxima + begin);
    }
  });
}

void ScaleMatrix(Workspace& workspace, float* w, int64_t stride, int64_t rows, int64_t cols,
                 const float* row_factors, const float* col_factors) {
  workspace.pool().Run([&](int thread) {
    const Range range = Share(rows, thread, workspace.threads());
    for (int64_t r = range.begin; r < range.end; ++r) {
      HWY_DYNAMIC_DISPATCH(ScaleRow)
      (w + r * stride, cols, row_factors == nullptr ? 1.0f : row_factors[r], col_factors);
    }
  });
}

}  // namespace nibble
#endif  // HWY_ONCE
