// SPDX-License-Identifier: Apache-2.0
//
// Hopper's kernel (tiled_wgmma.cuh) in the emulator against the F64 reference, with the tolerance
// that gemm_i4f8_test.cc derives, and when a device takes it.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "kernels-cuda/common/modules.h"
#include "kernels-cuda/gemm_i4f8/gemm_i4f8_case.h"
#include "kernels-cuda/gemm_i4f8/seeds_for_test.h"
#include "kernels-cuda/gemm_i4f8/kernel_table.h"

namespace nibble::cuda::gemm_i4f8 {
namespace {

Device& Hopper() { return EmulatedDevice(90); }

bool OnRealDevice() { return std::getenv("NIBBLE_TEST_DEVICE") != nullptr; }

// What Hopper's tensor cores, unlike the emulator's by default, may lose (see the test of truncated
// accumulators).
double Fp8Error() { return OnRealDevice() ? 66 * std::exp2(-13) : 0; }

class GemmI4F8Wgmma : public ::testing::Test {
 protected:
  void SetUp() override {
    if (Hopper().properties().sm != 90) GTEST_SKIP() << "the GPU is none of Hopper's";
  }
};

Case WarpgroupCase(DType scale, int64_t group, int64_t splits = 1) {
  Case c;
  c.format = {DType::kI4, scale, group};
  c.plan = {128, splits, true};
  return c;
}

void ExpectRight(std::mt19937_64& random, const Case& c) {
  ASSERT_EQ(PreparedCase(random, c).Verify(Hopper(), Fp8Error()), "") << Describe(c);
}

int TestRounds() { return std::getenv("NIBBLE_FULL_TESTS") != nullptr ? 20 : 1; }

// Every scale type and every unit and kind of group, with random shapes and epilogues.
TEST_F(GemmI4F8Wgmma, RandomShapes) {
  auto random = Random(250);
  for (int round = 0; round < TestRounds(); ++round) {
    for (const DType scale : kScaleTypes) {
      for (const int64_t group : {0, 32, 64, 96, 128, 192, 1024}) {
        Case c = WarpgroupCase(scale, group, random() % 3 == 0 ? UniformInt(random, 2, 4) : 1);
        c.rows = UniformInt(random, 1, 150);
        c.cols = UniformInt(random, 1, 330);
        c.tokens = random() % 4 == 0 ? UniformInt(random, 65, 140) : UniformInt(random, 1, 40);
        c.pair = random() % 4 == 0;
        c.bias = random() % 2 == 0;
        c.residual = !c.pair && random() % 2 == 0;
        c.bf16_result = random() % 3 == 0;
        ASSERT_NO_FATAL_FAILURE(ExpectRight(random, c));
      }
    }
  }
}

// Around tiles of 16 rows and blocks of 128, steps of 64 columns, units of 32, the ring of four
// stages, warpgroups of 64 tokens and blocks of 128.
TEST_F(GemmI4F8Wgmma, ShapesAroundEveryTileEdge) {
  auto random = Random(251);
  int i = 0;
  const auto check = [&](int64_t rows, int64_t cols, int64_t tokens, bool pair) {
    Case c = WarpgroupCase(kScaleTypes[i % 5], int64_t{32} << (i % 3), 1 + i % 2);
    c.rows = rows;
    c.cols = cols;
    c.tokens = tokens;
    c.pair = pair;
    ++i;
    ASSERT_NO_FATAL_FAILURE(ExpectRight(random, c));
  };
  for (const int64_t rows : {1, 15, 16, 17, 31, 32, 33}) check(rows, 40, 2, rows % 2 == 0);
  for (const int64_t rows : {63, 64, 65, 127, 128, 129}) check(rows, 70, 3, rows < 100);
  for (const int64_t cols : {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129}) {
    check(5, cols, 1, false);
  }
  for (const int64_t cols : {191, 192, 193, 255, 256, 257, 319, 320, 321, 511, 513}) {
    check(20, cols, 2, cols == 256);
  }
  for (const int64_t tokens : {7, 8, 9, 63, 64, 65, 127, 128, 129, 257}) {
    check(18, 70, tokens, tokens == 65);
  }
}

// Long rows fill and refill the ring; more splits than steps leave some blocks without work.
TEST_F(GemmI4F8Wgmma, LongRowsAndManySplits) {
  auto random = Random(252);
  for (const int64_t group : {32, 128}) {
    for (const int64_t splits : {1, 3, 40}) {
      Case c = WarpgroupCase(DType::kE4M3, group, splits);
      c.rows = 20;
      c.cols = UniformInt(random, 1900, 2300);
      c.tokens = 2;
      c.pair = splits == 3;
      ASSERT_NO_FATAL_FAILURE(ExpectRight(random, c));
    }
  }
}

// The epilogue: what is added and stored, alone and together.
TEST_F(GemmI4F8Wgmma, EveryEpilogue) {
  auto random = Random(253);
  for (int i = 0; i < 16; ++i) {
    Case c = WarpgroupCase(DType::kF16, i % 3 == 0 ? 32 : 64, 1 + i / 8);
    c.bias = (i & 1) != 0;
    c.bf16_result = (i & 2) != 0;
    c.pair = (i & 4) != 0;
    c.residual = !c.pair && i % 3 != 1;
    c.in_place = c.residual && !c.bf16_result && i % 2 == 0;
    c.rows = 37;
    c.cols = 150;
    c.tokens = 67;
    ASSERT_NO_FATAL_FAILURE(ExpectRight(random, c));
  }
}

// Integers of which every sum is below 2^24 come out exactly.
TEST_F(GemmI4F8Wgmma, IntegersAreExact) {
  auto random = Random(254);
  for (const int64_t group : {32, 64}) {
    Case c = WarpgroupCase(DType::kPow2, group);
    c.rows = 130;
    c.cols = 300;
    c.tokens = 70;
    c.integers = true;
    ASSERT_NO_FATAL_FAILURE(ExpectRight(random, c));
  }
}

TEST_F(GemmI4F8Wgmma, NaNStaysInItsToken) {
  auto random = Random(255);
  Case c = WarpgroupCase(DType::kE4M3, 64);
  c.rows = 20;
  c.cols = 100;
  c.tokens = 70;
  c.nan_token = 66;
  ASSERT_NO_FATAL_FAILURE(ExpectRight(random, c));
}

// Other orders of warps and blocks, the same bits.
TEST_F(GemmI4F8Wgmma, EveryRunGivesTheSameBits) {
  auto random = Random(256);
  for (const int64_t group : {32, 64}) {
    Case c = WarpgroupCase(DType::kF16, group, 2);
    c.rows = 40;
    c.cols = 500;
    c.tokens = 70;
    const PreparedCase prepared(random, c);
    std::vector<uint8_t> first;
    ASSERT_NO_FATAL_FAILURE(ExpectSameBitsOfEverySeed(Hopper(), prepared, Describe(c), &first));
    EXPECT_EQ(prepared.Problem(first, Fp8Error()), "");
  }
}

// Tensor cores that cut the terms of one instruction (32 products and the sum so far) to 13 bits
// below the largest: as gemm_i4f8_test.cc derives it for mma.sync.
TEST_F(GemmI4F8Wgmma, TruncatedAccumulatorsStayWithinTheirBound) {
  auto random = Random(257);
  const emulator::Options before = emulator::GetOptions();
  emulator::Options options = before;
  options.fp8_accumulation = emulator::Accumulation::kTruncated;
  emulator::SetOptions(options);
  for (const int64_t group : {0, 32}) {
    Case c = WarpgroupCase(DType::kE4M3, group);
    c.rows = 16;
    c.tokens = 4;
    c.cols = 1500;
    EXPECT_EQ(PreparedCase(random, c).Verify(Hopper(), 66 * std::exp2(-13)), "");
    c.cols = 64;
    EXPECT_NE(PreparedCase(random, c).Verify(Hopper()), "") << "nothing was cut";
  }
  emulator::SetOptions(before);
}

// ------------------------------------------------------------------------------------ the choice

// The image of the module as a device of sm_90 loads it.
const ModuleImage* Image() {
  bool cubin = false;
  return ChooseImage("gemm_i4f8_wgmma", 90, &cubin);
}

TEST_F(GemmI4F8Wgmma, DevicesThatPassTheTrialTakeIt) {
  for (const int sm : kEmulatedGenerations) {
    for (const int unit : {64, 32, 16}) {
      EXPECT_EQ(UsesWarpgroups(EmulatedDevice(sm), unit),
                EmulatedDevice(sm).properties().sm == 90 && unit != 16)
          << "sm_" << sm << ", unit " << unit << ": " << emulator::LastViolation();
    }
  }
}

// Also where tensor cores keep fewer bits.
TEST_F(GemmI4F8Wgmma, TheTrialIsExactInTruncatedAccumulators) {
  const emulator::Options before = emulator::GetOptions();
  emulator::Options options = before;
  options.fp8_accumulation = emulator::Accumulation::kTruncated;
  emulator::SetOptions(options);
  std::unique_ptr<Device> device;
  ASSERT_TRUE(Succeeded(Device::Open(emulator::EmulatedDriver(90), 0, &device)));
  bool same = false;
  for (const int unit : {64, 32}) {
    EXPECT_TRUE(Succeeded(TryWarpgroups(*device, unit, &same)));
    EXPECT_TRUE(same) << unit;
  }
  emulator::SetOptions(before);
}

// A kernel that gives other sums on the device there is (here: those of -B) fails its trial.
TEST_F(GemmI4F8Wgmma, ADeviceThatGivesOtherSumsFailsTheTrial) {
  const ModuleImage* image = Image();
  ASSERT_NE(image, nullptr);
  std::string broken = image->ptx;
  const std::string right = "accumulate, 1, 1;", wrong = "accumulate, 1, -1;";
  int places = 0;
  for (size_t at = broken.find(right); at != broken.npos; at = broken.find(right, at + 1)) {
    broken.replace(at, right.size(), wrong);
    ++places;
  }
  ASSERT_EQ(places, 8);
  emulator::SetPtxHook([&](const char* text) {
    return std::strcmp(text, image->ptx) == 0 ? broken : std::string();
  });
  std::unique_ptr<Device> device;
  ASSERT_TRUE(Succeeded(Device::Open(emulator::EmulatedDriver(90), 0, &device)));
  bool same = true;
  for (const int unit : {64, 32}) {
    EXPECT_TRUE(Succeeded(TryWarpgroups(*device, unit, &same)));
    EXPECT_FALSE(same) << unit;
  }
  device.reset();
  emulator::SetPtxHook(nullptr);
}

// Enough blocks of 128 tokens for the device: Run and RunSwiGlu take the kernel by themselves.
TEST_F(GemmI4F8Wgmma, RunTakesIt) {
  if (OnRealDevice()) GTEST_SKIP() << "the shapes are for the emulator's few multiprocessors";
  auto random = Random(258);
  Case c;
  c.planned = false;
  c.cols = 40;
  c.tokens = 130;
  for (const bool pair : {false, true}) {
    c.format = {DType::kI4, DType::kE4M3, pair ? 32 : 64};
    c.pair = pair;
    c.rows = pair ? 256 : 512;
    const Plan plan =
        MakePlan(c.format, c.rows, c.cols, c.tokens, pair, Hopper().properties().multiprocessors);
    ASSERT_EQ(plan.block_tokens, 128);
    ASSERT_TRUE(UsesWarpgroups(Hopper(), UnitColumns(c.format)));
    emulator::RecordLines(true);
    ASSERT_NO_FATAL_FAILURE(ExpectRight(random, c));
    EXPECT_FALSE(emulator::LinesRun(Image()->ptx).empty()) << "another kernel has run";
    emulator::RecordLines(false);
  }
}

TEST_F(GemmI4F8Wgmma, PlansForOtherDevicesAreRefused) {
  if (OnRealDevice()) GTEST_SKIP() << "needs a device of another generation";
  const Plan plan{128, 1, true};
  const WeightFormat f{DType::kI4, DType::kE4M3, 128};
  const GemmResult result{DType::kF32, 1024, 32, 0, 0, 0, 0};
  const auto message = [&](int sm, DType activation, const Plan& p) {
    return RunPlanned(EmulatedDevice(sm), p, {f, 32, 128, 256}, nullptr,
                      {activation, 2, 128, 4096, 128, 512}, result, {0, 0})
        .message();
  };
  for (const std::string& text :
       {message(89, DType::kE4M3, plan), message(90, DType::kI8, plan),
        message(90, DType::kE4M3, {64, 1, true})}) {
    EXPECT_NE(text.find("E4M3 activations on sm_90 in blocks of 128 tokens"), std::string::npos)
        << text;
  }
}

}  // namespace
}  // namespace nibble::cuda::gemm_i4f8
