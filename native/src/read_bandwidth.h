// SPDX-License-Identifier: Apache-2.0
//
// The rate at which a pool of threads reads memory: the limit of decode, which reads each
// weight once a token. Which way of reading is the fastest differs between machines, so several
// are tried and the best one counts.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "kernels-cpu/memory/buffer.h"
#include "kernels-cpu/threads/thread_pool.h"

namespace nibble::abi {

// A way of reading: each thread's share is read as so many sequential streams side by side, each
// prefetched so many bytes ahead (0: left to the hardware).
struct ReadKernel {
  int streams;         // 1, 2, 4, 8 or 16
  int prefetch_bytes;  // 0 to 4096
};

struct ReadRate {
  ReadKernel kernel;
  double bytes_per_second;
};

// Memory to read, and a pool's threads to read it; the pool must outlive it.
class ReadBandwidth {
 public:
  // Allocates `bytes` on huge pages where the system gives them, each thread's contiguous share
  // first touched by that thread. Throws std::bad_alloc.
  ReadBandwidth(ThreadPool& pool, int64_t bytes);

  // Bytes a second of the best of `passes` passes over all of the memory.
  double Measure(const ReadKernel& kernel, int passes);

  // The best of `passes` passes of every kernel (streams 1, 2, 4, 8, 16 by prefetch 0, 512, 1024,
  // 2048, 4096), all kernels taking turns; the fastest first.
  std::vector<ReadRate> MeasureAll(int passes);

 private:
  double Pass(const ReadKernel& kernel);

  ThreadPool& pool_;
  int64_t units_;
  Buffer buffer_;
  std::atomic<uint64_t> sink_{0};  // takes the sums, so that the reads are not left out
};

// The best of one pass of every kernel and `repeats` passes of the kernel that was the fastest,
// over `bytes` of memory. Throws std::bad_alloc.
double MeasureReadBandwidth(ThreadPool& pool, int64_t bytes, int repeats);

}  // namespace nibble::abi
