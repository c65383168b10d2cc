// SPDX-License-Identifier: Apache-2.0
//
// What the mutation suite runs of the INT4 products (verification.h). Nearly all results are exact:
// of small integers and scales with few bits, so that every bit of an operand, of a scale and of an
// index shows.
#include "kernels-cuda/testing/verification.h"

#include <cmath>
#include <memory>

#include "kernels-cuda/gemm_i4f8/gemm_i4f8_case.h"
#include "kernels-cuda/gemm_i4f8/kernel_table.h"

namespace nibble::cuda::gemm_i4f8 {
namespace {

enum class Kernels { kFewRows, kTiled, kWarpgroup };

// Every kernel of a module: each scale type (and so each kind of factor) with a matrix and with a
// pair, with every option of the end and without; steps split over blocks; rows long enough to fill
// and refill the rings; every way of rounding to BF16; gates of every size.
std::vector<Case> KernelCases(const ProductKernel& k, bool warpgroup) {
  const bool few = k.block_tokens <= 16;
  std::vector<Case> cases;
  Case c;
  c.activation = k.activation;
  c.plan = {k.block_tokens, 1, warpgroup};
  c.integers = true;
  // Tokens in every part of the store: it takes 16 at a time, and what is past 64 as what is not.
  const int64_t tokens = few ? k.block_tokens - 1 : std::min(k.block_tokens - 2, 62);
  int i = 0;
  for (const DType scale : kScaleTypes) {
    for (const bool pair : {false, true}) {
      // One group or several, some of which end with no power of two of units.
      const int64_t groups[] = {k.unit == 64 ? 0 : k.unit, k.unit, 3 * k.unit};
      c.format = {DType::kI4, scale, groups[i % 3]};
      c.rows = warpgroup ? 50 : 18;  // of two warps, which have 32 rows each
      // The last step in the first stage of a ring of four, where the sums pass through.
      c.cols = i % 2 == 0 ? 64 * 4 + 40 : 64 * 2 + 8;
      c.tokens = i == 0 ? 3 : tokens;
      c.pair = pair;
      c.bias = i / 2 % 3 != 1;
      c.residual = !pair && i % 4 != 0;
      c.bf16_result = i % 3 == 1;
      c.other_scales = i / 2 == 1;
      cases.push_back(c);
      ++i;
    }
  }
  c.other_scales = false;
  // Most of a block, several steps a split.
  c.format = {DType::kI4, DType::kPow2, k.unit == 64 ? 128 : k.unit};
  c.residual = c.bf16_result = false;
  c.bias = true;
  for (const bool pair : {false, true}) {
    c.pair = pair;
    c.plan.splits = pair ? 2 : 3;
    c.rows = few ? 37 : pair ? 60 : 101;
    c.cols = few ? 64 * 4 * 5 + 7 : 64 * 6 + 33;
    c.tokens = few ? k.block_tokens - 2 : k.block_tokens - 1;
    cases.push_back(c);
    c.plan.splits = 1;
    cases.push_back(c);
  }
  // Hopper's kernel has its store once for every 16 tokens: the other ways to store.
  for (int way = 0; warpgroup && way < 3; ++way) {
    c.pair = way == 0;
    c.bf16_result = c.residual = way == 1;
    c.plan.splits = way == 0 ? 2 : 1;
    c.rows = 60;
    c.cols = 64 * 2 + 33;
    c.tokens = 70;
    cases.push_back(c);
  }
  c.bf16_result = c.residual = false;
  c.plan.splits = 1;
  // The end alone.
  c.rows = 35;
  c.cols = 40;
  c.tokens = tokens;
  c.bf16_result = c.ends = true;
  for (const bool pair : {false, true}) {
    c.pair = pair;
    cases.push_back(c);
  }
  c.ends = c.bf16_result = false;
  c.gates = true;
  c.rows = 41;
  cases.push_back(c);
  return cases;
}

VerificationCases Prepare(std::mt19937_64& random, const std::vector<Case>& cases) {
  VerificationCases prepared;
  for (const Case& c : cases) {
    const auto one = std::make_shared<PreparedCase>(random, c);
    prepared.push_back([one](Device& device) { return one->Verify(device).empty(); });
  }
  return prepared;
}

template <int kActivation, Kernels kWhich>
VerificationCases ModuleCases() {
  constexpr bool kWarpgroup = kWhich == Kernels::kWarpgroup;
  std::mt19937_64 random(230 + kActivation);
  std::vector<Case> cases;
  for (const ProductKernel& k : kProductKernels) {
    if (k.activation != kActivations[kActivation]) continue;
    if ((k.block_tokens <= 16) != (kWhich == Kernels::kFewRows)) continue;
    if (kWarpgroup && k.block_tokens != 128) continue;
    for (const Case& c : KernelCases(k, kWarpgroup)) cases.push_back(c);
  }
  return Prepare(random, cases);
}

// The sums of splits, of more rows than a block has threads: every option of the end.
VerificationCases MergeCases() {
  std::mt19937_64 random(239);
  std::vector<Case> cases;
  Case c;
  c.integers = true;
  int i = 0;
  for (const DType activation : {DType::kE4M3, DType::kBF16}) {
    for (const DType scale : {DType::kE4M3, DType::kPow2, DType::kF32}) {
      for (const bool pair : {false, true}) {
        c.format = {DType::kI4, scale, 64};
        c.activation = activation;
        c.rows = i == 0 ? 270 : 18;
        c.cols = 64 * 3 + 8;
        c.tokens = 3;
        c.plan.splits = 2 + i % 3;
        c.pair = pair;
        c.bias = i / 2 % 3 != 1;
        c.residual = !pair && i % 4 != 0;
        c.bf16_result = i % 3 == 1;
        cases.push_back(c);
        ++i;
      }
    }
  }
  c.rows = 35;
  c.residual = c.bf16_result = false;
  c.bias = c.bf16_result = c.ends = true;
  for (const bool pair : {false, true}) {
    c.pair = pair;
    cases.push_back(c);
  }
  c.ends = c.bf16_result = false;
  c.gates = true;
  c.rows = 41;
  cases.push_back(c);
  return Prepare(random, cases);
}

// Rows of weights, by number and by range, beside which nothing may be written.
class PreparedRows {
 public:
  PreparedRows(std::mt19937_64& random, const WeightFormat& format, int64_t cols)
      : format_(format), cols_(cols), stride_(cols + 3) {
    CanonicalStorage weights = RandomWeights(random, format, kRows, cols);
    packed_ = PackAll(format, kRows, cols, weights, 0);
    for (const bool by_id : {false, true}) {
      for (int64_t i = 0; i < kCount; ++i) {
        const int64_t row = by_id ? ids_[static_cast<size_t>(i)] : kFirst + i;
        for (int64_t k = 0; k < stride_; ++k) {
          expected_[by_id].push_back(
              k < cols ? static_cast<float>(WeightValue(format, cols, weights.view(), row, k))
                       : kUntouched);
        }
      }
    }
  }

