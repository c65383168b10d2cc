// SPDX-License-Identifier: Apache-2.0
//
// Attention of few rows (decode): one block of threads takes a tile of 16 rows (query heads that
// share a kv head, and tokens) against one range of its keys; ranges are merged by
// attention_merge.cu in their order.
//
//   range of keys   | block 0 | block 1 | block 2 | ...         16 keys each
//   warp            |    0    |    1    |   ..    | W - 1 | 0 | ...
//   each warp       its own ring of kStages stages in shared memory, filled by cp.async
//                   16 bytes a lane; Q K^T, softmax, P V on its own, in registers; no barrier
//                   of the block before the end, where the warps' states are merged in order
//
// A cache block is one run of bytes, so a warp reads long runs: whole blocks, also of tokens that
// do not exist. What such bytes decode to does not matter: scores and weights of keys that a row
// does not see are not looked at, and its weight 0 meets finite values (KV4, KV8) or none (KV16:
// AddValuesByKey).
//
// Shapes: head sizes 16..64, ..128, ..256 by kDim, zeros above head_dim; any number of heads.
// Registers: kDim / 2 results a lane; kDim / 8 (KV4 by E4M3 mma) or kDim / 4 of queries, for heads
// of 256 in shared memory instead.
//
// Precision, besides sums in F32: a score's products are exact (block_products.cuh); a weight w is
// off by what its score is off, and by 2^-22 a rescaling; as a factor of values it is rounded
//   KV4, KV8   to F16 times 2^15: |error| <= 2^-11 w + 2^-40, for KV8 relative to the largest
//              weight times scale that the row has seen
//   KV16       to BF16: |error| <= 2^-8 w
// which no length of the context makes worse: results, and the sum of weights, are F32.
#pragma once

#include <type_traits>

#include "kernels-cuda/attention/block_products.cuh"
#include "kernels-cuda/attention/row_tile.cuh"

namespace nibble::cuda {

// Starts the copy of one block of 16 keys.
template <class Shape>
__device__ __forceinline__ void LoadBlock(const KvGeometry& kv, const uint8_t* block, int lane,
                                          uint8_t* stage) {
  constexpr unsigned kWords = Shape::kRowBytes / 16;
  static_assert(2 * kKvBlockRows == kWarpLanes);
  const uint32_t to = SharedAddress(stage);
  if constexpr (Shape::kScaleBytes > 0) {
    // Scales of keys and values follow each other in the cache, but not here.
    const int words = kv.scale_bytes / 16;
    if (lane < 2 * words) {
      const int part = lane / words;
      CopyAsync16(to + part * Shape::kScaleBytes + (lane - part * words) * 16, block + lane * 16);
    }
  }
  const uint8_t* rows = block + 2 * kv.scale_bytes;
  const uint32_t tiles = to + 2 * Shape::kScaleBytes;
  // Addresses of all words of a long block would fill the registers.
#pragma unroll 2
  for (unsigned round = 0; round < kWords; ++round) {
    const unsigned i = round * kWarpLanes + static_cast<unsigned>(lane);
    const int row = static_cast<int>(i / kWords);  // rows 16..31 are those of the values
    const int word = static_cast<int>(i % kWords);
    const bool wanted = 16 * word < kv.row_bytes;  // else zeros
    const uint8_t* from = rows + (wanted ? row * kv.row_bytes + 16 * word : 0);
    CopyAsync16(tiles + row * Shape::kStride + 16 * word, from, wanted ? 16 : 0);
  }
}

// One warp's running state over its keys.
template <KvKind kKind, int kDim>
struct DecodeWarp {
  using Shape = DecodeShape<kKind, kDim>;

  const KvGeometry& kv;
  LanePlace at;
  RowState state;
  float row_scale[2];
  int exponent[2];  // of the values' scales: KV8
  using Query = std::conditional_t<Shape::kQueryInShared, QueryInShared,
                                   QueryInRegisters<kSteps<kKind, kDim>>>;
  Query q;
  float acc[Shape::kColumnTiles][4];

  __device__ __forceinline__ explicit DecodeWarp(const KvGeometry& geometry, int lane)
      : kv(geometry), at{lane, lane / 4, lane % 4}, exponent{kLowestExponent, kLowestExponent} {
    state.Clear();
#pragma unroll
    for (int i = 0; i < Shape::kColumnTiles; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[i][e] = 0;
    }
  }

  __device__ __forceinline__ void Score(const uint8_t* stage, const uint8_t* keys,
                                        float (&s)[2][4]) {
    if constexpr (kKind == KvKind::kBF16) {
      ScoreBF16<kDim>(keys, at, q, s);
    } else if constexpr (kKind == KvKind::kI8) {
      ScoreI8<kDim>(keys, at, q, s);
    } else if constexpr (kKeysAreBytes<kKind>) {
      ScoreBytes<kDim>(kv, stage, keys, at, q, s);
    } else {
      ScoreI4Halves<kDim>(kv, stage, keys, at, q, s);
    }
  }

