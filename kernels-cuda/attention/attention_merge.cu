// SPDX-License-Identifier: Apache-2.0
//
// Merges the states of a row's ranges of keys, in their order:
//
//   m = max m_i        y = sum 2^(m_i - m) acc_i / sum 2^(m_i - m) l_i
//
// One warp a row: (sequence, row of the sequence, kv head) as kv_geometry.h counts them. Lane l
// weighs ranges l and l + 32; then lanes take dimensions l, l + 32, ...: whole runs of 128 bytes of
// each state, of four ranges at a time.
//
// Precision: every factor is at most 1 and within 2^-22; sums have one rounding a range. A
// range without a visible key has m = -infinity: factor 0. Shapes: any; at most 64 ranges.
#include "kernels-cuda/attention/softmax.cuh"

namespace nibble::cuda {
namespace {

constexpr int kWarps = kMergeThreads / kWarpLanes;
constexpr int kMaxParts = 256 / kWarpLanes;  // of a head, a lane each
constexpr int kAtOnce = 4;                   // ranges
static_assert(kMaxRanges == 2 * kWarpLanes);

__device__ void MergeRow(const AttentionParameters& p) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  int index = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / kWarpLanes);
  const int kv_head = index % p.kv.kv_heads;
  index /= p.kv.kv_heads;
  const int row = index % p.state_rows, sequence = index / p.state_rows;
  if (sequence >= p.count) return;
  const DeviceSequence s = reinterpret_cast<const DeviceSequence*>(p.sequences)[sequence];
  const int tokens = static_cast<int>(s.rows);
  if (!HasFewRows(tokens, p.heads) || row >= tokens * p.heads) return;
  const int ranges = static_cast<int>(Ranges(static_cast<int>(s.start) + tokens));
  if (ranges == 1) return;  // written at once
  const int64_t slot = StateSlot(p, sequence, row, kv_head, 0);
  const float* state = reinterpret_cast<const float*>(p.states) + 2 * slot;
  const float* acc =
      reinterpret_cast<const float*>(p.states) + 2 * p.state_slots + slot * p.kv.head_dim;
  float weight[2], sum = 0, total[kMaxParts] = {};
  float2 own[2];  // m and l
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = lane + kWarpLanes * half;
    own[half] = make_float2(-kInfinity, 0);
    if (i < ranges) own[half] = *reinterpret_cast<const float2*>(state + 2 * i);
  }
  const float shift = Shift(WarpMax(fmaxf(own[0].x, own[1].x)));
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    weight[half] = Exp2Approximate(own[half].x - shift);
    sum = __fmaf_rn(weight[half], own[half].y, sum);
  }
  sum = WarpSum(sum);
#pragma unroll 1
  for (int first = 0; first < ranges; first += kAtOnce) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float w = __shfl_sync(kAllLanes, first < kWarpLanes ? weight[0] : weight[1],
                                  (first + i) % kWarpLanes);
      if (i > 0 && first + i >= ranges) continue;
#pragma unroll
      for (int j = 0; j < kMaxParts; ++j) {
        const int d = kWarpLanes * j + lane;
        if (d < p.kv.head_dim) total[j] = __fmaf_rn(w, acc[d], total[j]);
      }
      acc += p.kv.head_dim;
    }
  }
  float* y = reinterpret_cast<float*>(p.y) + (s.first_row + row / p.heads) * p.y_stride +
             (kv_head * p.heads + row % p.heads) * p.kv.head_dim;
#pragma unroll
  for (int j = 0; j < kMaxParts; ++j) {
    const int d = kWarpLanes * j + lane;
    if (d < p.kv.head_dim) y[d] = __fdiv_rn(total[j], sum);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kWarps * kWarpLanes)
    attention_merge(const AttentionParameters p) {
  MergeRow(p);
}

}  // namespace nibble::cuda
