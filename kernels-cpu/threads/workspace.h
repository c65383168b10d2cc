// SPDX-License-Identifier: Apache-2.0
//
// What a kernel call needs besides its operands: threads, and scratch memory that only
// grows, so that a call of a size seen before allocates nothing. One per context.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels-cpu/memory/buffer.h"
#include "kernels-cpu/threads/thread_pool.h"

namespace nibble {

class Workspace {
 public:
  explicit Workspace(int threads) : pool_(threads), per_thread_(threads) {}

  ThreadPool& pool() { return pool_; }
  int threads() const { return pool_.threads(); }

  // Scratch that all threads share; valid until the next call of Shared. Contents are
  // undefined. Throws std::bad_alloc. Call it outside ThreadPool::Run.
  uint8_t* Shared(size_t bytes) { return Grow(shared_, bytes); }

  // Makes PerThread(t) at least bytes long for every thread; same rules as Shared.
  void ReservePerThread(size_t bytes) {
    for (Buffer& b : per_thread_) Grow(b, bytes);
  }
  uint8_t* PerThread(int thread) const { return per_thread_[thread].data(); }

 private:
  static uint8_t* Grow(Buffer& buffer, size_t bytes) {
    if (buffer.size() < bytes) buffer = Buffer(bytes + bytes / 4);
    return buffer.data();
  }

  ThreadPool pool_;
  Buffer shared_;
  std::vector<Buffer> per_thread_;
};

}  // namespace nibble
