// SPDX-License-Identifier: Apache-2.0
//
// Attention over a cache of F32, all of it in F32 on CUDA cores: any number of rows.
//
//   block of threads   a tile of 16 rows against a range of keys (few rows) or all of them
//   row of the tile    8 neighbouring lanes, member = lane % 8; a warp has 4 rows
//   16 keys at a time  | keys [16][kStride] | values [16][kStride] |, two stages, by cp.async
//   scores             member m: keys m and m + 8, a whole dot product each
//   result             member m: dimensions 4 m + 32 i .. + 3, i < 8
//
// kStride is an odd number of 16-byte words, so that the 8 keys that a warp's members read at
// once, 16 bytes each, lie in different banks; its 4 rows read the same addresses. Values are
// read 128 bytes at a time. Queries stay in shared memory: a warp reads 4 addresses at once.
//
// Precision: products and sums in F32 with one rounding each (fused), about head_dim + keys of
// them on a path; a weight is within 2^-21 of its value (softmax.cuh). Keys that a row must not
// see, and their values, are not looked at.
//
// Shapes: head_dim even, 16..256, zeros up to a multiple of 4; any number of heads and keys.
#include "kernels-cuda/attention/row_tile.cuh"

namespace nibble::cuda {
namespace {

constexpr int kMaxDim = F32Shape::kMaxDim;
constexpr int kStride = F32Shape::kStride;
constexpr int kTileBytes = F32Shape::kTileBytes;
constexpr int kStageBytes = F32Shape::kStageBytes;
constexpr int kThreads = F32Shape::kThreads;
constexpr int kMembers = kThreads / kTileRows;
constexpr int kParts = kMaxDim / (4 * kMembers);
constexpr int kKeysOfMember = kKvBlockRows / kMembers;

__device__ __forceinline__ void LoadStage(const KvGeometry& kv, const uint8_t* block,
                                          uint8_t* stage) {
  const int words = kv.row_bytes / 16;
  const uint32_t to = SharedAddress(stage);
  for (int i = static_cast<int>(threadIdx.x); i < 2 * kKvBlockRows * words; i += kThreads) {
    const int row = i / words, word = i % words;
    CopyAsync16(to + row * kStride + 16 * word, block + row * kv.row_bytes + 16 * word);
  }
}

__device__ __forceinline__ float Dot(float4 a, float4 b, float sum) {
  return __fmaf_rn(a.w, b.w, __fmaf_rn(a.z, b.z, __fmaf_rn(a.y, b.y, __fmaf_rn(a.x, b.x, sum))));
}

__device__ __forceinline__ void AttentionF32(const AttentionParameters& p, uint8_t* shared) {
  __shared__ __align__(16) float queries[kTileRows][kMaxDim + 4];
  RowTile tile;
  if (!FindTile<false>(p, &tile)) return;
  const KvGeometry& kv = p.kv;
  const int row = static_cast<int>(threadIdx.x) / kMembers;
  const int member = static_cast<int>(threadIdx.x) % kMembers;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int words = kv.row_bytes / 16;
  const float* q = tile.Query(p, row);
  for (int i = member; i < 4 * words; i += kMembers) {
    queries[row][i] = q != nullptr && i < kv.head_dim ? q[i] : 0.0f;
  }
  const int row_after = tile.RowAfter(row);
  const uint8_t* blocks = reinterpret_cast<const uint8_t*>(
      HeadAddress(kv, tile.sequence, tile.kv_head));
  const int end = (tile.key_end + kKvBlockRows - 1) / kKvBlockRows;
  const auto load = [&](int block, int stage) {
    if (block < end) {
      LoadStage(kv, blocks + int64_t{block} * kv.block_bytes, shared + stage * kStageBytes);
    }
    CopyAsyncCommit();
  };
  float highest = -kInfinity, sum = 0;
  float4 acc[kParts] = {};
  int stage = 0;
  const int first = tile.key_begin / kKvBlockRows;
  load(first, 0);
  for (int block = first; block < end; ++block) {
    load(block + 1, stage ^ 1);
    CopyAsyncWait<1>();
    __syncthreads();
    const uint8_t* keys = shared + stage * kStageBytes;
    const int visible = tile.first_row_end - block * kKvBlockRows + row_after;
    float t[kKeysOfMember] = {};
    for (int w = 0; w < words; ++w) {
      const float4 x = *reinterpret_cast<const float4*>(&queries[row][4 * w]);
#pragma unroll
      for (int j = 0; j < kKeysOfMember; ++j) {
        const uint8_t* key = keys + (member + kMembers * j) * kStride + 16 * w;
        t[j] = Dot(x, *reinterpret_cast<const float4*>(key), t[j]);
      }
    }
    float largest = -kInfinity;
#pragma unroll
    for (int j = 0; j < kKeysOfMember; ++j) {
      t[j] = member + kMembers * j < visible ? t[j] * p.log2_scale : -kInfinity;
      largest = fmaxf(largest, t[j]);
    }
    largest = fmaxf(highest, WarpMax<kMembers>(largest));
    const float shift = Shift(largest);
    const float rescale = Exp2Approximate(highest - shift);
    highest = largest;
    sum *= rescale;
#pragma unroll
    for (int j = 0; j < kKeysOfMember; ++j) {
      t[j] = Exp2Approximate(t[j] - shift);
      sum += t[j];
    }
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      acc[i].x *= rescale;
      acc[i].y *= rescale;
      acc[i].z *= rescale;
      acc[i].w *= rescale;
    }
    const uint8_t* values = keys + kTileBytes + 16 * member;
#pragma unroll
    for (int key = 0; key < kKvBlockRows; ++key) {
      const float weight =
          __shfl_sync(kAllLanes, t[key / kMembers], (lane & ~(kMembers - 1)) | key % kMembers);
      if (key >= visible) continue;
#pragma unroll
      for (int i = 0; i < kParts; ++i) {
        if (kMembers * i + member >= words) continue;
        const float4 v = *reinterpret_cast<const float4*>(values + key * kStride +
                                                          16 * kMembers * i);
        acc[i].x = __fmaf_rn(weight, v.x, acc[i].x);
        acc[i].y = __fmaf_rn(weight, v.y, acc[i].y);
        acc[i].z = __fmaf_rn(weight, v.z, acc[i].z);
        acc[i].w = __fmaf_rn(weight, v.w, acc[i].w);
      }
    }
    __syncthreads();  // the next copy may overwrite this stage
    stage ^= 1;
  }
  CopyAsyncWaitAll();
  sum = WarpSum<kMembers>(sum);
  if (row >= tile.rows) return;
  RowOutput out(p, tile, row, highest, sum, member);
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const float part[4] = {acc[i].x, acc[i].y, acc[i].z, acc[i].w};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int d = 4 * (kMembers * i + member) + e;
      if (d < kv.head_dim) out.Store(d, part[e]);
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    attention_f32(const AttentionParameters p) {
  extern __shared__ __align__(16) uint8_t shared[];
  AttentionF32(p, shared);
}

}  // namespace nibble::cuda
