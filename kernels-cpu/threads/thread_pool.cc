// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/threads/thread_pool.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace nibble {
namespace {

// Long enough to bridge the gap between two operators of a forward pass (microseconds),
// short enough that an idle context gives its cores back at once.
constexpr int kSpins = 4000;

inline void CpuRelax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : threads_(threads) {
  try {
    workers_.reserve(threads - 1);
    for (int t = 1; t < threads; ++t) {
      workers_.emplace_back([this, t] { WorkerLoop(t); });
    }
  } catch (...) {  // the system refused a thread: give back those that started
    Stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { Stop(); }

void ThreadPool::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_.store(true, std::memory_order_seq_cst);
    generation_.fetch_add(1, std::memory_order_seq_cst);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::RunErased(Call call, const void* body) {
  if (threads_ == 1) {
    call(body, 0);
    return;
  }
  call_ = call;
  body_ = body;
  running_.store(threads_ - 1, std::memory_order_relaxed);
  // Sequentially consistent with the worker's announcement in parked_: either the worker
  // sees the new generation before it sleeps, or this thread sees that it is parked.
  generation_.fetch_add(1, std::memory_order_seq_cst);
  if (parked_.load(std::memory_order_seq_cst) > 0) {
    { std::lock_guard<std::mutex> lock(mutex_); }
    wake_.notify_all();
  }
  call(body, 0);
  // With more threads than CPUs a worker may be waiting for this very core: yield.
  for (int spin = 0; running_.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < kSpins) {
      CpuRelax();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::WorkerLoop(int thread) {
  uint64_t seen = 0;
  for (;;) {
    for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen;
         ++spin) {
      CpuRelax();
    }
    if (generation_.load(std::memory_order_acquire) == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      parked_.fetch_add(1, std::memory_order_seq_cst);
      wake_.wait(lock, [&] { return generation_.load(std::memory_order_seq_cst) != seen; });
      parked_.fetch_sub(1, std::memory_order_seq_cst);
    }
    // Run waits for every worker before the next loop, so no generation is ever skipped.
    ++seen;
    if (stop_.load(std::memory_order_acquire)) return;
    call_(body_, thread);
    running_.fetch_sub(1, std::memory_order_acq_rel);
  }
}

}  // namespace nibble
