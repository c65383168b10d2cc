// SPDX-License-Identifier: Apache-2.0
//
// The GEMM families by the code type of the weights.
#pragma once

#include "kernels-cuda/common/weights.h"

namespace nibble::cuda {

// code: any code type of nb_weight_format.
const GemmFamily& FamilyOf(DType code);

}  // namespace nibble::cuda
