// SPDX-License-Identifier: Apache-2.0
//
// The kernels of every target, in the emulator, against the F64 reference of the CPU's half.
//
// Tolerance. Codes, activations and their products are exact; each term passes through at most
// K + 8 roundings in F32 (sums in the tensor cores and of units and splits, group scale, factor,
// token scale, bias, residual), so that the error is at most (K + 8) u / (1 - (K + 8) u) times
// sum|terms| (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), u = 2^-24. BF16
// results add half a unit of their last place, 2^-8 of the value at most. (gemm_i4f8_case.h)
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "kernels-cpu/gemm/gemm_reference.h"
#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/numerics/quantize.h"
#include "kernels-cuda/common/modules.h"
#include "kernels-cuda/gemm_i4f8/gemm_i4f8_case.h"
#include "kernels-cuda/gemm_i4f8/kernel_table.h"
#include "kernels-cuda/gemm_i4f8/layout.h"
#include "kernels-cuda/gemm_i4f8/params.h"
#include "kernels-cuda/testing/verification.h"

namespace nibble::cuda::gemm_i4f8 {
namespace {

constexpr auto& kTargets = kEmulatedGenerations;
constexpr DType kActivations[] = {DType::kE4M3, DType::kI8, DType::kBF16};
constexpr DType kScaleTypes[] = {DType::kE4M3, DType::kPow2, DType::kF16, DType::kBF16,
                                 DType::kF32};
constexpr int kBlockTokens[] = {8, 16, 32, 64, 128};

int64_t UniformInt(std::mt19937_64& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

// How often random shapes repeat: many times where NIBBLE_FULL_TESTS is set.
int TestRounds() { return std::getenv("NIBBLE_FULL_TESTS") != nullptr ? 20 : 1; }

std::vector<WeightFormat> Formats() {
  std::vector<WeightFormat> formats;
  for (const DType s : kScaleTypes) {
    for (const int64_t group : {0, 16, 32, 48, 64, 96, 128, 192, 1024}) {
      formats.push_back({DType::kI4, s, group});
    }
  }
  return formats;
}

std::vector<uint8_t> PackAll(const WeightFormat& f, int64_t rows, int64_t cols,
                             CanonicalStorage& weights, uint8_t fill) {
  std::vector<uint8_t> packed(static_cast<size_t>(PackedBytes(f, rows, cols)), fill);
  for (int64_t b = RowBlocks(rows) - 1; b >= 0; --b) {
    Pack(f, rows, cols, weights.view(), b, packed.data());
  }
  return packed;
}

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

// ---------------------------------------------------------------------------------- products

void ExpectRight(Device& device, std::mt19937_64& random, const Case& c) {
  ASSERT_EQ(PreparedCase(random, c).Verify(device), "")
      << Describe(c) << " on sm_" << device.properties().sm;
}

// Every kernel, with random shapes; scale types and groups in turn.
TEST(GemmI4F8, EveryKernelOnRandomShapes) {
  auto random = Random(210);
  for (int round = 0; round < TestRounds(); ++round) {
    for (const int sm : kTargets) {
      for (const DType activation : kActivations) {
        for (const int block_tokens : kBlockTokens) {
          for (const int64_t group : {0, 16, 32, 48, 64, 96, 128}) {
            Case c;
            c.format = {DType::kI4, kScaleTypes[random() % 5], group};
            if (!HasKernel(UnitColumns(c.format), block_tokens, 1)) continue;
            c.activation = activation;
            c.plan.block_tokens = block_tokens;
            c.plan.splits = random() % 3 == 0 ? UniformInt(random, 2, 4) : 1;
            c.rows = UniformInt(random, 1, 150);
            c.cols = UniformInt(random, 1, 330);
            c.tokens = UniformInt(random, 1, block_tokens <= 16 ? block_tokens : 40);
            c.pair = random() % 4 == 0;
            c.bias = random() % 2 == 0;
            c.residual = !c.pair && random() % 2 == 0;
            c.bf16_result = random() % 3 == 0;
            ASSERT_NO_FATAL_FAILURE(ExpectRight(EmulatedDevice(sm), random, c));
          }
        }
      }
    }
  }
}

// Every format, on the smallest kernel that has all units.
TEST(GemmI4F8, EveryFormat) {
  auto random = Random(211);
  int i = 0;
  for (const WeightFormat& f : Formats()) {
    Case c;
    c.format = f;
    c.activation = kActivations[i % 3];
    c.plan = {i % 2 == 0 ? 8 : 32, 1};
    c.rows = 17;
    c.cols = UniformInt(random, 190, 260);
    c.tokens = 3;
    ASSERT_NO_FATAL_FAILURE(ExpectRight(EmulatedDevice(kTargets[i % 4]), random, c));
    ++i;
  }
}

TEST(GemmI4F8, ShapesAroundEveryTileEdge) {
  auto random = Random(212);
  int i = 0;
  const auto check = [&](int block_tokens, int64_t rows, int64_t cols, int64_t tokens, bool pair) {
    Case c;
    c.format = {DType::kI4, kScaleTypes[i % 5], int64_t{32} << (i % 3)};
    c.activation = kActivations[i % 3];
    c.plan = {block_tokens, 1 + i % 2};
    c.rows = rows;
    c.cols = cols;
    c.tokens = tokens;
    c.pair = pair;
    ASSERT_NO_FATAL_FAILURE(ExpectRight(EmulatedDevice(kTargets[i++ % 4]), random, c));
  };
  for (const int64_t rows : {1, 15, 16, 17, 31, 32, 33}) check(8, rows, 40, 2, rows == 16);
  for (const int64_t rows : {63, 64, 65, 127, 128, 129}) check(32, rows, 24, 5, rows < 100);
  for (const int64_t cols : {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 511, 513}) {
    check(8, 5, cols, 1, false);
    check(32, 5, cols, 1, false);
  }
  for (const int64_t tokens : {1, 7, 8}) check(8, 18, 70, tokens, false);
  for (const int64_t tokens : {9, 15, 16}) check(16, 18, 70, tokens, tokens == 9);
  for (const int64_t tokens : {31, 32, 33, 64, 65}) check(32, 3, 70, tokens, false);
  for (const int64_t tokens : {63, 64, 65}) check(64, 3, 70, tokens, false);
  for (const int64_t tokens : {127, 128, 129}) check(128, 3, 70, tokens, tokens == 127);
}

// Long rows fill and refill the rings; more splits than steps leave some blocks without work.
TEST(GemmI4F8, LongRowsAndManySplits) {
  auto random = Random(213);
  int i = 0;
  for (const int block_tokens : kBlockTokens) {
    for (const int64_t splits : {1, 3, 40}) {
      Case c;
      c.format = {DType::kI4, DType::kE4M3, 128};
      c.activation = kActivations[i % 3];
      c.plan = {block_tokens, splits};
      c.rows = 20;
      c.cols = UniformInt(random, 1900, 2300);
      c.tokens = 2;
      c.pair = i % 2 == 0;
      ASSERT_NO_FATAL_FAILURE(ExpectRight(EmulatedDevice(kTargets[i % 4]), random, c));
      ++i;
    }
  }
}

// Integers of which every sum is below 2^24 come out exactly, whatever the path.
TEST(GemmI4F8, IntegersAreExact) {
  auto random = Random(214);
  for (const int sm : kTargets) {
    for (const DType activation : kActivations) {
      for (const int block_tokens : {8, 32}) {
        Case c;
        c.format = {DType::kI4, DType::kPow2, block_tokens == 8 ? 64 : 32};
        c.activation = activation;
        c.plan = {block_tokens, 1};
        c.rows = 33;
        c.cols = 300;
        c.tokens = 5;
        c.integers = true;
        ASSERT_NO_FATAL_FAILURE(ExpectRight(EmulatedDevice(sm), random, c));
      }
    }
  }
}

// What Run and RunSwiGlu choose by themselves, with the scratch that they ask for.
TEST(GemmI4F8, RunChoosesAPlan) {
  auto random = Random(215);
  for (const int sm : kTargets) {
    Device& device = EmulatedDevice(sm);
    for (const int64_t tokens : {1, 9, 17, 70}) {
      Case c;
      c.format = {DType::kI4, DType::kE4M3, tokens == 9 ? 16 : 128};
      c.activation = kActivations[tokens % 3];
      c.rows = 20;
      c.cols = tokens < 20 ? 2200 : 200;
      c.tokens = tokens;
      c.planned = false;
      c.pair = tokens % 2 == 0 || sm == 89;
      ASSERT_NO_FATAL_FAILURE(ExpectRight(device, random, c));
    }
  }
}

TEST(GemmI4F8, ResidualMayBeTheResult) {
  auto random = Random(216);
  Case c;
  c.format = {DType::kI4, DType::kE4M3, 32};
  c.residual = c.in_place = true;
  c.rows = 40;
  c.cols = 70;
  c.tokens = 6;
  for (const int block_tokens : {8, 32}) {
    for (const int64_t splits : {1, 2}) {
      c.plan = {block_tokens, splits};
      ASSERT_NO_FATAL_FAILURE(ExpectRight(EmulatedDevice(120), random, c));
    }
  }
}

TEST(GemmI4F8, NaNStaysInItsToken) {
  auto random = Random(217);
  for (const DType activation : {DType::kE4M3, DType::kI8}) {
    for (const int block_tokens : {8, 32}) {
      Case c;
      c.format = {DType::kI4, DType::kE4M3, 64};
      c.activation = activation;
      c.plan = {block_tokens, 1};
      c.rows = 20;
      c.cols = 100;
      c.tokens = 5;
      c.nan_token = 3;
      Device& device = EmulatedDevice(activation == DType::kI8 ? 90 : 89);
      ASSERT_NO_FATAL_FAILURE(ExpectRight(device, random, c));
    }
  }
}

// Other orders of warps and blocks, the same bits.
TEST(GemmI4F8, EveryRunGivesTheSameBits) {
  auto random = Random(218);
  const emulator::Options before = emulator::GetOptions();
  for (const int block_tokens : kBlockTokens) {
    Case c;
    c.format = {DType::kI4, DType::kF16, 64};
    c.activation = kActivations[block_tokens % 3];
    c.plan = {block_tokens, 3};
    c.rows = 40;
    c.cols = 500;
    c.tokens = 6;
    c.pair = block_tokens % 3 == 0;
    const PreparedCase prepared(random, c);
    std::vector<uint8_t> first, again;
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      emulator::Options options = before;
      options.seed = seed;
      emulator::SetOptions(options);
      const Status status = prepared.Run(EmulatedDevice(89), seed == 1 ? &first : &again);
      ASSERT_TRUE(status.ok()) << status.message();
      if (seed > 1) {
        ASSERT_EQ(first, again) << Describe(c);
      }
    }
    EXPECT_EQ(prepared.Problem(first), "");
  }
  emulator::SetOptions(before);
}

// FP8 tensor cores that cut the terms of one instruction (32 products and the sum so far) to 13
// bits below the largest: two instructions a unit of 64 columns lose at most 2 * 33 * 2^-13 of
// its largest term or sum, which the sum of its terms' magnitudes bounds, however long the row.
TEST(GemmI4F8, TruncatedAccumulatorsStayWithinTheirBound) {
  auto random = Random(219);
  const emulator::Options before = emulator::GetOptions();
  emulator::Options options = before;
  options.fp8_accumulation = emulator::Accumulation::kTruncated;
  emulator::SetOptions(options);
  for (const int sm : {89, 120}) {
    for (const int block_tokens : {8, 32}) {
      Case c;
      c.format = {DType::kI4, DType::kE4M3, 0};
      c.plan = {block_tokens, 1};
      c.rows = 16;
      c.tokens = 4;
      c.cols = 1500;
      const PreparedCase long_rows(random, c);
      EXPECT_EQ(long_rows.Verify(EmulatedDevice(sm), 66 * std::exp2(-13)), "");
      c.cols = 64;
      EXPECT_NE(PreparedCase(random, c).Verify(EmulatedDevice(sm)), "") << "nothing was cut";
    }
  }
  emulator::SetOptions(before);
}

// ---------------------------------------------------------------------------- rows of weights

TEST(GemmI4F8, DequantizedRowsAreExact) {
  auto random = Random(220);
  int i = 0;
  for (const WeightFormat& f : Formats()) {
    Device& device = EmulatedDevice(kTargets[i++ % 4]);
    const int64_t rows = UniformInt(random, 3, 40), cols = UniformInt(random, 1, 300);
    const int64_t stride = cols + UniformInt(random, 0, 3);
    SCOPED_TRACE(Describe(f, rows, cols));
    CanonicalStorage weights = RandomWeights(random, f, rows, cols);
    DeviceCopy packed(device, PackAll(f, rows, cols, weights, 0));
    const DeviceWeights matrix{f, rows, cols, packed.memory()};
    std::vector<int32_t> ids;
    for (int j = 0; j < 5; ++j) {
      ids.push_back(static_cast<int32_t>(UniformInt(random, 0, rows - 1)));
    }
    DeviceCopy device_ids(device, ids);
    for (const bool by_id : {true, false}) {
      const int64_t first = rows - 3, count = by_id ? 5 : 3;
      std::vector<float> out(static_cast<size_t>(count * stride), -7.0f);
      DeviceCopy output(device, out);
      const Status status = DequantizeRows(device, matrix, by_id ? device_ids.memory() : 0, first,
                                           count, output.memory(), stride);
      ASSERT_TRUE(status.ok()) << status.message();
      ASSERT_TRUE(output.CopyOut(out).ok());
      for (int64_t r = 0; r < count; ++r) {
        const int64_t n = by_id ? ids[static_cast<size_t>(r)] : first + r;
        for (int64_t k = 0; k < stride; ++k) {
          const float expected =
              k < cols ? static_cast<float>(WeightValue(f, cols, weights.view(), n, k)) : -7.0f;
          ASSERT_EQ(out[static_cast<size_t>(r * stride + k)], expected) << n << ", " << k;
        }
      }
    }
  }
}

// -------------------------------------------------------------------------------- instructions

int Occurrences(const char* text, const std::string& what) {
  int count = 0;
  for (const char* at = std::strstr(text, what.c_str()); at != nullptr;
       at = std::strstr(at + 1, what.c_str())) {
    ++count;
  }
  return count;
}

// Which tensor cores each target uses: Hopper's FP8 ones by wgmma alone, where mma.sync on E4M3
// would be expanded into many instructions.
TEST(GemmI4F8, EveryTargetTakesItsTensorCores) {
  int seen = 0;
  for (size_t i = 0; i < kModuleImageCount; ++i) {
    const ModuleImage& image = kModuleImages[i];
    if (std::string(image.name).rfind("gemm_i4f8", 0) != 0 || image.ptx == nullptr) continue;
    const std::string name = image.name;
    SCOPED_TRACE(name + " for " + std::to_string(image.target));
    const bool e4m3 = name == "gemm_i4f8_few_e4m3" || name == "gemm_i4f8_tiled_e4m3";
    const bool fp8 = e4m3 && (image.target == 89 || image.target == 120);
    EXPECT_EQ(Occurrences(image.ptx, "f32.e4m3.e4m3.f32") > 0, fp8);
    EXPECT_EQ(Occurrences(image.ptx, "f32.f16.f16.f32") > 0, e4m3 && !fp8);
    EXPECT_EQ(Occurrences(image.ptx, "s32.s8.s8.s32") > 0, name.find("_i8") != name.npos);
    EXPECT_EQ(Occurrences(image.ptx, "f32.bf16.bf16.f32") > 0, name.find("_bf16") != name.npos);
    const bool wgmma = name == "gemm_i4f8_wgmma";
    // Two kernels of two tiles of rows and two blocks of columns, none of it left out or repeated.
    EXPECT_EQ(Occurrences(image.ptx, "wgmma.mma_async"), wgmma ? 8 : 0);
    if (wgmma) {
      EXPECT_EQ(image.target, 90);
      EXPECT_GT(Occurrences(image.ptx, "fence.proxy.async"), 0);
    }
    ++seen;
  }
  EXPECT_EQ(seen, 7 * 4 + 1) << "modules with PTX";
}

// ------------------------------------------------------------------------------------ refusals

TEST(GemmI4F8, UnsupportedNamesWhatThereIs) {
  const WeightFormat f{DType::kI4, DType::kE4M3, 128};
  EXPECT_EQ(Unsupported(f, 10, 10, DType::kE4M3, 80), "");
  EXPECT_NE(Unsupported(f, 10, 10, DType::kF32, 80).find("E4M3, I8 or BF16"), std::string::npos);
  EXPECT_NE(Unsupported(f, 10, 10, DType::kE4M3, 75).find("7.5"), std::string::npos);
  EXPECT_NE(Unsupported({DType::kI8, DType::kF32, 0}, 10, 10, DType::kE4M3, 80), "");
  EXPECT_NE(Unsupported({DType::kI4, DType::kF32, 8}, 10, 10, DType::kE4M3, 80), "");
  EXPECT_NE(Unsupported(f, int64_t{1} << 31, 10, DType::kE4M3, 80), "");
}

TEST(GemmI4F8, WarpgroupProductsNeedADeviceThatHasThem) {
  for (const int sm : kTargets) {
    EXPECT_FALSE(UsesWarpgroups(EmulatedDevice(sm), 64)) << sm;
    EXPECT_FALSE(UsesWarpgroups(EmulatedDevice(sm), 16)) << sm;
  }
  Plan plan{128, 1};
  plan.warpgroup = true;
  const Status status = RunPlanned(EmulatedDevice(89), plan,
                                   {{DType::kI4, DType::kE4M3, 128}, 32, 128, 256}, nullptr,
                                   {DType::kE4M3, 2, 128, 4096, 128, 512},
                                   {DType::kF32, 1024, 32, 0, 0, 0, 0}, {0, 0});
  EXPECT_NE(status.message().find("sm_90"), std::string::npos);
}

TEST(GemmI4F8, RunRefusesWhatItCannotRead) {
  Device& device = EmulatedDevice(89);
  const WeightFormat f{DType::kI4, DType::kE4M3, 128};
  const DeviceWeights w{f, 32, 2048, 256};
  const GemmLeft left{DType::kE4M3, 2, 2048, 4096, 2048, 512};
  const GemmResult result{DType::kF32, 1024, 32, 0, 0, 0, 0};
  const auto message = [&](const DeviceWeights& weights, const GemmLeft& l, const GemmResult& r) {
    const Status status = RunPlanned(device, {8, 2}, weights, nullptr, l, r, {0, 1 << 20});
    EXPECT_FALSE(status.ok());
    return status.message();
  };
  GemmLeft l = left;
  l.cols = 2047;
  EXPECT_NE(message(w, l, result).find("[2, 2047]"), std::string::npos);
  l = left;
  l.stride = 2000;
  EXPECT_NE(message(w, l, result).find("stride of 2000"), std::string::npos);
  GemmResult r = result;
  r.type = DType::kF16;
  EXPECT_NE(message(w, left, r).find("F32 or BF16"), std::string::npos);
  DeviceWeights other = w;
  other.rows = 31;
  const Status pair = RunPlanned(device, {8, 1}, w, &other, left, result, {0, 0});
  EXPECT_EQ(pair.code(), NB_INVALID_ARGUMENT);
  const Status scratch = RunPlanned(device, {8, 2}, w, nullptr, left, result, {0, 16});
  EXPECT_NE(scratch.message().find("scratch of 16 bytes"), std::string::npos);
  EXPECT_FALSE(DequantizeRows(device, w, 0, 31, 2, 256, 2048).ok());
}

// --------------------------------------------------------------------------------- for mutants

// Every kernel of a module: with bias, residual and BF16 results and its steps split over blocks;
// as a pair, rows long enough to fill and refill the rings; and with every scale type.
std::vector<Case> MutantCases(DType activation, bool few) {
  std::vector<Case> cases;
  int i = 0;
  for (const ProductKernel& k : kProductKernels) {
    if (k.activation != activation || (k.block_tokens <= 16) != few) continue;
    for (const bool pair : {false, true}) {
      Case c;
      c.format = {DType::kI4, kScaleTypes[i++ % 5], k.unit == 64 ? 128 : k.unit};
      c.activation = activation;
      c.plan = {k.block_tokens, pair ? 1 : 3};
      c.rows = few ? (pair ? 20 : 37) : (pair ? 60 : 101);  // tiled: most of a block of 128
      // Rings of four stages: for 4 warps a matrix, or one block, all used again; in two splits of
      // 8 warps or blocks, not all used.
      c.cols = few ? 64 * 4 * 5 + 7 : 64 * 6 + 33;
      c.tokens = k.block_tokens == 128 ? 70 : k.block_tokens - 2;
      c.pair = pair;
      c.bias = true;
      c.residual = c.bf16_result = !pair;
      cases.push_back(c);
    }
    for (const DType scale : kScaleTypes) {
      Case c;
      c.format = {DType::kI4, scale, k.unit == 64 ? 64 : k.unit};
      c.activation = activation;
      c.plan = {k.block_tokens, 1};
      c.rows = 18;
      c.cols = 64 * 4 + 40;  // the last step in the first stage, where the sums pass through
      c.tokens = 3;
      c.integers = scale == DType::kPow2;  // where a scale's last bit is seen
      cases.push_back(c);
      if (!c.integers) continue;
      for (const bool pair : {false, true}) {
        c.pair = pair;
        c.bias = c.bf16_result = c.ends = true;
        c.rows = 35;
        cases.push_back(c);
      }
    }
  }
  return cases;
}

template <int kActivation, bool kFew>
VerificationCases ModuleCases() {
  std::mt19937_64 random(230 + kActivation);
  VerificationCases cases;
  for (const Case& c : MutantCases(kActivations[kActivation], kFew)) {
    const auto prepared = std::make_shared<PreparedCase>(random, c);
    cases.push_back([prepared](Device& device) { return prepared->Verify(device).empty(); });
  }
  return cases;
}

bool VerifyDequantize(Device& device, const WeightFormat& f) {
  std::mt19937_64 random(240);
  constexpr int64_t kRows = 35, kCols = 1100;
  CanonicalStorage weights = RandomWeights(random, f, kRows, kCols);
  DeviceCopy packed(device, PackAll(f, kRows, kCols, weights, 0));
  const std::vector<int32_t> ids = {34, 0, 17, 16};
  DeviceCopy device_ids(device, ids);
  std::vector<float> out(4 * kCols);
  for (const bool by_id : {true, false}) {
    DeviceCopy output(device, out);
    if (!DequantizeRows(device, {f, kRows, kCols, packed.memory()},
                        by_id ? device_ids.memory() : 0, 3, 4, output.memory(), kCols).ok() ||
        !output.CopyOut(out).ok()) {
      return false;
    }
    for (size_t i = 0; i < out.size(); ++i) {
      const int64_t r = static_cast<int64_t>(i) / kCols, k = static_cast<int64_t>(i) % kCols;
      const int64_t n = by_id ? ids[static_cast<size_t>(r)] : 3 + r;
      if (out[i] != static_cast<float>(WeightValue(f, kCols, weights.view(), n, k))) return false;
    }
  }
  return true;
}

VerificationCases DequantizeCases() {
  VerificationCases cases;
  for (const WeightFormat& f : {WeightFormat{DType::kI4, DType::kPow2, 16},
                                WeightFormat{DType::kI4, DType::kE4M3, 128},
                                WeightFormat{DType::kI4, DType::kF16, 32},
                                WeightFormat{DType::kI4, DType::kBF16, 48},
                                WeightFormat{DType::kI4, DType::kF32, 0}}) {
    cases.push_back([f](Device& device) { return VerifyDequantize(device, f); });
  }
  return cases;
}

const VerificationRegistration kMutants[] = {
    VerificationRegistration({"gemm_i4f8 few e4m3", {"gemm_i4f8_few_e4m3", "gemm_i4f8_finish"},
                              ModuleCases<0, true>, {80, 89, 90, 120}}),
    VerificationRegistration(
        {"gemm_i4f8 few i8", {"gemm_i4f8_few_i8"}, ModuleCases<1, true>, {80, 120}}),
    VerificationRegistration(
        {"gemm_i4f8 few bf16", {"gemm_i4f8_few_bf16"}, ModuleCases<2, true>, {80, 120}}),
    VerificationRegistration({"gemm_i4f8 tiled e4m3", {"gemm_i4f8_tiled_e4m3"},
                              ModuleCases<0, false>, {80, 89, 90, 120}}),
    VerificationRegistration(
        {"gemm_i4f8 tiled i8", {"gemm_i4f8_tiled_i8"}, ModuleCases<1, false>, {80, 120}}),
    VerificationRegistration(
        {"gemm_i4f8 tiled bf16", {"gemm_i4f8_tiled_bf16"}, ModuleCases<2, false>, {80, 120}}),
    VerificationRegistration(
        {"gemm_i4f8 dequantize", {"gemm_i4f8_finish"}, DequantizeCases, {80, 89, 90, 120}}),
};

}  // namespace
}  // namespace nibble::cuda::gemm_i4f8
