// SPDX-License-Identifier: Apache-2.0
//
// What the kernel tests share: the seed of random shapes and values, and the loop over
// the SIMD targets of the host.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "hwy/highway.h"
#include "kernels-cpu/testing/executable_targets.h"

namespace nibble {

// A new seed for each run, printed; the environment variable NIBBLE_TEST_SEED replays one.
inline uint64_t TestSeed() {
  static const uint64_t seed = [] {
    const char* text = std::getenv("NIBBLE_TEST_SEED");
    const uint64_t s = text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device()();
    std::printf("NIBBLE_TEST_SEED=%llu replays the random shapes of this run\n",
                static_cast<unsigned long long>(s));
    return s;
  }();
  return seed;
}

// One independent stream of randomness per test, whatever order the tests run in.
inline std::mt19937_64 TestRandom(uint64_t stream) {
  return std::mt19937_64(TestSeed() * 0x9E3779B97F4A7C15u + stream);
}

inline int64_t UniformInt(std::mt19937_64& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

inline std::vector<float> NormalValues(std::mt19937_64& random, int64_t n, float deviation = 1) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(random);
  return values;
}

// How often a test of random shapes repeats: many times where NIBBLE_FULL_TESTS is set
// (./nibble test --full), else once.
inline int TestRounds() { return std::getenv("NIBBLE_FULL_TESTS") != nullptr ? 20 : 1; }

// Runs body() once for each SIMD target that this build has and this machine executes, and for
// each way that a target has of multiplying bytes (byte_dot.h).
template <class Body>
void ForEachSimdTarget(const Body& body) {
  for (const int64_t target : ExecutableTargets()) {
    for (const ByteDotUnit unit : ExecutableByteDotUnits(target)) {
      SCOPED_TRACE(ByteDotName(target, unit));
      hwy::SetSupportedTargetsForTest(target);
      ForceByteDotUnit(unit);
      body();
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  ChooseBestByteDotUnit();
}

}  // namespace nibble
