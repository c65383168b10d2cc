// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/gemm_dense/gemm_dense.h"

#include "kernels-cuda/common/strip_family.h"

namespace nibble::cuda {
namespace {

#define NIBBLE_DENSE_KERNELS(code, left, module, name, wide, product)            \
  {code, left, module, name "_decode", name "_decode_pair", name "_tiles", wide, \
   StripProduct::product}
#define NIBBLE_DENSE_F32(code) \
  {code, DType::kF32, nullptr, nullptr, nullptr, nullptr, nullptr, StripProduct::k16Bits}

constexpr char kA8i[] = "gemm_dense_a8i", kA16[] = "gemm_dense_a16", kA8f[] = "gemm_dense_a8f";

constexpr StripKernels kKernels[] = {
    NIBBLE_DENSE_KERNELS(DType::kI8, DType::kI8, kA8i, "gemm_a8i_w8i", "gemm_a8i_w8i_wide", kI8),
    NIBBLE_DENSE_KERNELS(DType::kI8, DType::kBF16, kA16, "gemm_a16_w8i", nullptr, k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kE4M3, DType::kBF16, kA16, "gemm_a16_w8e4m3", nullptr, k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kE5M2, DType::kBF16, kA16, "gemm_a16_w8e5m2", nullptr, k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kBF16, DType::kBF16, kA16, "gemm_a16_bf16", "gemm_a16_bf16_wide",
                         k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kF16, DType::kBF16, kA16, "gemm_a16_f16", nullptr, k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kI8, DType::kE4M3, kA8f, "gemm_a8f_w8i", nullptr, k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kE4M3, DType::kE4M3, kA8f, "gemm_a8f_w8e4m3", nullptr, kFP8),
    NIBBLE_DENSE_KERNELS(DType::kE5M2, DType::kE4M3, kA8f, "gemm_a8f_w8e5m2", nullptr, kFP8),
    NIBBLE_DENSE_KERNELS(DType::kBF16, DType::kE4M3, kA8f, "gemm_a8f_bf16", nullptr, k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kF16, DType::kE4M3, kA8f, "gemm_a8f_f16", nullptr, k16Bits),
    NIBBLE_DENSE_F32(DType::kF32),
    NIBBLE_DENSE_F32(DType::kBF16),
    NIBBLE_DENSE_F32(DType::kF16),
    NIBBLE_DENSE_F32(DType::kI8),
    NIBBLE_DENSE_F32(DType::kE4M3),
    NIBBLE_DENSE_F32(DType::kE5M2),
};
#undef NIBBLE_DENSE_KERNELS
#undef NIBBLE_DENSE_F32

std::string Unsupported(const WeightFormat&, int64_t, int64_t, DType, int);

using Family = StripFamily<kKernels, Unsupported>;

std::string Unsupported(const WeightFormat& format, int64_t, int64_t, DType activation, int sm) {
  if (format.code == DType::kI4 || IsSixBit(format.code)) {
    return "dense kernels take I8, E4M3, E5M2, BF16, F16 and F32 weights only";
  }
  if (sm < 80) return "dense kernels need compute capability 8.0 or newer";
  if (Family::Find(format.code, activation) != nullptr) return "";
  if (format.code == DType::kF32) return "F32 weights have kernels for F32 activations only";
  if (format.code == DType::kI8) {
    return "I8 weights have kernels for F32, BF16, E4M3 and I8 activations only";
  }
  return "FP8, BF16 and F16 weights have kernels for F32, BF16 and E4M3 activations only";
}

}  // namespace

const GemmFamily kGemmDense = Family::kFunctions;

}  // namespace nibble::cuda
