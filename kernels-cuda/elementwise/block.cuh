// SPDX-License-Identifier: Apache-2.0
//
// Sums and maxima over the threads of a block, in an order that depends on its size alone.
#pragma once

#include "kernels-cuda/common/ptx.cuh"

namespace nibble::cuda::elementwise {

// reduce(x) is a reduction over a warp that gives each lane the result; neutral changes nothing.
// The same result to every thread: warps by halves, then the warps' results by halves. partial:
// kWarpLanes elements of shared memory, which other threads may still read when this returns: a
// barrier must come before they are written again. blockDim.x: a multiple of 32 up to 1024.
template <class T, class WarpReduce>
__device__ __forceinline__ T BlockReduce(T x, T neutral, T* partial, const WarpReduce& reduce) {
  const int lane = threadIdx.x % kWarpLanes, warp = threadIdx.x / kWarpLanes;
  x = reduce(x);
  if (lane == 0) partial[warp] = x;
  __syncthreads();
  const int warps = blockDim.x / kWarpLanes;
  return reduce(lane < warps ? partial[lane] : neutral);
}

// The sum of x over the lanes up to and with this one.
__device__ __forceinline__ uint64_t WarpSumUpTo(uint64_t x) {
  const int lane = threadIdx.x % kWarpLanes;
  unsigned long long sum = x;
#pragma unroll
  for (int offset = 1; offset < kWarpLanes; offset *= 2) {
    const unsigned long long below = __shfl_up_sync(kAllLanes, sum, offset);
    if (lane >= offset) sum += below;
  }
  return sum;
}

// The sum of x over all threads before this one, of kThreads; *total over all of them. partial as
// above.
template <int kThreads>
__device__ __forceinline__ uint64_t BlockSumBefore(uint64_t x, uint64_t* partial,
                                                   uint64_t* total) {
  constexpr int kWarps = kThreads / kWarpLanes;
  static_assert(kWarps == kWarpLanes, "one sum for each lane");
  const int lane = threadIdx.x % kWarpLanes, warp = threadIdx.x / kWarpLanes;
  const uint64_t upto = WarpSumUpTo(x);
  if (lane == kWarpLanes - 1) partial[warp] = upto;
  __syncthreads();
  // Every warp adds up the warps' sums for itself.
  const uint64_t sums = WarpSumUpTo(partial[lane]);
  *total = __shfl_sync(kAllLanes, static_cast<unsigned long long>(sums), kWarpLanes - 1);
  const uint64_t own = __shfl_sync(kAllLanes, static_cast<unsigned long long>(sums), warp);
  return own - __shfl_sync(kAllLanes, static_cast<unsigned long long>(upto), kWarpLanes - 1) +
         upto - x;
}

}  // namespace nibble::cuda::elementwise
