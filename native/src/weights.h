// SPDX-License-Identifier: Apache-2.0
//
// Weight formats, the canonical form as tensors, and the matrix handle.
#pragma once

#include "kernels-cpu/gemm/packed_matrix.h"
#include "kernels-cpu/numerics/types.h"
#include "native/src/context.h"

struct nb_matrix {
  nb_weight_format format;         // as the caller gave it
  nibble::WeightFormat kernels;    // with group_size 0 where one group covers the row
  int64_t rows = 0, cols = 0;      // N, K
  int device = nibble::abi::kCpu;  // whose kernels it is packed for
  nibble::PackedMatrix packed;     // the CPU's
  const nibble::cuda::Backend* backend = nullptr;
  nibble::cuda::BackendMatrix* cuda = nullptr;  // a CUDA device's

  nb_matrix() = default;
  nb_matrix(const nb_matrix&) = delete;
  nb_matrix& operator=(const nb_matrix&) = delete;
  ~nb_matrix() {
    if (cuda != nullptr) backend->matrix_destroy(cuda);
  }
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

// The same, and that it is of the context's device.
inline nb_status CheckMatrix(const Arg& arg, const nb_matrix* matrix, const nb_context* context) {
  NIBBLE_RETURN_IF_FAILED(CheckMatrix(arg, matrix));
  return CheckSameDevice(arg, matrix->device, context);
}

}  // namespace nibble::abi
