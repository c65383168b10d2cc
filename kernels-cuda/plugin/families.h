// SPDX-License-Identifier: Apache-2.0
//
// The GEMM families by the code type of the weights.
#pragma once

#include <string>

#include "kernels-cuda/common/weights.h"

namespace nibble::cuda {

// The functions that common/weights.h describes.
struct GemmFamily {
  std::string (*unsupported)(const WeightFormat&, int64_t rows, int64_t cols, DType activation,
                             int sm);
  int64_t (*packed_bytes)(const WeightFormat&, int64_t rows, int64_t cols);
  int64_t (*row_blocks)(int64_t rows);
  void (*pack)(const WeightFormat&, int64_t rows, int64_t cols, const CanonicalWeights&,
               int64_t block, uint8_t* packed);
  void (*unpack)(const WeightFormat&, int64_t rows, int64_t cols, const uint8_t* packed,
                 int64_t block, const CanonicalWeights&);
  int64_t (*scratch_bytes)(const Device&, const WeightFormat&, int64_t rows, int64_t cols,
                           int64_t m);
  Status (*run)(Device&, const DeviceWeights&, const GemmLeft&, const GemmResult&,
                const Scratch&);
  Status (*run_swiglu)(Device&, const DeviceWeights& gate, const DeviceWeights& up,
                       const GemmLeft&, const GemmResult&, const Scratch&);
  Status (*dequantize_rows)(Device&, const DeviceWeights&, DevicePtr ids, int64_t first,
                            int64_t count, DevicePtr output, int64_t output_stride);
};

// code: any code type of nb_weight_format.
const GemmFamily& FamilyOf(DType code);

}  // namespace nibble::cuda
