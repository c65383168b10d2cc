// SPDX-License-Identifier: Apache-2.0
//
// What the forward pass needs beside I4 and six-bit weights: I8, E4M3, E5M2, BF16, F16 and F32
// weights. What each function does, and its operands, stands in common/weights.h; the packed
// layout in common/strip_layout.h.
//
// Activations: I8 (A8I) with I8 weights; E4M3 (A8F) and BF16 (A16) with all but F32 weights; F32
// with all, on CUDA cores. Scales: F32, F16, BF16; one a row or one for any multiple of 16
// columns. sm_80 and up; any M, N, K. Host functions keep no state: a Device serves one thread at
// a time, packing any number.
#pragma once

#include <string>

#include "kernels-cuda/common/weights.h"

namespace nibble::cuda::gemm_dense {

std::string Unsupported(const WeightFormat& format, int64_t rows, int64_t cols, DType activation,
                        int sm);
int64_t PackedBytes(const WeightFormat& format, int64_t rows, int64_t cols);
int64_t RowBlocks(int64_t rows);
void Pack(const WeightFormat& format, int64_t rows, int64_t cols, const CanonicalWeights& weights,
          int64_t block, uint8_t* packed);
void Unpack(const WeightFormat& format, int64_t rows, int64_t cols, const uint8_t* packed,
            int64_t block, const CanonicalWeights& weights);
int64_t ScratchBytes(const Device& device, const WeightFormat& format, int64_t rows, int64_t cols,
                     int64_t m);
Status Run(Device& device, const DeviceWeights& weights, const GemmLeft& left,
           const GemmResult& result, const Scratch& scratch);
Status RunSwiGlu(Device& device, const DeviceWeights& gate, const DeviceWeights& up,
                 const GemmLeft& left, const GemmResult& result, const Scratch& scratch);
Status DequantizeRows(Device& device, const DeviceWeights& weights, DevicePtr ids, int64_t first,
                      int64_t count, DevicePtr output, int64_t output_stride);

}  // namespace nibble::cuda::gemm_dense
