// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/threads/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <vector>

namespace nibble {
namespace {

TEST(Share, CoversTheWholeInOrderAndEvenly) {
  for (const int64_t total : {0, 1, 5, 16, 17, 1000}) {
    for (const int parts : {1, 2, 3, 7, 16}) {
      int64_t next = 0;
      for (int p = 0; p < parts; ++p) {
        const Range r = Share(total, p, parts);
        EXPECT_EQ(r.begin, next);
        EXPECT_GE(r.end - r.begin, total / parts);
        EXPECT_LE(r.end - r.begin, total / parts + 1);
        next = r.end;
      }
      EXPECT_EQ(next, total);
    }
  }
}

TEST(ThreadPool, RunsEveryThreadOnceAndWaits) {
  for (const int threads : {1, 2, 3, 9}) {  // also more than there are CPUs
    ThreadPool pool(threads);
    std::vector<int> count(threads);  // plain: Run must order its writes before the read
    for (int i = 1; i <= 500; ++i) {
      pool.Run([&](int t) { ++count[t]; });
      for (int t = 0; t < threads; ++t) ASSERT_EQ(count[t], i);
    }
  }
}

TEST(ThreadPool, WakesWorkersThatHaveParked) {
  ThreadPool pool(3);
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int> ran{0};
    pool.Run([&](int) { ran.fetch_add(1); });
    ASSERT_EQ(ran.load(), 3);
  }
}

TEST(ThreadPool, PoolsRunSideBySide) {
  std::vector<std::thread> callers;
  std::atomic<int> total{0};
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      ThreadPool pool(2);
      for (int i = 0; i < 200; ++i) pool.Run([&](int) { total.fetch_add(1); });
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total.load(), 4 * 200 * 2);
}

TEST(AvailableThreads, IsAtLeastOneAndAtMostTheMachine) {
  EXPECT_GE(AvailableThreads(), 1);
  EXPECT_LE(AvailableThreads(), static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace
}  // namespace nibble