  bool Verify(Device& device) const {
    DeviceCopy packed(device, packed_), ids(device, ids_);
    for (const bool by_id : {false, true}) {
      std::vector<float> values(expected_[by_id].size(), kUntouched);
      DeviceCopy output(device, values);
      const Status status =
          DequantizeRows(device, {format_, kRows, cols_, packed.memory()}, by_id ? ids.memory() : 0,
                         kFirst, kCount, output.memory(), stride_);
      if (!status.ok() || !output.CopyOut(values).ok() || values != expected_[by_id]) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kRows = 35, kFirst = 14, kCount = 4;
  static constexpr float kUntouched = 7777;
  WeightFormat format_;
  int64_t cols_, stride_;
  std::vector<int32_t> ids_ = {34, 0, 17, 16};
  std::vector<uint8_t> packed_;
  std::vector<float> expected_[2];
};

VerificationCases DequantizeCases() {
  std::mt19937_64 random(240);
  VerificationCases cases;
  const auto add = [&](DType scale, int64_t group, int64_t cols) {
    const auto one =
        std::make_shared<PreparedRows>(random, WeightFormat{DType::kI4, scale, group}, cols);
    cases.push_back([one](Device& device) { return one->Verify(device); });
  };
  // 1024 columns keep every thread of a block busy once.
  add(DType::kE4M3, 128, 1101);
  add(DType::kPow2, 16, 100);
  add(DType::kF16, 32, 103);
  add(DType::kBF16, 48, 150);
  add(DType::kF32, 0, 81);
  return cases;
}

const std::vector<int> kEvery = {80, 89, 90, 120};
const VerificationRegistration kVerify[] = {
    VerificationRegistration({"gemm_i4f8 few e4m3",
                              {"gemm_i4f8_few_e4m3"},
                              ModuleCases<0, Kernels::kFewRows>,
                              kEvery}),
    VerificationRegistration({"gemm_i4f8 few i8",
                              {"gemm_i4f8_few_i8"},
                              ModuleCases<1, Kernels::kFewRows>,
                              kEvery}),
    VerificationRegistration({"gemm_i4f8 few bf16",
                              {"gemm_i4f8_few_bf16"},
                              ModuleCases<2, Kernels::kFewRows>,
                              kEvery}),
    VerificationRegistration({"gemm_i4f8 tiled e4m3",
                              {"gemm_i4f8_tiled_e4m3"},
                              ModuleCases<0, Kernels::kTiled>,
                              kEvery}),
    VerificationRegistration({"gemm_i4f8 tiled i8",
                              {"gemm_i4f8_tiled_i8"},
                              ModuleCases<1, Kernels::kTiled>,
                              kEvery}),
    VerificationRegistration({"gemm_i4f8 tiled bf16",
                              {"gemm_i4f8_tiled_bf16"},
                              ModuleCases<2, Kernels::kTiled>,
                              kEvery}),
    VerificationRegistration(
        {"gemm_i4f8 wgmma", {"gemm_i4f8_wgmma"}, ModuleCases<0, Kernels::kWarpgroup>, {90}}),
    VerificationRegistration({"gemm_i4f8 merge", {"gemm_i4f8_finish"}, MergeCases, kEvery}),
    VerificationRegistration(
        {"gemm_i4f8 dequantize", {"gemm_i4f8_finish"}, DequantizeCases, kEvery}),
};

}  // namespace
}  // namespace nibble::cuda::gemm_i4f8
