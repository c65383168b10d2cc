// SPDX-License-Identifier: Apache-2.0
//
// Contexts under concurrency: first come, first served; several side by side; and the same
// bits whatever the number of threads.
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "native/src/context.h"
#include "native/src/kv_cache.h"
#include "native/tests/operator_calls.h"

namespace nibble {
namespace {

// Waits until so many callers hold the lock or queue for it; false if they never do.
bool WaitForCallers(abi::FifoLock* lock, uint64_t callers) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (lock->callers() != callers) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

TEST(FifoLock, GrantsInTheOrderOfAsking) {
  abi::FifoLock lock;
  std::vector<int> order;  // guarded by the lock itself
  std::vector<std::thread> threads;
  lock.lock();
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      lock.lock();
      order.push_back(i);
      lock.unlock();
    });
    // The next thread starts only when this one stands in the queue.
    EXPECT_TRUE(WaitForCallers(&lock, static_cast<uint64_t>(i) + 2));
  }
  lock.unlock();
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(lock.callers(), 0u);
}

TEST(FifoLock, ExcludesOthers) {
  abi::FifoLock lock;
  int64_t counter = 0;  // a data race if two hold the lock
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 2000; ++j) {
        const abi::Turn turn(lock);
        ++counter;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(counter, 8000);
}

// Calls that wait for one context are served in the order in which they came. The order is
// seen in a cache: each call appends one token at the position that only its turn makes legal.
TEST(AbiThreads, CallsOnOneContextAreServedInOrder) {
  const ContextPtr context = MakeContext(2);
  const CachePtr cache = MakeCache(context.get(), NB_F32, 1, 1, 16, 8);
  std::vector<std::thread> threads;
  std::vector<nb_status> statuses(8, NB_INTERNAL);
  context->lock.lock();
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      std::vector<float> q(16, 1.0f), k(16, 2.0f);
      const nb_tensor qt = F32(q, {1, 16}), kt = F32(k, {1, 16});
      const nb_sequence s = {cache.get(), i, 1};
      statuses[i] = nb_rope_append(context.get(), 0, &qt, &kt, &kt, nullptr, &s, 1);
    });
    if (HasFailure()) continue;  // one message is enough
    EXPECT_TRUE(WaitForCallers(&context->lock, static_cast<uint64_t>(i) + 2));
  }
  context->lock.unlock();
  for (std::thread& t : threads) t.join();
  // Out of order, some start would have been beyond the length, or have dropped tokens.
  EXPECT_EQ(statuses, std::vector<nb_status>(8, NB_OK));
  EXPECT_EQ(nb_kv_cache_length(cache.get(), 0), 8);
}

using Results = std::vector<std::vector<std::vector<uint8_t>>>;

Results RunAll(nb_context* context, int64_t rows) {
  OperatorCalls all(context, rows, Flush::kEnd);
  Results results;
  for (const OperatorCall& call : all.calls()) {
    EXPECT_EQ(call.run(context, call.Pointers()), NB_OK) << call.label << nb_last_error();
    results.emplace_back();
    for (const TensorArg& a : call.args) results.back().push_back(a.Bytes());
  }
  return results;
}

TEST(AbiThreads, TheSameBitsFromAnyNumberOfThreads) {
  for (const int64_t rows : {1, 4, 19, 40}) {
    const ContextPtr one = MakeContext(1);
    const Results expected = RunAll(one.get(), rows);
    for (const int32_t threads : {2, 3, 4}) {
      const ContextPtr context = MakeContext(threads);
      EXPECT_EQ(nb_context_threads(context.get()), threads);
      const Results actual = RunAll(context.get(), rows);
      ASSERT_EQ(actual.size(), expected.size());
      OperatorCalls names(one.get(), rows, Flush::kEnd);
      for (size_t i = 0; i < actual.size(); ++i) {
        EXPECT_EQ(actual[i], expected[i])
            << names.calls()[i].label << ", " << threads << " threads, " << rows << " rows";
      }
    }
  }
}

// Eight threads call everything on one context at once; matrices are shared by all.
TEST(AbiThreads, OneContextFromEightThreads) {
  const ContextPtr context = MakeContext(2);
  const Results expected = RunAll(context.get(), 3);
  std::atomic<int> equal{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { equal += RunAll(context.get(), 3) == expected; });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(equal, 8);
}

TEST(AbiThreads, SeveralContextsSideBySide) {
  const ContextPtr first = MakeContext(1);
  const Results expected = RunAll(first.get(), 5);
  std::atomic<int> equal{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      const ContextPtr context = MakeContext(1 + i % 3);
      for (int j = 0; j < 2; ++j) equal += RunAll(context.get(), 5) == expected;
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(equal, 8);
}

// One matrix, used from several contexts at the same time.
TEST(AbiThreads, AMatrixServesManyContexts) {
  const ContextPtr maker = MakeContext(1);
  std::mt19937_64 random = TestRandom(40);
  const MatrixPtr matrix = QuantizeMatrix(maker.get(), Format(NB_I4, NB_E4M3, 32),
                                          NormalValues(random, 100 * 64), 100, 64);
  const std::vector<float> x = NormalValues(random, 7 * 64);
  const auto product = [&](nb_context* context) {
    std::vector<float> y(7 * 100);
    const nb_tensor xt = F32(x, {7, 64}), yt = F32(y, {7, 100});
    const nb_projection p = {matrix.get(), nullptr, nullptr, &yt};
    EXPECT_EQ(nb_matmul(context, NB_E4M3, &xt, nullptr, 0, &p, 1), NB_OK);
    return y;
  };
  const std::vector<float> expected = product(maker.get());
  std::vector<std::thread> threads;
  std::atomic<int> equal{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const ContextPtr context = MakeContext(2);
      for (int j = 0; j < 20; ++j) equal += product(context.get()) == expected;
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(equal, 80);
}

// While one context computes on a cache, another that asks for the same cache is refused
// rather than racing for it.
TEST(AbiThreads, ACacheNeverServesTwoCallsAtOnce) {
  const ContextPtr a = MakeContext(1), b = MakeContext(1);
  const CachePtr cache = MakeCache(a.get(), NB_I4, 1, 1, 64, 64);
  std::atomic<int> appended{0}, refused{0}, other{0};
  const auto run = [&](nb_context* context) {
    std::vector<float> q(64 * 64, 1.0f), k(64 * 64, 2.0f);
    const nb_tensor qt = F32(q, {64, 64}), kt = F32(k, {64, 64});
    const nb_sequence s = {cache.get(), 0, 64};
    for (int i = 0; i < 200; ++i) {
      const nb_status status = nb_rope_append(context, 0, &qt, &kt, &kt, nullptr, &s, 1);
      const std::string message = nb_last_error();
      const bool in_use = message.find("in use by another call") != std::string::npos;
      ++(status == NB_OK ? appended : in_use ? refused : other);
    }
  };
  std::thread first([&] { run(a.get()); }), second([&] { run(b.get()); });
  first.join();
  second.join();
  EXPECT_EQ(other, 0);
  EXPECT_EQ(appended + refused, 400);
  EXPECT_GT(appended, 0);
  EXPECT_FALSE(cache->in_use.load());
}

}  // namespace
}  // namespace nibble
