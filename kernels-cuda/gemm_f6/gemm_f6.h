// SPDX-License-Identifier: Apache-2.0
//
// Six-bit weights (E3M2, E2M3; FP6-LLM, arXiv 2401.14112, ZeroQuant(4+2), arXiv 2312.08583) on the
// tensor cores. What each function does, and its operands, stands in common/weights.h; the packed
// layout in common/strip_layout.h.
//
// Activations: BF16 (A16), E4M3 (A8F), I8 (A8I), and F32 on CUDA cores. Scales: F32, F16, BF16; one
// a row or one for any multiple of 16 columns. sm_80 and up; any M, N, K. Host functions keep no
// state: a Device serves one thread at a time, packing any number.
#pragma once

#include <string>

#include "kernels-cuda/common/weights.h"

namespace nibble::cuda::gemm_f6 {

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

}  // namespace nibble::cuda::gemm_f6
