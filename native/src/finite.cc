// SPDX-License-Identifier: Apache-2.0
#include "native/src/finite.h"

#include <atomic>
#include <cstring>
#include <limits>

namespace nibble::abi {
namespace {

// The bits of a magnitude, the smallest that is not finite, and of the type's width.
struct Layout {
  uint32_t magnitude;
  uint32_t infinity;
};

Layout LayoutOf(int32_t dtype) {
  switch (dtype) {
    case NB_F16: return {0x7FFF, 0x7C00};
    case NB_BF16: return {0x7FFF, 0x7F80};
    default: return {0x7FFFFFFF, 0x7F800000};
  }
}

template <class Bits>
uint32_t MagnitudeAt(const View& v, int64_t row, int64_t col, const Layout& layout) {
  Bits bits;
  std::memcpy(&bits, v.data + (row * v.stride + col) * static_cast<int64_t>(sizeof(Bits)),
              sizeof(Bits));
  return bits & layout.magnitude;
}

// The first column of a row that is not finite, or -1. The usual row is clean: a maximum,
// which vectorizes, decides before any search.
template <class Bits>
int64_t FirstBad(const View& v, int64_t row, const Layout& layout) {
  uint32_t largest = 0;
  for (int64_t c = 0; c < v.cols; ++c) {
    const uint32_t m = MagnitudeAt<Bits>(v, row, c, layout);
    largest = m > largest ? m : largest;
  }
  if (largest < layout.infinity) return -1;
  int64_t c = 0;
  while (MagnitudeAt<Bits>(v, row, c, layout) < layout.infinity) ++c;
  return c;
}

template <class Bits>
nb_status Check(const Arg& arg, ThreadPool& pool, const View& v) {
  const Layout layout = LayoutOf(v.dtype);
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> first_row{kNone};
  pool.Run([&](int thread) {
    const Range range = Share(v.rows, thread, pool.threads());
    for (int64_t r = range.begin; r < range.end; ++r) {
      if (FirstBad<Bits>(v, r, layout) < 0) continue;
      int64_t seen = first_row.load();
      while (r < seen && !first_row.compare_exchange_weak(seen, r)) {
      }
      return;
    }
  });
  const int64_t row = first_row.load();
  if (row == kNone) return NB_OK;
  const int64_t col = FirstBad<Bits>(v, row, layout);
  const bool infinite = MagnitudeAt<Bits>(v, row, col, layout) == layout.infinity;
  return FailArg(NB_INVALID_ARGUMENT, arg,
                 "element [%lld, %lld] is %s but a finite number was expected",
                 static_cast<long long>(row), static_cast<long long>(col),
                 infinite ? "infinite" : "NaN");
}

}  // namespace

nb_status CheckFinite(const Arg& arg, ThreadPool& pool, const View& weights) {
  return weights.element_bytes == 2 ? Check<uint16_t>(arg, pool, weights)
                                    : Check<uint32_t>(arg, pool, weights);
}

}  // namespace nibble::abi
