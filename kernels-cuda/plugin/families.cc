// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/plugin/families.h"

#include "kernels-cuda/gemm_dense/gemm_dense.h"
#include "kernels-cuda/gemm_f6/gemm_f6.h"
#include "kernels-cuda/gemm_i4f8/gemm_i4f8.h"

namespace nibble::cuda {

const GemmFamily& FamilyOf(DType code) {
  static const GemmFamily i4f8 = {
      gemm_i4f8::Unsupported,  gemm_i4f8::PackedBytes,    gemm_i4f8::RowBlocks,
      gemm_i4f8::Pack,         gemm_i4f8::Unpack,         gemm_i4f8::ScratchBytes,
      gemm_i4f8::Run,          gemm_i4f8::RunSwiGlu,      gemm_i4f8::DequantizeRows};
  if (code == DType::kI4) return i4f8;
  return IsSixBit(code) ? kGemmF6 : kGemmDense;
}

}  // namespace nibble::cuda
