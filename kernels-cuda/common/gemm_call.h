// SPDX-License-Identifier: Apache-2.0
//
// The operands of one product on the device, as every GEMM family takes them.
#pragma once

#include "kernels-cpu/numerics/types.h"
#include "kernels-cuda/common/device.h"

namespace nibble::cuda {

// The left operand [M rows][K columns].
//   E4M3, I8   one byte a value, with scales
//   BF16       two bytes a value, as a rule without
//   F32        four bytes a value, without; as the caller gave it: any stride, no padding
// Bytes and BF16 come from elementwise/ (quantize kernels): rows lie on boundaries of 128 bytes
// and hold zeros from K up to the next multiple of 128 columns, so that kernels load whole
// 16-byte words of them without a mask.
struct GemmLeft {
  DType type;
  int64_t rows, cols;
  DevicePtr values;
  int64_t stride;    // elements from row to row
  DevicePtr scales;  // F32 [M] that multiply the rows, or 0: 1 for each
};

// The result [M][N] = left * weights^T + bias + residual, or of a pair of matrices
// silu(left * gate^T + gate_bias) * (left * up^T + up_bias).
struct GemmResult {
  DType type;  // F32 or BF16 (rounded to nearest even)
  DevicePtr values;
  int64_t stride;       // elements
  DevicePtr bias;       // F32 [N], or 0; of the gate for a pair
  DevicePtr up_bias;    // F32 [N], or 0; for a pair only
  DevicePtr residual;   // F32 [M][N], or 0; may be values' own memory; none for a pair
  int64_t residual_stride;
};

// Scratch for partial sums where K is split over blocks; the family says how much it wants.
struct Scratch {
  DevicePtr memory;
  int64_t bytes;
};

}  // namespace nibble::cuda
