// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/gemm_f6/gemm_f6.h"

#include "kernels-cuda/common/strip_family.h"

namespace nibble::cuda {
namespace {

#define NIBBLE_F6_KERNELS(code, left, module, name, wide) \
  {code, left, module, name "_decode", name "_decode_pair", name "_tiles", wide, \
   left == DType::kE4M3 ? StripProduct::kFP8 : StripProduct::k16Bits}

constexpr StripKernels kKernels[] = {
    NIBBLE_F6_KERNELS(DType::kE3M2, DType::kBF16, "gemm_f6_a16", "gemm_a16_w6e3m2",
                      "gemm_a16_w6e3m2_wide"),
    NIBBLE_F6_KERNELS(DType::kE2M3, DType::kBF16, "gemm_f6_a16", "gemm_a16_w6e2m3",
                      "gemm_a16_w6e2m3_wide"),
    NIBBLE_F6_KERNELS(DType::kE3M2, DType::kE4M3, "gemm_f6_a8f", "gemm_a8f_w6e3m2", nullptr),
    NIBBLE_F6_KERNELS(DType::kE2M3, DType::kE4M3, "gemm_f6_a8f", "gemm_a8f_w6e2m3", nullptr),
    NIBBLE_F6_KERNELS(DType::kE3M2, DType::kI8, "gemm_f6_a8i", "gemm_a8i_w6e3m2", nullptr),
    NIBBLE_F6_KERNELS(DType::kE2M3, DType::kI8, "gemm_f6_a8i", "gemm_a8i_w6e2m3", nullptr),
    {DType::kE3M2, DType::kF32, nullptr, nullptr, nullptr, nullptr, nullptr, StripProduct::k16Bits},
    {DType::kE2M3, DType::kF32, nullptr, nullptr, nullptr, nullptr, nullptr, StripProduct::k16Bits},
};
#undef NIBBLE_F6_KERNELS

std::string Unsupported(const WeightFormat&, int64_t, int64_t, DType, int);

using Family = StripFamily<kKernels, Unsupported>;

std::string Unsupported(const WeightFormat& format, int64_t, int64_t, DType activation, int sm) {
  if (!IsSixBit(format.code)) return "six-bit kernels take E3M2 and E2M3 codes only";
  if (sm < 80) return "six-bit kernels need compute capability 8.0 or newer";
  if (Family::Find(format.code, activation) == nullptr) {
    return "six-bit weights have kernels for F32, BF16, E4M3 and I8 activations only";
  }
  return "";
}

}  // namespace

const GemmFamily kGemmF6 = Family::kFunctions;

}  // namespace nibble::cuda
