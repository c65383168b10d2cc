// SPDX-License-Identifier: Apache-2.0
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/native/compute_rate.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "bench/native/compute_rate.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::bench {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// Independent sums: a unit with a latency of 5 and two issues a cycle needs 10, and 12 with their
// two operands still fit in 16 registers.
#define NIBBLE_FOR_SUMS(DO) \
  DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
constexpr int kSums = 12;
constexpr int kUnroll = 4;

// Each sum starts from a value of its own: the compiler merges sums that are always equal.
#define NIBBLE_DECLARE(i) auto s##i = hn::Iota(d, i);
#define NIBBLE_STEP(i) s##i = step(s##i);
#define NIBBLE_TOTAL(i) total = hn::Add(total, s##i);

template <class D, class Step>
HWY_INLINE float Chains(D d, int64_t rounds, const Step& step) {
  NIBBLE_FOR_SUMS(NIBBLE_DECLARE)
  for (int64_t r = 0; r < rounds; ++r) {
    NIBBLE_FOR_SUMS(NIBBLE_STEP)
    NIBBLE_FOR_SUMS(NIBBLE_STEP)
    NIBBLE_FOR_SUMS(NIBBLE_STEP)
    NIBBLE_FOR_SUMS(NIBBLE_STEP)
  }
  auto total = hn::Zero(d);
  NIBBLE_FOR_SUMS(NIBBLE_TOTAL)
  return static_cast<float>(hn::GetLane(hn::SumOfLanes(d, total)));
}

// Each function runs `rounds` and returns the operations of a round; sink keeps the result alive.

double ByteDot(int64_t rounds, int operand, float* sink) {
  const hn::ScalableTag<int32_t> di;
  const hn::Repartition<uint8_t, decltype(di)> du8;
  const hn::Repartition<int8_t, decltype(di)> di8;
  const auto a = hn::Set(du8, static_cast<uint8_t>(operand));
  const auto b = hn::Set(di8, static_cast<int8_t>(operand));
  *sink += Chains(di, rounds, [&](auto sum) HWY_ATTR {
    return hn::SumOfMulQuadAccumulate(di, a, b, sum);
  });
  return 2.0 * 4 * hn::Lanes(di) * kSums * kUnroll;
}

double BF16Dot(int64_t rounds, int operand, float* sink) {
#if HWY_NATIVE_DOT_BF16
  const hn::ScalableTag<float> df;
  const hn::Repartition<hwy::bfloat16_t, decltype(df)> dbf;
  const auto a = hn::Set(dbf, hwy::BF16FromF32(static_cast<float>(operand)));
  auto unused = hn::Zero(df);
  *sink += Chains(df, rounds, [&](auto sum) HWY_ATTR {
    return hn::ReorderWidenMulAccumulate(df, a, a, sum, unused);
  });
  *sink += hn::GetLane(unused);
  return 2.0 * 2 * hn::Lanes(df) * kSums * kUnroll;
#else
  (void)rounds;
  (void)operand;
  (void)sink;
  return 0;
#endif
}

double F32Fma(int64_t rounds, int operand, float* sink) {
  const hn::ScalableTag<float> df;
  const auto a = hn::Set(df, static_cast<float>(operand) * 1e-3f);
  *sink += Chains(df, rounds, [&](auto sum) HWY_ATTR { return hn::MulAdd(a, sum, a); });
  return 2.0 * hn::Lanes(df) * kSums * kUnroll;
}

}  // namespace

double RunChains(int arithmetic, int64_t rounds, int operand, float* sink) {
  switch (static_cast<Arithmetic>(arithmetic)) {
    case Arithmetic::kByteDot: return ByteDot(rounds, operand, sink);
    case Arithmetic::kBF16Dot: return BF16Dot(rounds, operand, sink);
    default: return F32Fma(rounds, operand, sink);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::bench
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::bench {

HWY_EXPORT(RunChains);

double MeasureComputeRate(ThreadPool& pool, Arithmetic arithmetic, int repeats) {
  // 20,000 rounds of 48 instructions: a quarter of a millisecond at two a cycle and 2 GHz.
  constexpr int64_t kRounds = 20000;
  static std::atomic<int> operand{1};  // the compiler cannot know it
  static std::atomic<float> total{0};
  double best = 0;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::atomic<double> operations{0};
    const auto begin = std::chrono::steady_clock::now();
    pool.Run([&](int) {
      float sink = 0;
      const double each = HWY_DYNAMIC_DISPATCH(RunChains)(static_cast<int>(arithmetic), kRounds,
                                                          operand.load(), &sink);
      total.store(sink, std::memory_order_relaxed);
      operations.store(each, std::memory_order_relaxed);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, operations.load() * kRounds * pool.threads() / seconds.count());
  }
  return best;
}

}  // namespace nibble::bench
#endif  // HWY_ONCE
