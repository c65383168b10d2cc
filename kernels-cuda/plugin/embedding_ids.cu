// SPDX-License-Identifier: Apache-2.0
//
// Ids that nobody has looked at, made safe for an embedding lookup: a chosen token may be
// negative (argmax of a row with a NaN), and a lookup that leaves the table would end the
// process's use of the device.
//
//   ids        I32 [count]            rows: of the table, at least 1
//   clamped    I32 [count]            what the lookup uses
//   output     F32 [count][cols], rows `stride` elements apart: rows of bad ids become NaN
//
// Any sizes; counts up to 2^31 - 1 (grid-stride loops). Nothing is rounded.
#include <cstdint>

namespace {

constexpr int kNaN = 0x7FC00000;

__device__ bool Good(int32_t id, int32_t rows) { return id >= 0 && id < rows; }

}  // namespace

extern "C" __global__ void clamp_ids(const int32_t* __restrict__ ids, int32_t* __restrict__ clamped,
                                     int64_t count, int32_t rows) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    clamped[i] = Good(ids[i], rows) ? ids[i] : 0;
  }
}

// One block a row at a time.
extern "C" __global__ void poison_rows(const int32_t* __restrict__ ids, int64_t count,
                                       int32_t rows, float* __restrict__ output, int64_t stride,
                                       int64_t cols) {
  for (int64_t r = blockIdx.x; r < count; r += gridDim.x) {
    if (Good(ids[r], rows)) continue;
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
      output[r * stride + c] = __int_as_float(kNaN);
    }
  }
}
