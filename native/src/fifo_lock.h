// SPDX-License-Identifier: Apache-2.0
//
// A lock that is granted in the order in which it was asked for.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace nibble::abi {

// A ticket lock that sleeps while it waits: std::mutex makes no promise about who comes
// next, and a call that computes for milliseconds is too long to spin for.
class FifoLock {
 public:
  void lock() {
    std::unique_lock<std::mutex> hold(mutex_);
    const uint64_t ticket = next_++;
    turn_.wait(hold, [&] { return serving_ == ticket; });
  }

  void unlock() {
    {
      std::lock_guard<std::mutex> hold(mutex_);
      ++serving_;
      if (serving_ == next_) return;  // nobody waits
    }
    turn_.notify_all();
  }

  // Callers that hold the lock or wait for it, for tests.
  uint64_t callers() {
    std::lock_guard<std::mutex> hold(mutex_);
    return next_ - serving_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable turn_;
  uint64_t next_ = 0;     // the ticket of the next caller
  uint64_t serving_ = 0;  // the ticket that holds the lock
};

}  // namespace nibble::abi
