// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels-cuda/plugin/context.h"
#include "kernels-cuda/plugin/families.h"

// Packed weights in the layout of their family.
struct nibble::cuda::BackendMatrix {
  const GemmFamily* family;
  WeightFormat format;
  int64_t rows, cols;
  SharedMemory memory;

  DeviceWeights weights() const { return {format, rows, cols, memory.address()}; }
};
