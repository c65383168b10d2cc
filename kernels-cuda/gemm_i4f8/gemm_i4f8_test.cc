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
#include "kernels-cuda/gemm_i4f8/seeds_for_test.h"
#include "kernels-cuda/gemm_i4f8/kernel_table.h"

namespace nibble::cuda::gemm_i4f8 {
namespace {

constexpr auto& kTargets = kEmulatedGenerations;
constexpr int kBlockTokens[] = {8, 16, 32, 64, 128};

// How often random shapes repeat: many times where NIBBLE_FULL_TESTS is set.
int TestRounds() { return std::getenv("NIBBLE_FULL_TESTS") != nullptr ? 20 : 1; }

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
    std::vector<uint8_t> first;
    ASSERT_NO_FATAL_FAILURE(ExpectSameBitsOfEverySeed(EmulatedDevice(89), prepared, Describe(c), &first));
    EXPECT_EQ(prepared.Problem(first), "");
  }
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

}  // namespace
}  // namespace nibble::cuda::gemm_i4f8
