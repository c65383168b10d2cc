// SPDX-License-Identifier: Apache-2.0
//
// The dense kernels of every target, in the emulator, against the F64 reference of the CPU's half;
// tolerances are derived in common/strip_case.h.
#include "kernels-cuda/gemm_dense/gemm_dense.h"

#include "kernels-cuda/common/strip_cases.h"
#include "kernels-cuda/common/strip_verification.h"

namespace nibble::cuda {
namespace {

constexpr const GemmFamily& kFamily = kGemmDense;
constexpr DType kCodes[] = {DType::kI8,   DType::kE4M3, DType::kE5M2,
                            DType::kBF16, DType::kF16,  DType::kF32};

std::vector<DType> Activations(DType code) {
  std::vector<DType> list;
  for (const DType a : {DType::kF32, DType::kBF16, DType::kE4M3, DType::kI8}) {
    if (kFamily.unsupported({code, DType::kF32, 0}, 1, 1, a, 80).empty()) list.push_back(a);
  }
  return list;
}

std::vector<WeightFormat> Formats(DType code) {
  return IsUnquantized(code) ? std::vector<WeightFormat>{{code, DType::kNone, 0}}
                             : ScaledFormats(code);
}

TEST(GemmDense, PackingIsInvertible) {
  for (const DType code : kCodes) ExpectInvertiblePacking(kFamily, Formats(code), 501);
}

TEST(GemmDense, RowsDequantizeExactly) {
  for (const int sm : Generations()) {
    for (const DType code : kCodes) ExpectExactRows(sm, kFamily, Formats(code), 502);
  }
}

TEST(GemmDense, EveryByteCodePassesTheTensorCores) {
  for (const int sm : Generations()) {
    for (const DType code : {DType::kI8, DType::kE4M3, DType::kE5M2}) {
      for (const DType a : Activations(code)) ExpectEveryCode(sm, kFamily, code, a, 503);
    }
  }
}

TEST(GemmDense, RandomShapesOfEveryFormat) {
  for (const int sm : Generations()) {
    for (const DType code : kCodes) {
      for (const DType a : Activations(code)) {
        CheckRandomShapes(sm, kFamily, Formats(code), a, 504);
      }
    }
  }
}

TEST(GemmDense, ShapesAroundTileEdges) {
  for (const int sm : Generations()) {
    CheckTileEdges(sm, kFamily, {DType::kI8, DType::kF32, 0}, DType::kI8, 505);
    CheckTileEdges(sm, kFamily, {DType::kI8, DType::kF16, 32}, DType::kBF16, 506);
    CheckTileEdges(sm, kFamily, {DType::kBF16, DType::kNone, 0}, DType::kBF16, 507);
    CheckTileEdges(sm, kFamily, {DType::kE4M3, DType::kF32, 0}, DType::kE4M3, 508);
    CheckTileEdges(sm, kFamily, {DType::kF32, DType::kNone, 0}, DType::kF32, 509);
  }
}

TEST(GemmDense, SplitsOfK) {
  for (const int sm : Generations()) {
    for (const DType code : kCodes) {
      for (const DType a : Activations(code)) {
        CheckSplits(sm, kFamily, Formats(code).back(), a, 510);
      }
    }
  }
}

TEST(GemmDense, NaNStaysInItsToken) {
  for (const int sm : Generations()) {
    CheckNaN(sm, kFamily, {DType::kI8, DType::kF32, 0}, DType::kI8, 513);
    CheckNaN(sm, kFamily, {DType::kE4M3, DType::kF32, 0}, DType::kE4M3, 516);
    CheckNaN(sm, kFamily, {DType::kBF16, DType::kNone, 0}, DType::kBF16, 517);
    CheckNaN(sm, kFamily, {DType::kF32, DType::kNone, 0}, DType::kF32, 518);
  }
}

TEST(GemmDense, TruncatedSumsOfFp8) {
  for (const int sm : Generations()) {
    CheckTruncated(sm, kFamily, {DType::kE4M3, DType::kF32, 0}, 514);
    CheckTruncated(sm, kFamily, {DType::kE5M2, DType::kF32, 128}, 515);
  }
}

// 131,136 products of -128 by -128 leave S32, where the sums of kWide are.
TEST(GemmDense, IntegerSumsDoNotOverflow) {
  Device& device = EmulatedDevice(80);
  const WeightFormat f{DType::kI8, DType::kF32, 0};
  const int64_t m = 33, n = 1, k = 131136;
  CanonicalStorage weights(f, n, k);
  std::fill(weights.codes.begin(), weights.codes.end(), uint8_t{0x80});
  const float one = 1;
  std::memcpy(weights.scales.data(), &one, 4);
  const int64_t stride = RoundUp(k, 128);
  std::vector<uint8_t> left(static_cast<size_t>(m * stride), 0x80);
  const StripMemory packed(device, PackAll(kFamily, f, n, k, weights.view()));
  const StripMemory values(device, left);
  const StripMemory scales(device, std::vector<float>(static_cast<size_t>(m), 1.0f));
  const StripMemory result(device, std::vector<float>(static_cast<size_t>(m)));
  const StripMemory partial(device, kFamily.scratch_bytes(device, f, n, k, m));
  Status status = kFamily.run(
      device, {f, n, k, packed.at()}, {DType::kI8, m, k, values.at(), stride, scales.at()},
      {DType::kF32, result.at(), n, 0, 0, 0, 0}, {partial.at(), partial.bytes()});
  std::vector<float> y(static_cast<size_t>(m));
  if (status.ok()) status = device.CopyOut(y.data(), result.at(), result.bytes());
  ASSERT_TRUE(status.ok()) << status.message();
  for (const float v : y) EXPECT_EQ(v, 16384.0f * 131136.0f);  // 2049 * 2^20
}

TEST(GemmDense, SameBitsEveryTime) {
  for (const int sm : Generations()) {
    ExpectSameBits(sm, kFamily, {DType::kBF16, DType::kNone, 0}, DType::kBF16, 511);
    ExpectSameBits(sm, kFamily, {DType::kF32, DType::kNone, 0}, DType::kF32, 512);
  }
}

TEST(GemmDense, RefusesWhatItHasNoKernelFor) {
  EXPECT_NE(kFamily.unsupported({DType::kF32, DType::kNone, 0}, 1, 1, DType::kBF16, 80), "");
  EXPECT_NE(kFamily.unsupported({DType::kE4M3, DType::kF32, 0}, 1, 1, DType::kI8, 80), "");
  EXPECT_NE(kFamily.unsupported({DType::kE3M2, DType::kF32, 0}, 1, 1, DType::kBF16, 80), "");
  ExpectRefusals(kFamily, {DType::kI8, DType::kF32, 0}, DType::kI8);
}

const std::vector<DType> kFloatingCodes = {DType::kI8, DType::kE4M3, DType::kE5M2, DType::kBF16,
                                           DType::kF16};
VerificationCases CasesA16() { return StripVerification(kFamily, kFloatingCodes, DType::kBF16); }
VerificationCases CasesA8F() { return StripVerification(kFamily, kFloatingCodes, DType::kE4M3); }
VerificationCases CasesA8I() { return StripVerification(kFamily, {DType::kI8}, DType::kI8); }
VerificationCases CasesF32() {
  VerificationCases cases = StripVerification(kFamily, {DType::kF32, DType::kI8}, DType::kF32);
  for (const DType code : {DType::kE4M3, DType::kE5M2, DType::kBF16, DType::kF16}) {
    AddStripCases(kFamily, StripCodeCases(code), &cases);
  }
  return cases;
}
// Single rows of every code type; sums of splits.
VerificationCases CasesRows() {
  return StripRowsVerification(
      kFamily, {DType::kI8, DType::kE4M3, DType::kE5M2, DType::kBF16, DType::kF16, DType::kF32});
}
VerificationCases CasesSplits() {
  VerificationCases cases;
  std::vector<StripCase> splits;
  for (const DType scale : {DType::kF32, DType::kBF16, DType::kF16, DType::kNone}) {
    for (int i = 0; i < 8; ++i) {
      StripCase c;
      c.format = {scale == DType::kNone ? DType::kBF16 : DType::kI8, scale, 0};
      c.activation = DType::kBF16;
      c.m = i == 0 ? 11 : 9;
      c.n = i == 0 ? 300 : 33 + i % 3;
      c.k = i % 2 == 0 ? 400 : 650;
      c.pair = i >= 4;
      c.bf16_result = i % 2 != 0;
      c.odd = i % 4 >= 2;
      c.bias = i % 5 != 1;
      c.residual = !c.pair && i != 3;
      splits.push_back(c);
    }
  }
  for (int i = 0; i < 5; ++i) {
    StripCase c;
    c.format = {DType::kI8, DType::kF32, 0};
    c.activation = i == 4 ? DType::kI8 : DType::kBF16;
    c.m = 9;
    c.n = i == 4 ? 41 : 35;
    c.k = 400;
    c.bias = true;
    c.pair = i >= 2;
    c.odd = i % 2 != 0;
    c.ends = c.bf16_result = i < 4;
    c.gates = i == 4;
    splits.push_back(c);
  }
  AddStripCases(kFamily, splits, &cases);
  return cases;
}
const VerificationRegistration kVerify[] = {
    VerificationRegistration(
        {"gemm_dense_a16", {"gemm_dense_a16"}, CasesA16, {80, 89, 90, 120}}),
    VerificationRegistration(
        {"gemm_dense_a8f", {"gemm_dense_a8f"}, CasesA8F, {80, 89, 90, 120}}),
    VerificationRegistration(
        {"gemm_dense_a8i", {"gemm_dense_a8i"}, CasesA8I, {80, 89, 90, 120}}),
    VerificationRegistration({"strip_f32", {"strip_f32"}, CasesF32, {80, 89, 90, 120}}),
    VerificationRegistration({"strip_rows", {"strip_rows"}, CasesRows, {80, 89, 90, 120}}),
    VerificationRegistration({"strip_splits", {"strip_rows"}, CasesSplits, {80, 89, 90, 120}}),
};

}  // namespace
}  // namespace nibble::cuda