  // What scores of this lane's keys 8 j + 2 member + e are multiplied with.
  __device__ __forceinline__ void KeyFactors(const uint8_t* stage, float (&key)[2][2]) const {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int first = 8 * j + 2 * at.member;
      if constexpr (kKind == KvKind::kI8) {
        const float2 k = Load<float2>(stage + 4 * first);
        key[j][0] = k.x;
        key[j][1] = k.y;
      } else if (kv.groups == 1) {
        key[j][0] = ScaleToF32(stage[first]);
        key[j][1] = ScaleToF32(stage[first + 1]);
      }
    }
  }

  __device__ __forceinline__ bool AnyNonFinite(const uint8_t* values) const {
    constexpr unsigned kWords = Shape::kRowBytes / 16;
    uint32_t bits = 0;
#pragma unroll 1
    for (unsigned round = 0; round < kWords / 2; ++round) {
      const unsigned i = round * kWarpLanes + static_cast<unsigned>(at.lane);
      bits |= NonFiniteBits(Load<uint4>(values + i / kWords * Shape::kStride + i % kWords * 16));
    }
    return __any_sync(kAllLanes, HasNonFinite(bits));
  }

  // Adds one block of keys. visible: of its keys, how many rows group and group + 8 see; all:
  // every row of the tile sees every key.
  __device__ __forceinline__ void Attend(const uint8_t* stage, const int (&visible)[2], bool all) {
    const uint8_t* keys = stage + 2 * Shape::kScaleBytes;
    const uint8_t* values = keys + Shape::kTileBytes;
    float s[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    Score(stage, keys, s);
    float key_factor[2][2] = {{1, 1}, {1, 1}};
    if constexpr (Shape::kQuantized) KeyFactors(stage, key_factor);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[j][e] *= key_factor[j][e % 2] * row_scale[e / 2];
    }
    float rescale[2];
    Softmax(s, visible, at.member, state, rescale);
    if constexpr (kKind == KvKind::kI8) {
      const float* scales = reinterpret_cast<const float*>(stage + Shape::kScaleBytes);
      ScaleWeights(s, scales + 2 * at.member, visible, at.member, exponent, rescale);
    }
    Rescale(acc, rescale);
    uint32_t weights[4];
    if constexpr (kKind == KvKind::kI4) {
      const ValueScales<kDim> scales(kv, stage + Shape::kScaleBytes, at);
      float factors[10];
      scales.Factors(factors);
      FactorWeights(s, factors, visible, at.member);
      PackWeights<false>(s[0], s[1], weights);
      AddValuesI4<kDim>(scales, values, at, weights, acc);
    } else if constexpr (kKind == KvKind::kI8) {
      PackWeights<false>(s[0], s[1], weights);
      AddValuesI8<kDim>(values, at, weights, acc);
    } else {
      PackWeights<true>(s[0], s[1], weights);
      AddValuesBF16<kDim>(values, at, weights, visible,
                          !all && AnyNonFinite(values), acc);
    }
  }
};

template <KvKind kKind, int kDim>
__device__ __forceinline__ void AttentionDecode(const AttentionParameters& p, uint8_t* shared) {
  using Shape = DecodeShape<kKind, kDim>;
  __shared__ float warp_max[Shape::kWarps][kTileRows], warp_sum[Shape::kWarps][kTileRows];
  const KvGeometry& kv = p.kv;
  if (kDim > 64) __builtin_assume(kv.head_dim > kDim / 2);  // else there is a smaller kernel
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;

  constexpr int kStepCount = kSteps<kKind, kDim>;
  DecodeWarp<kKind, kDim> own(kv, lane);
  int first_row_end, first, end;
  int row_after[2];  // keys that a row sees beyond first_row_end
  const uint8_t* blocks;
  float unit = 1;  // of acc
  {
    RowTile tile;
    if (!FindTile(p, &tile)) return;
    const QueryRows<typename BlockOrder<kKind>::Type, kDim, Shape::kQuantized> rows(
        tile.Query(p, own.at.group), tile.Query(p, own.at.group + 8), kv.head_dim, own.at.member);
    if constexpr (Shape::kQueryInShared) {
      uint4* words = reinterpret_cast<uint4*>(shared + Shape::kLoopBytes) + lane;
      static_assert(kStepCount % Shape::kWarps == 0);
#pragma unroll 1
      for (int i = 0; i < kStepCount / Shape::kWarps; ++i) {
        const int step = i * Shape::kWarps + warp;
        const Fragment f = rows.Step(step);
        words[step * kWarpLanes] = make_uint4(f.word[0], f.word[1], f.word[2], f.word[3]);
      }
      own.q.words = words;
      __syncthreads();
    } else {
#pragma unroll
      for (int step = 0; step < kStepCount; ++step) own.q.fragments[step] = rows.Step(step);
    }
    const float* factors = reinterpret_cast<const float*>(FactorAddress(kv, tile.sequence));
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      own.row_scale[r] = rows.scale[r] * p.log2_scale;
      if constexpr (kKind == KvKind::kI4) own.row_scale[r] *= factors[0];
      row_after[r] = tile.RowAfter(own.at.group + 8 * r);
    }
    if constexpr (kKind == KvKind::kI4) unit = factors[1] * (1.0f / (1 << kWeightExponent));
    first_row_end = tile.first_row_end;
    first = tile.key_begin / kKvBlockRows + warp;
    end = (tile.key_end + kKvBlockRows - 1) / kKvBlockRows;
    blocks = reinterpret_cast<const uint8_t*>(HeadAddress(kv, tile.sequence, tile.kv_head));
  }

  // This warp's blocks: first, first + kWarps, ...
  uint8_t* ring = shared + warp * Shape::kStages * Shape::kStageBytes;
  const auto load = [&](int block, int stage) {
    if (block < end) {
      LoadBlock<Shape>(kv, blocks + int64_t{block} * kv.block_bytes, lane,
                       ring + stage * Shape::kStageBytes);
    }
    CopyAsyncCommit();
  };
  // Copies are kAhead blocks ahead: the first rounds do nothing but start them.
  constexpr int kAhead = (Shape::kStages - 1) * Shape::kWarps;
  int before = 0;  // the stage before this block's, which the copy goes to
  int block = first - kAhead;  // below end, even where there are no keys
