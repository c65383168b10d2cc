// SPDX-License-Identifier: Apache-2.0
//
// Products with I4 weights on the device: the functions of kernels-cuda/common/weights.h for this
// family. The packed layout is drawn in layout.h, the kernels in few_rows.cuh and tiled.cuh.
//
//   activations   sm_80, sm_90             sm_89, sm_120
//   E4M3 (A8F)    F16, m16n8k16            E4M3, m16n8k32
//   I8 (A8I)      I8, m16n8k32             the same
//   BF16 (A16)    BF16, m16n8k16           the same
//
// and on sm_90, for E4M3, more than 64 tokens and groups of a multiple of 32 columns or the whole
// row: E4M3 by wgmma, m64n64k32 (tiled_wgmma.cuh), once the device has passed a trial of it
// (warpgroup_trial.cc).
//
// What is rounded, and where. Codes and activations enter the tensor cores exactly, in every
// path; nothing rounds q * scale. A unit of 64 columns (32 or 16 where groups are no multiple of
// 64) is summed there: exactly for I8, in F32 otherwise, where FP8 tensor cores keep fewer bits
// of terms far below the largest one. Its sum times the group's scale is then added to an F32
// sum by one fma, so that no more than 64 products ever meet in a tensor core's accumulator,
// however long the row. Factor, token scale, bias and residual follow in F32, each rounded once.
// A group's scale being a power of two changes nothing: the fma does both at once, where scales
// folded into E4M3 codes would save its multiplication only, and cost the short sums.
//
// Limits: N and K from 1 to 2^31 - 1, group sizes that are multiples of 16 or the whole row.
#pragma once

#include <string>

#include "kernels-cuda/common/weights.h"

namespace nibble::cuda::gemm_i4f8 {

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

}  // namespace nibble::cuda::gemm_i4f8
