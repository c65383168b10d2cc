// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/elementwise/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "kernels-cpu/testing/kernel_test.h"

namespace nibble {
namespace {

constexpr float kInfinity = HUGE_VALF;

TEST(Argmax, FirstOfEqualsAndWhatIsNoNumber) {
  const auto argmax = [](std::vector<float> x) {
    return Argmax(x.data(), static_cast<int64_t>(x.size()));
  };
  EXPECT_EQ(argmax({3}), 0);
  EXPECT_EQ(argmax({1, 5, 5, 2}), 1);
  EXPECT_EQ(argmax({-0.0f, 0.0f}), 0);
  EXPECT_EQ(argmax({-kInfinity, -kInfinity}), 0);
  EXPECT_EQ(argmax({-kInfinity, -FLT_MAX}), 1);
  EXPECT_EQ(argmax({1, NAN, kInfinity}), -2);
  EXPECT_EQ(argmax({kInfinity}), -1);
  EXPECT_EQ(argmax({1, 2, kInfinity, NAN}), -3);
}

// 2^40 e^((logit - max) / temperature): y is rounded three times (its error of 41 * 3 * 2^-53
// shifts the weight by a factor below 1 + 2^-45), q drops up to 2^-48, the polynomial's and the
// last shift's dropping up to 1 together.
TEST(SampleWeight, WithinItsBound) {
  std::mt19937_64 random = TestRandom(11);
  for (int i = 0; i < 20000; ++i) {
    const auto max = static_cast<float>(UniformInt(random, -1000, 1000)) / 7;
    const float logit = max - static_cast<float>(UniformInt(random, 0, 1 << 20)) / (1 << 15);
    const float temperature = static_cast<float>(UniformInt(random, 1, 3000)) / 1000;
    const long double exact =
        0x1p40L * std::exp((static_cast<long double>(logit) - max) / temperature);
    const auto weight = static_cast<long double>(SampleWeight(max, logit, temperature));
    ASSERT_LE(std::fabs(weight - exact), exact * 0x1p-45L + 1)
        << "max " << max << " logit " << logit << " temperature " << temperature;
  }
  EXPECT_EQ(SampleWeight(2, 2, 0.3f), uint64_t{1} << 40);
  EXPECT_EQ(SampleWeight(-kInfinity, -kInfinity, 1), uint64_t{1} << 40);
  EXPECT_EQ(SampleWeight(2, -kInfinity, 1), 0u);
  EXPECT_EQ(SampleWeight(2, 1, FLT_TRUE_MIN), 0u);
  EXPECT_EQ(SampleWeight(FLT_MAX, -FLT_MAX, 1), 0u);
}

TEST(SampleWeight, NeverGrowsTowardsSmallerLogits) {
  for (const float temperature : {0.1f, 1.0f, 7.3f}) {
    // Every float over an octave boundary of 2^-y, and coarse steps over the whole range.
    float logit = -0.69f;
    uint64_t last = SampleWeight(0, logit, 1);
    for (int i = 0; i < 300000; ++i) {
      logit = std::nextafterf(logit, -1);
      const uint64_t next = SampleWeight(0, logit, 1);
      ASSERT_LE(next, last) << logit;
      last = next;
    }
    last = SampleWeight(5, 5, temperature);
    for (logit = 5; logit > -300; logit -= 0.01f) {
      const uint64_t next = SampleWeight(5, logit, temperature);
      ASSERT_LE(next, last) << logit;
      last = next;
    }
  }
}

// The definition of sample.h, step by step over the whole sorted order.
int64_t SampleReference(const std::vector<float>& logits, const SampleOptions& o, double u) {
  const auto count = static_cast<int64_t>(logits.size());
  const int64_t best = Argmax(logits.data(), count);
  if (best < 0 || o.temperature == 0) return best;
  std::vector<int64_t> order(logits.size());
  for (int64_t i = 0; i < count; ++i) order[i] = i;
  const bool all = (o.top_k == 0 || o.top_k >= count) && o.top_p >= 1 && o.min_p == 0;
  if (!all) {
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return logits[a] > logits[b]; });
  }
  const auto weight = [&](int64_t i) {
    return SampleWeight(logits[best], logits[i], o.temperature);
  };
  if (o.top_k > 0 && o.top_k < count) order.resize(o.top_k);
  if (o.top_p < 1) {
    uint64_t total = 0, mass = 0;
    for (const int64_t i : order) total += weight(i);
    const double limit = std::ceil(static_cast<double>(o.top_p) * static_cast<double>(total));
    size_t keep = 0;
    while (static_cast<double>(mass) < limit) mass += weight(order[keep++]);
    order.resize(keep);
  }
  if (o.min_p > 0) {
    order.erase(std::remove_if(order.begin(), order.end(),
                               [&](int64_t i) {
                                 return static_cast<double>(weight(i)) < o.min_p * 0x1p40;
                               }),
                order.end());
  }
  uint64_t kept = 0, running = 0;
  for (const int64_t i : order) kept += weight(i);
  const auto target =
      std::min(static_cast<uint64_t>(u * static_cast<double>(kept)), kept - 1);
  for (const int64_t i : order) {
    running += weight(i);
    if (running > target) return i;
  }
  return -100;
}

