// SPDX-License-Identifier: Apache-2.0
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "native/src/read_bandwidth.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include <atomic>
#include <chrono>
#include <cstring>

#include "kernels-cpu/memory/buffer.h"
#include "native/src/read_bandwidth.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::abi {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Four streams a thread: a hardware prefetcher follows several at once, and more lines are
// in flight than one stream asks for. The same shape as the GEMM's panels of decode.
constexpr int kStreams = 4;
constexpr size_t kLine = 64;
constexpr size_t kAhead = 1024;  // prefetch distance in bytes: some 100 ns at 10 GB/s

// The sum of all 64-bit words of [data, data + bytes); bytes is a multiple of 4 lines, data
// aligned to a line.
uint64_t SumWords(const uint8_t* data, size_t bytes) {
  const hn::CappedTag<uint64_t, 8> d;
  using V = hn::Vec<decltype(d)>;
  const size_t step = hn::Lanes(d) * sizeof(uint64_t);
  const size_t each = bytes / kStreams;
  V s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  for (size_t i = 0; i < each; i += kLine) {
    const uint8_t* line = data + i;
    // A prefetch past the end is harmless: it never faults.
    hwy::Prefetch(line + kAhead);
    hwy::Prefetch(line + each + kAhead);
    hwy::Prefetch(line + 2 * each + kAhead);
    hwy::Prefetch(line + 3 * each + kAhead);
    for (size_t b = 0; b < kLine; b += step) {
      const auto load = [&](size_t stream) HWY_ATTR {
        return hn::Load(d, reinterpret_cast<const uint64_t*>(line + stream * each + b));
      };
      s0 = hn::Add(s0, load(0));
      s1 = hn::Add(s1, load(1));
      s2 = hn::Add(s2, load(2));
      s3 = hn::Add(s3, load(3));
    }
  }
  return hn::ReduceSum(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::abi
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::abi {

HWY_EXPORT(SumWords);

double MeasureReadBandwidth(ThreadPool& pool, int64_t bytes, int repeats) {
  constexpr int64_t kUnit = 4 * 64;  // a line for each stream
  const int64_t units = bytes / kUnit;
  const Buffer buffer(static_cast<size_t>(units * kUnit));
  const auto share = [&](int thread) { return Share(units, thread, pool.threads()); };
  pool.Run([&](int thread) {
    const Range r = share(thread);
    // Not zero: untouched or zero pages may all be one page of zeros, which is always cached.
    std::memset(buffer.data() + r.begin * kUnit, 1 + thread % 7,
                static_cast<size_t>((r.end - r.begin) * kUnit));
  });
  // The sums are stored where the compiler cannot prove that nobody looks.
  std::atomic<uint64_t> sink{0};
  double best = 0;
  for (int i = 0; i < repeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    pool.Run([&](int thread) {
      const Range r = share(thread);
      const uint64_t sum = HWY_DYNAMIC_DISPATCH(SumWords)(
          buffer.data() + r.begin * kUnit, static_cast<size_t>((r.end - r.begin) * kUnit));
      sink.fetch_add(sum, std::memory_order_relaxed);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    const double rate = static_cast<double>(units * kUnit) / seconds.count();
    if (rate > best) best = rate;
  }
  return best;
}

}  // namespace nibble::abi
#endif  // HWY_ONCE
