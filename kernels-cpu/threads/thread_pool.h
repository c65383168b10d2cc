// SPDX-License-Identifier: Apache-2.0
//
// A pool of worker threads for fork-join loops of microseconds: workers spin briefly
// for the next loop, then park, so that an idle context costs nothing.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace nibble {

// CPUs this process may use: affinity mask, capped by the cgroup (v1 or v2) CPU quota
// rounded up; at least 1.
int AvailableThreads();

struct Range {
  int64_t begin;
  int64_t end;
};

// The contiguous share of [0, total) that belongs to part (0-based) of parts; shares
// differ by at most one.
inline Range Share(int64_t total, int part, int parts) {
  const int64_t each = total / parts, rest = total % parts;
  const int64_t begin = each * part + (part < rest ? part : rest);
  return {begin, begin + each + (part < rest ? 1 : 0)};
}

class ThreadPool {
 public:
  // The caller of Run is thread 0, so threads - 1 workers are started (threads >= 1).
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls body(thread) once on each of the threads and returns when all have returned.
  // body must not throw and must not call Run. One Run at a time.
  template <class Body>
  void Run(const Body& body) {
    RunErased([](const void* b, int thread) { (*static_cast<const Body*>(b))(thread); }, &body);
  }

 private:
  using Call = void (*)(const void*, int);
  void RunErased(Call call, const void* body);
  void WorkerLoop(int thread);
  void Stop();

  int threads_;
  Call call_ = nullptr;
  const void* body_ = nullptr;
  // Generation of the current loop: workers wait for it to change.
  alignas(64) std::atomic<uint64_t> generation_{0};
  alignas(64) std::atomic<int> running_{0};
  alignas(64) std::atomic<int> parked_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace nibble
