// SPDX-License-Identifier: Apache-2.0
//
// The machine's limits, measured in this process, and the share of them that a result reaches.
#pragma once

#include <cstdint>
#include <vector>

#include "bench/native/json.h"
#include "native/include/nibble/nibble.h"
#include "native/src/read_bandwidth.h"

namespace nibble::bench {

// What bounds a piece of work from below, and how closely it was reached.
struct Bound {
  double limit_seconds;  // the least time that memory and arithmetic allow
  bool memory;           // memory, not arithmetic, sets it
};

// Rates of one number of threads.
struct Rates {
  int threads = 0;
  double read = 0;      // bytes a second, the best read kernel
  double byte_dot = 0;  // operations a second
  double bf16_dot = 0;  // 0: the target has none
  double f32_fma = 0;

  // The fastest arithmetic that the operands of a product allow: for I8 activations the byte dot
  // product; for E4M3 the best of BF16, F32 and half the byte rate (an E4M3 value is the sum of
  // two signed-byte digits); for BF16 the better of BF16 and F32; for F32, F32.
  double Arithmetic(int32_t activation) const;

  // The larger of each rate.
  static Rates Best(const Rates& a, const Rates& b);

  Bound Limit(double bytes, double operations, int32_t activation) const;
};

class Limits {
 public:
  // Measures everything for `threads` threads. Buffers: two last-level caches for each thread,
  // 128 MiB to 1 GiB each. smoke: 1 MiB each and few kernels, for tests.
  Limits(int threads, bool smoke);

  // Measures the reading rate again with the kernel that was the best, and arithmetic too. Returns
  // the better of this and the call before: the rates around the work between the two, which is
  // judged against them.
  Rates Now();

  // Tries all read kernels again, keeping the best of each.
  void Sweep();

  // The best of everything seen, the best read kernel first.
  void Write(Json& json) const;

 private:
  ThreadPool pool_;
  int64_t bytes_;
  abi::ReadBandwidth memory_;
  int sweep_passes_, compute_repeats_;
  std::vector<abi::ReadRate> reads_;  // sorted, the best first
  Rates best_, last_;
};

// Bytes of the last-level cache, as the system tells; 32 MiB where it does not.
int64_t LastLevelCache();

// Bytes that matrices or caches must have together to come from memory when they are used in
// turn: twice the last-level cache, at least 256 MiB, at most 640 MiB.
int64_t ColdBytes();

}  // namespace nibble::bench
