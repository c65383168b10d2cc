// SPDX-License-Identifier: Apache-2.0
//
// How fast the tensor cores can be kept busy from registers: what the products are measured
// against. Each warp repeats mma.sync on operands that stay in registers, in eight independent
// accumulators, which is more than any generation's latency needs. On Hopper this is the rate of
// mma.sync, which wgmma exceeds.
#include "kernels-cuda/common/ptx.cuh"

using namespace nibble::cuda;

namespace {

constexpr int kAccumulators = 8;

// What F32 products are measured against: one fma a lane, so that c[1..3] stay 0.
__device__ __forceinline__ void FmaF32(float (&c)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2]) {
  c[0] = fmaf(__uint_as_float(a[0]), __uint_as_float(b[0]), c[0]);
}

}  // namespace

// steps * kAccumulators instructions a warp; to: one word a thread, so that nothing is left out.
#define NIBBLE_MATRIX_RATE(name, function, Type)                                            \
  extern "C" __global__ void __launch_bounds__(256) name(int steps, Type* to) {             \
    const uint32_t seed = threadIdx.x & 1;                                                  \
    const uint32_t a[4] = {seed, seed, seed, seed}, b[2] = {seed, seed};                    \
    Type c[kAccumulators][4] = {};                                                          \
    for (int s = 0; s < steps; ++s) {                                                       \
      _Pragma("unroll") for (int i = 0; i < kAccumulators; ++i) function(c[i], a, b);       \
    }                                                                                       \
    Type sum = 0;                                                                           \
    for (int i = 0; i < kAccumulators; ++i) sum += c[i][0] + c[i][1] + c[i][2] + c[i][3];   \
    to[blockIdx.x * blockDim.x + threadIdx.x] = sum;                                        \
  }

NIBBLE_MATRIX_RATE(rate_f32, FmaF32, float)
NIBBLE_MATRIX_RATE(rate_bf16, MmaBF16, float)
NIBBLE_MATRIX_RATE(rate_i8, MmaI8, int32_t)
#if NIBBLE_FP8_MMA
NIBBLE_MATRIX_RATE(rate_e4m3, MmaE4M3, float)
#endif
