// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/plugin/families.h"

#include "kernels-cuda/gemm_dense/gemm_dense.h"
#include "kernels-cuda/gemm_f6/gemm_f6.h"
#include "kernels-cuda/gemm_i4f8/gemm_i4f8.h"

namespace nibble::cuda {

#define NIBBLE_FAMILY(name)                                                              \
  {name::Unsupported, name::PackedBytes, name::RowBlocks, name::Pack, name::Unpack,      \
   name::ScratchBytes, name::Run, name::RunSwiGlu, name::DequantizeRows}

const GemmFamily& FamilyOf(DType code) {
  static const GemmFamily i4f8 = NIBBLE_FAMILY(gemm_i4f8);
  static const GemmFamily f6 = NIBBLE_FAMILY(gemm_f6);
  static const GemmFamily dense = NIBBLE_FAMILY(gemm_dense);
  if (code == DType::kI4) return i4f8;
  return IsSixBit(code) ? f6 : dense;
}

}  // namespace nibble::cuda
