// SPDX-License-Identifier: Apache-2.0
//
// The six-bit kernels of every target, in the emulator, against the F64 reference of the CPU's
// half; tolerances are derived in common/strip_case.h.
#include "kernels-cuda/gemm_f6/gemm_f6.h"

#include "kernels-cuda/common/strip_cases.h"
#include "kernels-cuda/common/strip_verification.h"

namespace nibble::cuda {
namespace {

constexpr const GemmFamily& kFamily = kGemmF6;
constexpr DType kActivations[] = {DType::kBF16, DType::kE4M3, DType::kI8, DType::kF32};

std::vector<WeightFormat> Formats() {
  std::vector<WeightFormat> formats;
  for (const DType code : {DType::kE3M2, DType::kE2M3}) {
    for (const WeightFormat& f : ScaledFormats(code)) formats.push_back(f);
  }
  return formats;
}

TEST(GemmF6, PackingIsInvertible) { ExpectInvertiblePacking(kFamily, Formats(), 401); }

TEST(GemmF6, RowsDequantizeExactly) {
  for (const int sm : Generations()) ExpectExactRows(sm, kFamily, Formats(), 402);
}

TEST(GemmF6, EveryCodePassesTheTensorCores) {
  for (const int sm : Generations()) {
    for (const DType code : {DType::kE3M2, DType::kE2M3}) {
      for (const DType a : kActivations) ExpectEveryCode(sm, kFamily, code, a, 403);
    }
  }
}

TEST(GemmF6, RandomShapesOfEveryFormat) {
  for (const int sm : Generations()) {
    for (const DType a : kActivations) CheckRandomShapes(sm, kFamily, Formats(), a, 404);
  }
}

TEST(GemmF6, ShapesAroundTileEdges) {
  for (const int sm : Generations()) {
    for (const DType a : kActivations) {
      CheckTileEdges(sm, kFamily, {DType::kE3M2, DType::kF32, 0}, a, 405);
    }
    CheckTileEdges(sm, kFamily, {DType::kE2M3, DType::kF16, 64}, DType::kE4M3, 406);
  }
}

TEST(GemmF6, SplitsOfK) {
  for (const int sm : Generations()) {
    for (const DType a : kActivations) {
      CheckSplits(sm, kFamily, {DType::kE3M2, DType::kF32, 0}, a, 407);
      CheckSplits(sm, kFamily, {DType::kE2M3, DType::kBF16, 48}, a, 408);
    }
  }
}

TEST(GemmF6, NaNStaysInItsToken) {
  for (const int sm : Generations()) {
    for (const DType a : kActivations) {
      CheckNaN(sm, kFamily, {DType::kE3M2, DType::kF32, 0}, a, 410);
    }
  }
}

TEST(GemmF6, TruncatedSumsOfFp8) {
  for (const int sm : Generations()) {
    CheckTruncated(sm, kFamily, {DType::kE3M2, DType::kF32, 0}, 411);
    CheckTruncated(sm, kFamily, {DType::kE2M3, DType::kF32, 64}, 412);
  }
}

TEST(GemmF6, SameBitsEveryTime) {
  for (const int sm : Generations()) {
    ExpectSameBits(sm, kFamily, {DType::kE3M2, DType::kF32, 0}, DType::kBF16, 409);
  }
}

TEST(GemmF6, RefusesWhatItHasNoKernelFor) {
  EXPECT_EQ(kFamily.unsupported({DType::kE3M2, DType::kF32, 0}, 1, 1, DType::kBF16, 80), "");
  EXPECT_NE(kFamily.unsupported({DType::kI4, DType::kF32, 0}, 1, 1, DType::kBF16, 80), "");
  EXPECT_NE(kFamily.unsupported({DType::kE3M2, DType::kF32, 0}, 1, 1, DType::kF16, 80), "");
  EXPECT_NE(kFamily.unsupported({DType::kE3M2, DType::kF32, 0}, 1, 1, DType::kBF16, 75), "");
  ExpectRefusals(kFamily, {DType::kE3M2, DType::kF32, 0}, DType::kBF16);
}

const std::vector<DType> kCodes = {DType::kE3M2, DType::kE2M3};
VerificationCases CasesA16() { return StripVerification(kFamily, kCodes, DType::kBF16); }
VerificationCases CasesA8F() { return StripVerification(kFamily, kCodes, DType::kE4M3); }
VerificationCases CasesA8I() { return StripVerification(kFamily, kCodes, DType::kI8); }
VerificationCases CasesF32() {
  VerificationCases cases;
  for (const DType code : kCodes) AddStripCases(kFamily, StripCodeCases(code), &cases);
  return cases;
}
VerificationCases CasesRows() { return StripRowsVerification(kFamily, kCodes); }
const VerificationRegistration kVerify[] = {
    VerificationRegistration({"gemm_f6_f32", {"strip_f32"}, CasesF32, {80, 89, 90, 120}}),
    VerificationRegistration({"gemm_f6_rows", {"strip_rows"}, CasesRows, {80, 89, 90, 120}}),
    VerificationRegistration({"gemm_f6_a16", {"gemm_f6_a16"}, CasesA16, {80, 89, 90, 120}}),
    VerificationRegistration({"gemm_f6_a8f", {"gemm_f6_a8f"}, CasesA8F, {80, 89, 90, 120}}),
    VerificationRegistration({"gemm_f6_a8i", {"gemm_f6_a8i"}, CasesA8I, {80, 89, 90, 120}}),
};

}  // namespace
}  // namespace nibble::cuda
