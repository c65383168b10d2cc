// SPDX-License-Identifier: Apache-2.0
//
// One sequence of a batch, as the kernels of attention/ read it from device memory.
#pragma once

#include <cstdint>

namespace nibble::cuda {

// rows consecutive tokens at positions start, start + 1, ...; they stand at rows first_row,
// first_row + 1, ... of q, k, v, angles and output. The sequences of a batch stand in the
// order of their rows: first_row is the sum of all rows before. Plain data: what a caller
// uploads, and may overwrite between replays of a captured graph.
struct DeviceSequence {
  uint64_t cache;     // device address of the cache's memory (attention.h)
  int64_t capacity;   // tokens it was made for
  int64_t start;      // start + rows <= capacity
  int64_t rows;       // may be 0
  int64_t first_row;
};
static_assert(sizeof(DeviceSequence) == 40, "the same on host and device");

}  // namespace nibble::cuda
