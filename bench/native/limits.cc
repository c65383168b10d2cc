// SPDX-License-Identifier: Apache-2.0
#include "bench/native/limits.h"

#include <unistd.h>

#include <algorithm>

#include "bench/native/compute_rate.h"

namespace nibble::bench {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int kSweepPasses = 2;
constexpr int kComputeRepeats = 20;

}  // namespace

double Rates::Arithmetic(int32_t activation) const {
  switch (activation) {
    case NB_I8: return byte_dot;
    case NB_E4M3: return std::max({bf16_dot, f32_fma, byte_dot / 2});
    case NB_BF16: return std::max(bf16_dot, f32_fma);
    default: return f32_fma;
  }
}

Bound Rates::Limit(double bytes, double operations, int32_t activation) const {
  const double by_memory = bytes / read, by_arithmetic = operations / Arithmetic(activation);
  return {std::max(by_memory, by_arithmetic), by_memory >= by_arithmetic};
}

Rates Rates::Best(const Rates& a, const Rates& b) {
  return {std::max(a.threads, b.threads), std::max(a.read, b.read),
          std::max(a.byte_dot, b.byte_dot), std::max(a.bf16_dot, b.bf16_dot),
          std::max(a.f32_fma, b.f32_fma)};
}

int64_t LastLevelCache() {
  const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return bytes > 0 ? bytes : 32 * kMiB;
}

int64_t ColdBytes() { return std::clamp(2 * LastLevelCache(), 256 * kMiB, 640 * kMiB); }

Limits::Limits(int threads, bool smoke)
    : pool_(threads),
      bytes_(threads *
             (smoke ? kMiB : std::clamp(2 * LastLevelCache(), 128 * kMiB, 1024 * kMiB))),
      memory_(pool_, bytes_),
      sweep_passes_(smoke ? 1 : kSweepPasses),
      compute_repeats_(smoke ? 1 : kComputeRepeats),
      reads_(memory_.MeasureAll(sweep_passes_)) {
  best_.threads = threads;
  Now();
}

Rates Limits::Now() {
  Rates now;
  now.threads = pool_.threads();
  now.read = memory_.Measure(reads_.front().kernel, 2);
  now.byte_dot = MeasureComputeRate(pool_, Arithmetic::kByteDot, compute_repeats_);
  now.bf16_dot = MeasureComputeRate(pool_, Arithmetic::kBF16Dot, compute_repeats_);
  now.f32_fma = MeasureComputeRate(pool_, Arithmetic::kF32Fma, compute_repeats_);
  const Rates around = Rates::Best(now, last_);
  last_ = now;
  best_ = Rates::Best(best_, now);
  best_.read = std::max(best_.read, reads_.front().bytes_per_second);
  return around;
}

void Limits::Sweep() {
  for (const abi::ReadRate& again : memory_.MeasureAll(sweep_passes_)) {
    for (abi::ReadRate& known : reads_) {
      if (known.kernel.streams == again.kernel.streams &&
          known.kernel.prefetch_bytes == again.kernel.prefetch_bytes) {
        known.bytes_per_second = std::max(known.bytes_per_second, again.bytes_per_second);
      }
    }
  }
  std::stable_sort(reads_.begin(), reads_.end(), [](const auto& a, const auto& b) {
    return a.bytes_per_second > b.bytes_per_second;
  });
  Now();
}

void Limits::Write(Json& json) const {
  json.BeginObject()
      .Field("threads", best_.threads)
      .Field("read_gb_per_s", best_.read / 1e9)
      .Field("byte_dot_gops", best_.byte_dot / 1e9);
  json.Key("bf16_dot_gflops");
  if (best_.bf16_dot > 0) {
    json.Value(best_.bf16_dot / 1e9);
  } else {
    json.Null();
  }
  json.Field("f32_fma_gflops", best_.f32_fma / 1e9).Field("read_buffer_bytes", bytes_);
  json.Key("read_kernels").BeginArray();
  for (const abi::ReadRate& read : reads_) {
    json.BeginObject()
        .Field("streams", read.kernel.streams)
        .Field("prefetch_bytes", read.kernel.prefetch_bytes)
        .Field("gb_per_s", read.bytes_per_second / 1e9)
        .EndObject();
  }
  json.EndArray().EndObject();
}

}  // namespace nibble::bench