#pragma unroll 1
  do {
    CopyAsyncWait<Shape::kStages - 2>();
    __syncwarp();  // all lanes' copies are there, and all have done with the stage before
    load(block + kAhead, before);
    before = before + 1 == Shape::kStages ? 0 : before + 1;
    if (block >= first) {
      const int left = first_row_end - block * kKvBlockRows;
      const int visible[2] = {left + row_after[0], left + row_after[1]};
      own.Attend(ring + before * Shape::kStageBytes, visible, left >= kKvBlockRows);
    }
    block += Shape::kWarps;
  } while (block < end);
  CopyAsyncWaitAll();
  __syncthreads();  // the rings are free: states take their place

  float* acc = reinterpret_cast<float*>(shared) + warp * kTileRows * Shape::kStateStride;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = own.at.group + 8 * r;
    if constexpr (kKind == KvKind::kI8) unit = ScaleUp(own.exponent[r]);
    const float sum = WarpSum<4>(own.state.sum[r]);
    if (own.at.member == 0) {
      warp_max[warp][row] = own.state.max[r];
      warp_sum[warp][row] = sum;
    }
#pragma unroll
    for (int i = 0; i < Shape::kColumnTiles; ++i) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        acc[row * Shape::kStateStride + Dimension<kKind>(i, 2 * own.at.member + e)] =
            own.acc[i][2 * r + e] * unit;
      }
    }
  }
  __syncthreads();
  RowTile tile;  // found again: it would take registers in the loop
  FindTile(p, &tile);
  for (int row = warp; row < tile.rows; row += Shape::kWarps) {
    float max = -kInfinity, weight[Shape::kWarps], sum = 0;
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) max = fmaxf(max, warp_max[w][row]);
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) {
      weight[w] = Exp2Approximate(warp_max[w][row] - Shift(max));
      sum = __fmaf_rn(weight[w], warp_sum[w][row], sum);
    }
    RowOutput out(p, tile, row, max, sum, lane);
    for (int d = lane; d < kv.head_dim; d += kWarpLanes) {
      float total = 0;
#pragma unroll
      for (int w = 0; w < Shape::kWarps; ++w) {
        const float part = reinterpret_cast<const float*>(
            shared)[(w * kTileRows + row) * Shape::kStateStride + d];
        total = __fmaf_rn(weight[w], part, total);
      }
      out.Store(d, total);
    }
  }
}

}  // namespace nibble::cuda

// The kernels of one kind of cache, named by the largest head size they take.
#define NIBBLE_DECODE_KERNEL(name, kind, dim)                                                  \
  extern "C" __global__ void __launch_bounds__(                                                \
      (nibble::cuda::DecodeShape<nibble::cuda::KvKind::kind, dim>::kThreads), 1)               \
      attention_decode_##name##_##dim(const nibble::cuda::AttentionParameters p) {             \
    extern __shared__ __align__(16) uint8_t shared[];                                          \
    nibble::cuda::AttentionDecode<nibble::cuda::KvKind::kind, dim>(p, shared);                 \
  }
#define NIBBLE_DECODE_KERNELS(name, kind) \
  NIBBLE_DECODE_KERNEL(name, kind, 64)    \
  NIBBLE_DECODE_KERNEL(name, kind, 128)   \
  NIBBLE_DECODE_KERNEL(name, kind, 256)