TEST(Sample, FollowsTheDefinition) {
  std::mt19937_64 random = TestRandom(12);
  std::uniform_real_distribution<double> uniform;
  for (int round = 0; round < 3000; ++round) {
    const int64_t count = UniformInt(random, 1, 300);
    std::vector<float> logits = NormalValues(random, count, 3);
    // Ties, and now and then tokens that cannot be.
    for (float& x : logits) {
      if (round % 3 == 0) x = std::round(x);
      if (round % 5 == 0 && UniformInt(random, 0, 9) == 0) x = -kInfinity;
    }
    SampleOptions o;
    o.temperature = static_cast<float>(UniformInt(random, 0, 8)) / 4;
    if (round & 1) o.top_k = static_cast<int32_t>(UniformInt(random, 0, 320));
    if (round & 2) o.top_p = static_cast<float>(UniformInt(random, 1, 100)) / 100;
    if (round & 4) o.min_p = static_cast<float>(UniformInt(random, 0, 100)) / 100;
    for (const double u : {0.0, uniform(random), uniform(random), 1 - 0x1p-53}) {
      ASSERT_EQ(Sample(logits.data(), count, o, u), SampleReference(logits, o, u))
          << "round " << round << " count " << count << " temperature " << o.temperature
          << " top_k " << o.top_k << " top_p " << o.top_p << " min_p " << o.min_p << " u " << u;
    }
  }
}

TEST(Sample, Frequencies) {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f)};
  const int draws = 8000;
  int seen[3] = {0, 0, 0};
  for (int i = 0; i < draws; ++i) {
    ++seen[Sample(logits.data(), 3, {}, (i + 0.5) / draws)];
  }
  EXPECT_NEAR(seen[0], draws / 8, 1);
  EXPECT_NEAR(seen[1], draws / 4, 1);
  EXPECT_NEAR(seen[2], draws * 5 / 8, 1);
}

TEST(Sample, NoNumber) {
  const std::vector<float> logits = {1, 2, NAN, 3};
  EXPECT_EQ(Sample(logits.data(), 4, {}, 0.5), -3);
}

TEST(Penalize, DividesPositiveAndMultipliesOthers) {
  std::vector<float> logits = {3, -3, 0, 5};
  const std::vector<int32_t> tokens = {1, 0, 7, -1, 2};
  Penalize(logits.data(), 4, tokens.data(), 5, 1.5f);
  EXPECT_EQ(logits, (std::vector<float>{2, -4.5f, 0, 5}));
}

}  // namespace
}  // namespace nibble
