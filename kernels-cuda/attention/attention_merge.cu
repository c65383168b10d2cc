// SPDX-License-Identifier: Apache-2.0
//
// Merges the states of a row's ranges of keys, in their order:
//
//   m = max m_i        y = sum 2^(m_i - m) acc_i / sum 2^(m_i - m) l_i
//
// One warp a row: (sequence, row of the sequence, kv head) as kv_geometry.h counts them. Lanes
// take dimensions l, l + 32, ...: whole runs of 128 bytes of each state.
//
// Precision: every factor is at most 1 and within 2^-22; each sum has one rounding a range. A
// range without a visible key has m = -infinity: factor 0. Shapes: any; at most 64 ranges.
#include "kernels-cuda/attention/softmax.cuh"

namespace nibble::cuda {
namespace {

constexpr int kWarps = kMergeThreads / kWarpLanes;
constexpr int kMaxParts = 256 / kWarpLanes;  // of a head, a lane each

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
  float max = -kInfinity;
  for (int i = 0; i < ranges; ++i) max = fmaxf(max, state[2 * i]);
  const float shift = Shift(max);
  float sum = 0, total[kMaxParts] = {};
  for (int i = 0; i < ranges; ++i) {
    const float weight = Exp2Approximate(state[2 * i] - shift);
    sum = __fmaf_rn(weight, state[2 * i + 1], sum);
    const float* from = acc + int64_t{i} * p.kv.head_dim;
#pragma unroll
    for (int j = 0; j < kMaxParts; ++j) {
      const int d = kWarpLanes * j + lane;
      if (d < p.kv.head_dim) total[j] = __fmaf_rn(weight, from[d], total[j]);
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
