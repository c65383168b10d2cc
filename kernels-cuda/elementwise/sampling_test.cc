// SPDX-License-Identifier: Apache-2.0
//
// The choice of a token on every target: the same id as kernels-cpu/elementwise/sample.h, always.
#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>

#include "kernels-cpu/elementwise/sample.h"
#include "kernels-cpu/testing/kernel_test.h"
#include "kernels-cuda/elementwise/offset_array.h"
#include "kernels-cuda/elementwise/elementwise.h"

namespace nibble::cuda::elementwise {
namespace {


std::vector<int32_t> DeviceArgmax(Device& device, const std::vector<float>& logits, int64_t rows,
                                  int64_t cols, int64_t stride) {
  const OffsetArray<float> dl(device, logits);
  const OffsetArray<int32_t> ids(device, rows);
  EXPECT_TRUE(Succeeded(Argmax(device, {dl.get(), stride}, rows, cols, ids.get())));
  return ids.Read();
}

TEST(CudaArgmax, FirstOfEqualsAndWhatIsNoNumber) {
  const float inf = HUGE_VALF;
  const std::vector<std::vector<float>> rows = {
      {3, 1, 2, 0},    {1, 5, 5, 2},         {-0.0f, 0.0f, -1, -2}, {-inf, -inf, -inf, -inf},
      {-inf, -FLT_MAX, -inf, -FLT_MAX},      {1, NAN, inf, 0},      {inf, 1, 1, 1},
      {1, 2, inf, NAN}, {-1, -2, -FLT_TRUE_MIN, 0.0f}, {FLT_MAX, 1, FLT_MAX, 2}};
  std::vector<float> logits;
  for (const auto& row : rows) logits.insert(logits.end(), row.begin(), row.end());
  for (const int sm : Generations()) {
    const auto ids =
        DeviceArgmax(EmulatedDevice(sm), logits, static_cast<int64_t>(rows.size()), 4, 4);
    for (size_t r = 0; r < rows.size(); ++r) {
      EXPECT_EQ(ids[r], nibble::Argmax(rows[r].data(), 4)) << "sm_" << sm << " row " << r;
    }
  }
}

TEST(CudaArgmax, RandomRows) {
  std::mt19937_64 random = TestRandom(41);
  for (const int sm : Generations()) {
    for (const int64_t cols : {1, 31, 1023, 1024, 1025, 5000}) {
      const int64_t rows = 2, stride = cols + 3;
      std::vector<float> logits = NormalValues(random, rows * stride, 5);
      for (float& x : logits) x = std::round(x * 4) / 4;  // ties
      const auto ids = DeviceArgmax(EmulatedDevice(sm), logits, rows, cols, stride);
      for (int64_t r = 0; r < rows; ++r) {
        EXPECT_EQ(ids[r], nibble::Argmax(&logits[r * stride], cols)) << "cols " << cols;
      }
    }
  }
}

void CheckSample(Device& device, const std::vector<float>& logits, int64_t cols,
                 const SampleOptions& options, const std::vector<double>& uniforms) {
  const auto rows = static_cast<int64_t>(uniforms.size());
  const auto stride = static_cast<int64_t>(logits.size()) / rows;
  const OffsetArray<float> dl(device, logits);
  const OffsetArray<double> du(device, uniforms);
  const OffsetArray<int32_t> ids(device, rows);
  const int64_t bytes = SampleScratchBytes(rows, cols);
  const OffsetArray<uint8_t> scratch(device, bytes);
  ASSERT_TRUE(Succeeded(Sample(device, {dl.get(), stride}, rows, cols, options, du.get(),
                              ids.get(), {scratch.get(), bytes})));
  const std::vector<int32_t> got = ids.Read();
  for (int64_t r = 0; r < rows; ++r) {
    ASSERT_EQ(got[r], nibble::Sample(&logits[r * stride], cols, options, uniforms[r]))
        << "sm_" << device.properties().sm << " cols " << cols << " temperature "
        << options.temperature << " top_k " << options.top_k << " top_p " << options.top_p
        << " min_p " << options.min_p << " u " << uniforms[r];
  }
}

TEST(CudaSample, TheSameTokenAsTheCpu) {
  std::mt19937_64 random = TestRandom(42);
  std::uniform_real_distribution<double> uniform;
  const int64_t widths[] = {1, 2, 33, 1000, 1024, 1025, 3000};
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    for (int round = 0; round < 24 * TestRounds(); ++round) {
      const int64_t cols = widths[round % 7], rows = 3, stride = cols + round % 2;
      std::vector<float> logits = NormalValues(random, rows * stride, 4);
      for (float& x : logits) {
        if (round % 3 == 0) x = std::round(x);  // ties
        if (round % 5 == 0 && UniformInt(random, 0, 9) == 0) x = -HUGE_VALF;
      }
      if (round % 11 == 0) logits[UniformInt(random, 0, cols - 1)] = NAN;
      SampleOptions o;
      o.temperature = static_cast<float>(UniformInt(random, 0, 8)) / 4;
      if (round & 1) o.top_k = static_cast<int32_t>(UniformInt(random, 0, cols + 5));
      if (round & 2) o.top_p = static_cast<float>(UniformInt(random, 1, 100)) / 100;
      if (round & 4) o.min_p = static_cast<float>(UniformInt(random, 0, 100)) / 100;
      CheckSample(device, logits, cols, o, {0.0, uniform(random), 1 - 0x1p-53});
      if (HasFatalFailure()) return;
    }
  }
}

// All logits equal: every token in one bin, told apart by the index alone.
TEST(CudaSample, Ties) {
  std::mt19937_64 random = TestRandom(43);
  std::uniform_real_distribution<double> uniform;
  const int64_t cols = 2500;
  const std::vector<float> logits(2 * cols, -1.25f);
  for (const int sm : Generations()) {
    for (const int top_k : {0, 1, 700}) {
      SampleOptions o;
      o.top_k = top_k;
      o.top_p = 0.37f;
      CheckSample(EmulatedDevice(sm), logits, cols, o, {uniform(random), uniform(random)});
      if (HasFatalFailure()) return;
    }
  }
}

// A vocabulary of the usual size, once.
TEST(CudaSample, LargeVocabulary) {
  std::mt19937_64 random = TestRandom(44);
  const int64_t cols = 32000;
  const std::vector<float> logits = NormalValues(random, cols, 3);
  SampleOptions o;
  o.temperature = 0.8f;
  o.top_p = 0.9f;
  CheckSample(EmulatedDevice(89), logits, cols, o, {0.73});
}

TEST(CudaSample, TooLittleScratchIsRefused) {
  Device& device = EmulatedDevice(80);
  const OffsetArray<float> logits(device, std::vector<float>{1, 2});
  const OffsetArray<double> uniforms(device, std::vector<double>{0.5});
  const OffsetArray<int32_t> ids(device, 1);
  const Status status = Sample(device, {logits.get(), 2}, 1, 2, {}, uniforms.get(), ids.get(),
                               {0, SampleScratchBytes(1, 2) - 1});
  EXPECT_EQ(status.code(), NB_INTERNAL);
}

TEST(CudaPenalize, TheSameAsTheCpu) {
  std::mt19937_64 random = TestRandom(45);
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    std::vector<float> logits = NormalValues(random, 1000, 4);
    logits[3] = 0;
    std::vector<int32_t> tokens = {-1, 1000, 2000000000};
    for (int32_t t = 0; t < 300; ++t) tokens.push_back(3 * t);
    const OffsetArray<float> dl(device, logits);
    const OffsetArray<int32_t> dt(device, tokens);
    ASSERT_TRUE(Succeeded(Penalize(device, dl.get(), 1000, dt.get(),
                                  static_cast<int64_t>(tokens.size()), 1.3f)));
    nibble::Penalize(logits.data(), 1000, tokens.data(), static_cast<int64_t>(tokens.size()),
                     1.3f);
    EXPECT_EQ(dl.Read(), logits);
  }
}

}  // namespace
}  // namespace nibble::cuda::elementwise
