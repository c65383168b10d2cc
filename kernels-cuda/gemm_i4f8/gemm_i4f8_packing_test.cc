// SPDX-License-Identifier: Apache-2.0
//
// The packed layout, and which kernel a product takes.
#include <gtest/gtest.h>

#include "kernels-cuda/gemm_i4f8/gemm_i4f8_case.h"
#include "kernels-cuda/gemm_i4f8/layout.h"
#include "kernels-cuda/gemm_i4f8/params.h"

namespace nibble::cuda::gemm_i4f8 {
namespace {

TEST(GemmI4F8Packing, EveryFormatComesBackBitForBit) {
  auto random = Random(201);
  for (const WeightFormat& f : Formats()) {
    for (int i = 0; i < 6; ++i) {
      const int64_t rows = i == 0 ? 1 : UniformInt(random, 1, 150);
      const int64_t cols = i == 1 ? 1 : UniformInt(random, 1, 300);
      SCOPED_TRACE(Describe(f, rows, cols));
      CanonicalStorage weights = RandomWeights(random, f, rows, cols);
      for (uint8_t& s : weights.scales) s = static_cast<uint8_t>(random());
      const std::vector<uint8_t> packed = PackAll(f, rows, cols, weights, 0xA5);
      ASSERT_EQ(packed, PackAll(f, rows, cols, weights, 0x5A)) << "bytes that no block wrote";
      CanonicalStorage back(f, rows, cols);
      for (auto* part : {&back.codes, &back.scales}) std::fill(part->begin(), part->end(), 0xA5);
      for (int64_t b = 0; b < RowBlocks(rows); ++b) {
        Unpack(f, rows, cols, packed.data(), b, back.view());
      }
      EXPECT_EQ(back.codes, weights.codes);
      EXPECT_EQ(back.scales, weights.scales);
      EXPECT_EQ(back.factors, weights.factors);
    }
  }
}

TEST(GemmI4F8Packing, BitsOfNoColumnAreIgnored) {
  auto random = Random(202);
  const WeightFormat f{DType::kI4, DType::kF32, 0};
  for (const int64_t cols : {1, 7, 9, 63, 65}) {
    CanonicalStorage weights = RandomWeights(random, f, 3, cols);
    const std::vector<uint8_t> expected = PackAll(f, 3, cols, weights, 0);
    for (int64_t r = 1; r <= 3; ++r) {
      weights.codes[static_cast<size_t>(r * f.CodeRowBytes(cols) - 1)] |= 0xF0;
    }
    EXPECT_EQ(PackAll(f, 3, cols, weights, 0), expected) << cols;
  }
}

// The table in layout.h, entry by entry.
TEST(GemmI4F8Packing, WordsStandWhereLanesReadThem) {
  constexpr int64_t kSteps = 3;
  for (int64_t tile = 0; tile < 2; ++tile) {
    for (int64_t step = 0; step < kSteps; ++step) {
      for (int64_t lane = 0; lane < 32; ++lane) {
        const int64_t group = lane / 4, member = lane % 4;
        const int64_t at = (tile * kSteps + step) * 512 + lane * 16;
        const int64_t n = tile * 16 + 2 * group, k = step * 64 + 8 * member;
        EXPECT_EQ(WordOffset(kSteps, n, k), at);
        EXPECT_EQ(WordOffset(kSteps, n + 1, k), at + 4);
        EXPECT_EQ(WordOffset(kSteps, n, k + 32), at + 8);
        EXPECT_EQ(WordOffset(kSteps, n + 1, k + 32), at + 12);
      }
    }
  }
}

TEST(GemmI4F8Plan, FastDivideDivides) {
  auto random = Random(203);
  for (int i = 0; i < 100000; ++i) {
    const uint32_t d = i < 300 ? uint32_t(i) + 1
                       : i == 300 ? 1u << 31
                                  : uint32_t(random() >> (33 + random() % 31)) + 1;
    const uint32_t any = uint32_t(random() >> (33 + random() % 31));
    const FastDivide by(d);
    for (const uint32_t n : {any, any / d * d, any / d * d + d - 1, 0u, 0x7FFFFFFFu}) {
      if (n > 0x7FFFFFFFu) continue;
      const uint32_t high = static_cast<uint32_t>(uint64_t{n} * by.multiplier >> 32);
      ASSERT_EQ((high + n) >> by.shift, n / d) << n << " / " << d;
    }
  }
}

TEST(GemmI4F8Plan, EveryPlanHasAKernelAndItsScratch) {
  auto random = Random(204);
  Device& device = EmulatedDevice(89);
  for (int i = 0; i < 300; ++i) {
    const WeightFormat f{DType::kI4, DType::kF32, 16 * UniformInt(random, 0, 9)};
    const int64_t rows = UniformInt(random, 1, 20000), cols = UniformInt(random, 1, 20000);
    const int64_t m = UniformInt(random, 1, i % 2 == 0 ? 40 : 3000);
    const int64_t bytes = ScratchBytes(device, f, rows, cols, m);
    for (int64_t tokens = 1; tokens <= m; tokens += 1 + tokens / 16) {
      for (const bool pair : {false, true}) {
        const Plan plan =
            MakePlan(f, rows, cols, tokens, pair, device.properties().multiprocessors);
        ASSERT_TRUE(HasKernel(UnitColumns(f), plan.block_tokens, tokens));
        ASSERT_GE(plan.splits, 1);
        ASSERT_LE(plan.splits, std::max<int64_t>(1, cols / 64));
        ASSERT_LE(PlanScratchBytes(plan, rows, tokens, pair), bytes)
            << rows << " x " << cols << ", " << tokens << " of " << m << " tokens";
      }
    }
  }
  EXPECT_EQ(MakePlan({DType::kI4, DType::kF32, 0}, 11008, 4096, 1, false, 128).splits, 1);
  EXPECT_GT(MakePlan({DType::kI4, DType::kF32, 0}, 1024, 4096, 1, false, 128).splits, 1);
  EXPECT_GT(MakePlan({DType::kI4, DType::kF32, 0}, 1024, 4096, 64, false, 128).splits, 1);
}

}  // namespace
}  // namespace nibble::cuda::gemm_i4f8
