// SPDX-License-Identifier: Apache-2.0
//
// Weight formats, the canonical form as tensors, and the matrix handle.
#pragma once

#include "kernels-cpu/gemm/packed_matrix.h"
#include "kernels-cpu/numerics/types.h"
#include "native/src/checks.h"

struct nb_matrix {
  nb_weight_format format;      // as the caller gave it
  nibble::PackedMatrix packed;  // its format has group_size 0 where one group covers the row
};

namespace nibble::abi {

// Checks format, and that an [rows, cols] matrix (both from 1 to 2^31 - 1) of it has sizes that
// fit in 62 bits, canonical and packed. *out is the kernels' form: a group size of cols or more
// becomes 0, the whole row, which is the same matrix.
nb_status CheckFormat(const char* function, const nb_weight_format* format, int64_t rows,
                      int64_t cols, WeightFormat* out);

// The canonical parts of a matrix; those that its format lacks are empty views.
struct Canonical {
  View codes, codes_high, scales, factors;

  CanonicalWeights weights() const {
    return {codes.data, codes_high.data, scales.data, factors.f32()};
  }
};

// Checks the four tensors against the format. A part that the format lacks must be NULL.
// outputs: they will be written, and must not overlap each other.
nb_status CheckCanonicalTensors(const char* function, const WeightFormat& format, int64_t rows,
                                int64_t cols, const nb_tensor* codes,
                                const nb_tensor* codes_high, const nb_tensor* scales,
                                const nb_tensor* factors, bool outputs, Canonical* out);

inline nb_status CheckMatrix(const Arg& arg, const nb_matrix* matrix) {
  if (matrix != nullptr) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, arg, "NULL but a matrix was expected");
}

}  // namespace nibble::abi
