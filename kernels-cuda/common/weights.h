// SPDX-License-Identifier: Apache-2.0
//
// A weight matrix on the device, and what every GEMM family offers for it.
#pragma once

#include <string>

#include "kernels-cuda/common/gemm_call.h"

namespace nibble::cuda {

struct DeviceWeights {
  WeightFormat format;  // group_size 0 where one group covers the row
  int64_t rows, cols;   // N, K
  DevicePtr memory;     // packed_bytes bytes in the family's layout
};

// The functions of a GEMM family: gemm_i4f8, gemm_f6 and gemm_dense. Each has its own packed
// layout, one block of bytes whose size depends on format, rows and columns alone. They keep no
// state: a Device serves one thread at a time, packing any number.
struct GemmFamily {
  // "" if the family has a kernel for this on that generation, else a reason that ends a sentence,
  // and lists what there is.
  std::string (*unsupported)(const WeightFormat&, int64_t rows, int64_t cols, DType activation,
                             int sm);
  int64_t (*packed_bytes)(const WeightFormat&, int64_t rows, int64_t cols);
  // pack packs canonical rows on the host. Work comes in row_blocks(rows) independent blocks, so
  // that the caller may give them to threads; blocks write disjoint bytes of packed, and all blocks
  // together write every byte of it.
  int64_t (*row_blocks)(int64_t rows);
  void (*pack)(const WeightFormat&, int64_t rows, int64_t cols, const CanonicalWeights&,
               int64_t block, uint8_t* packed);
  // The exact inverse.
  void (*unpack)(const WeightFormat&, int64_t rows, int64_t cols, const uint8_t* packed,
                 int64_t block, const CanonicalWeights&);
  // Bytes of scratch for up to m rows of activations.
  int64_t (*scratch_bytes)(const Device&, const WeightFormat&, int64_t rows, int64_t cols,
                           int64_t m);
  // result = left * weights^T + ..., at any m >= 1.
  Status (*run)(Device&, const DeviceWeights&, const GemmLeft&, const GemmResult&,
                const Scratch&);
  // The SwiGLU pair: gate and up of one shape and format.
  Status (*run_swiglu)(Device&, const DeviceWeights& gate, const DeviceWeights& up,
                       const GemmLeft&, const GemmResult&, const Scratch&);
  // output[i] = the weights of row ids[i] (I32, on the device; 0 for rows first, first + 1, ...),
  // rounded once to F32.
  Status (*dequantize_rows)(Device&, const DeviceWeights&, DevicePtr ids, int64_t first,
                            int64_t count, DevicePtr output, int64_t output_stride);
};

}  // namespace nibble::cuda
