// SPDX-License-Identifier: Apache-2.0
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "native/src/read_bandwidth.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "native/src/read_bandwidth.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::abi {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kLine = 64;

// The sum of all 64-bit words of [data, data + bytes): `bytes` is a multiple of kStreams lines,
// data aligned to a line. Four lines of a stream are read before the next stream's turn, since
// memory, too, is fastest within a page; their sums are independent.
template <int kStreams, bool kPrefetch>
uint64_t SumStreams(const uint8_t* data, size_t bytes, size_t ahead) {
  const hn::CappedTag<uint64_t, 8> d;
  const size_t lanes = hn::Lanes(d);
  const size_t each = bytes / kStreams;
  auto s0 = hn::Zero(d), s1 = s0;
  const auto read_line = [&](const uint8_t* line) HWY_ATTR {
    // A prefetch past the end is harmless: it never faults.
    if (kPrefetch) hwy::Prefetch(line + ahead);
    const auto* words = reinterpret_cast<const uint64_t*>(line);
    for (size_t i = 0; i < kLine / sizeof(uint64_t); i += lanes) {
      s0 = hn::Add(s0, hn::Load(d, words + i));
    }
    std::swap(s0, s1);
  };
  size_t at = 0;
  for (; at + 4 * kLine <= each; at += 4 * kLine) {
    for (int stream = 0; stream < kStreams; ++stream) {
      const uint8_t* line = data + stream * each + at;
      read_line(line);
      read_line(line + kLine);
      read_line(line + 2 * kLine);
      read_line(line + 3 * kLine);
    }
  }
  for (; at < each; at += kLine) {
    for (int stream = 0; stream < kStreams; ++stream) read_line(data + stream * each + at);
  }
  return hn::ReduceSum(d, hn::Add(s0, s1));
}

template <int kStreams>
uint64_t Sum(const uint8_t* data, size_t bytes, size_t ahead) {
  return ahead == 0 ? SumStreams<kStreams, false>(data, bytes, 0)
                    : SumStreams<kStreams, true>(data, bytes, ahead);
}

}  // namespace

uint64_t SumWords(const uint8_t* data, size_t bytes, int streams, size_t ahead) {
  switch (streams) {
    case 1: return Sum<1>(data, bytes, ahead);
    case 2: return Sum<2>(data, bytes, ahead);
    case 4: return Sum<4>(data, bytes, ahead);
    case 8: return Sum<8>(data, bytes, ahead);
    default: return Sum<16>(data, bytes, ahead);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::abi
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::abi {

HWY_EXPORT(SumWords);

namespace {

constexpr int kStreamCounts[] = {1, 2, 4, 8, 16};
constexpr int kPrefetches[] = {0, 512, 1024, 2048, 4096};

constexpr int64_t kUnit = 16 * 64;  // a line for each stream of the most

}  // namespace

ReadBandwidth::ReadBandwidth(ThreadPool& pool, int64_t bytes)
    : pool_(pool), units_(bytes / kUnit), buffer_(static_cast<size_t>(units_ * kUnit)) {
  pool_.Run([&](int thread) {
    const Range r = Share(units_, thread, pool_.threads());
    // Not zero: untouched or zero pages may all be one page of zeros, which is always cached.
    std::memset(buffer_.data() + r.begin * kUnit, 1 + thread % 7,
                static_cast<size_t>((r.end - r.begin) * kUnit));
  });
}

double ReadBandwidth::Pass(const ReadKernel& kernel) {
  const auto begin = std::chrono::steady_clock::now();
  pool_.Run([&](int thread) {
    const Range r = Share(units_, thread, pool_.threads());
    const uint64_t sum = HWY_DYNAMIC_DISPATCH(SumWords)(
        buffer_.data() + r.begin * kUnit, static_cast<size_t>((r.end - r.begin) * kUnit),
        kernel.streams, static_cast<size_t>(kernel.prefetch_bytes));
    sink_.fetch_add(sum, std::memory_order_relaxed);
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  return static_cast<double>(units_ * kUnit) / seconds.count();
}

double ReadBandwidth::Measure(const ReadKernel& kernel, int passes) {
  double best = 0;
  for (int i = 0; i < passes; ++i) best = std::max(best, Pass(kernel));
  return best;
}

std::vector<ReadRate> ReadBandwidth::MeasureAll(int passes) {
  std::vector<ReadRate> rates;
  for (const int streams : kStreamCounts) {
    for (const int prefetch : kPrefetches) rates.push_back({{streams, prefetch}, 0});
  }
  for (int i = 0; i < passes; ++i) {
    for (ReadRate& rate : rates) {
      rate.bytes_per_second = std::max(rate.bytes_per_second, Pass(rate.kernel));
    }
  }
  std::stable_sort(rates.begin(), rates.end(), [](const ReadRate& a, const ReadRate& b) {
    return a.bytes_per_second > b.bytes_per_second;
  });
  return rates;
}

double MeasureReadBandwidth(ThreadPool& pool, int64_t bytes, int repeats) {
  ReadBandwidth memory(pool, bytes);
  const ReadRate best = memory.MeasureAll(1).front();
  return std::max(best.bytes_per_second, memory.Measure(best.kernel, repeats));
}

}  // namespace nibble::abi
#endif  // HWY_ONCE
