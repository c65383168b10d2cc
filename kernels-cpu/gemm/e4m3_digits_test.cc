// SPDX-License-Identifier: Apache-2.0
//
// All E4M3 codes but NaN, in random order, on every SIMD target.
#include "kernels-cpu/gemm/e4m3_digits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/testing/guarded_buffer.h"
#include "kernels-cpu/testing/kernel_test.h"

namespace nibble {
namespace {

TEST(E4M3Digits, EveryCodeIsTheSumOfItsParts) {
  auto random = TestRandom(41);
  std::vector<uint8_t> codes;
  for (int c = 0; c < 256; ++c) codes.push_back(c % 128 == 127 ? 0 : static_cast<uint8_t>(c));
  std::shuffle(codes.begin(), codes.end(), random);
  const int64_t n = static_cast<int64_t>(codes.size());
  ForEachSimdTarget([&] {
    std::vector<int8_t> high(n), low(n), rest(n, 0);
    std::vector<RestQuad> rests(n / 4);
    const int64_t count = SplitE4M3(codes.data(), n, high.data(), low.data(), rests.data());
    ASSERT_LE(count, n / 4);
    for (int64_t i = 0; i < count; ++i) {
      EXPECT_EQ(rests[i].column % 4, 0);
      EXPECT_TRUE(i == 0 || rests[i - 1].column < rests[i].column);
      std::copy_n(rests[i].rest, 4, rest.begin() + rests[i].column);
    }
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_EQ((256.0f * high[i] + low[i] + rest[i] * kE4M3RestUnit) * kE4M3DigitUnit,
                DecodeE4M3(codes[i])) << "code " << int(codes[i]);
      EXPECT_LE(std::abs(high[i]), 112);
      EXPECT_TRUE(-4 <= rest[i] && rest[i] <= 3);
    }
  });
}

TEST(E4M3Digits, ValuesFromAnEighthHaveNoRest) {
  std::vector<uint8_t> codes;
  for (int c = 0; c < 256; ++c) {
    const float v = DecodeE4M3(static_cast<uint8_t>(c));
    if (v >= 0.125f || v <= -0.125f) codes.push_back(static_cast<uint8_t>(c));
  }
  codes.resize(codes.size() / 16 * 16);
  const int64_t n = static_cast<int64_t>(codes.size());
  std::vector<int8_t> high(n), low(n);
  std::vector<RestQuad> rests(n / 4);
  EXPECT_EQ(SplitE4M3(codes.data(), n, high.data(), low.data(), rests.data()), 0);
}

TEST(E4M3Digits, SumsOfSixteen) {
  auto random = TestRandom(42);
  ForEachSimdTarget([&] {
    for (const int64_t n : {16, 48, 64, 80, 400}) {
      GuardedBuffer<int8_t> line(n);
      for (int8_t& v : line) v = static_cast<int8_t>(random());
      line[0] = line[n - 1] = -128;
      GuardedBuffer<int32_t> sums(n / 16);
      SumSixteens(line.data(), n, sums.data());
      for (int64_t b = 0; b < n / 16; ++b) {
        EXPECT_EQ(sums[b], std::accumulate(&line[16 * b], &line[16 * b] + 16, 0)) << n;
      }
    }
  });
}

}  // namespace
}  // namespace nibble
