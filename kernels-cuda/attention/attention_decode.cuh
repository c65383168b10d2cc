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
// A cache block is one run of bytes, so a warp reads long runs; what is behind the keys that
// this tile may see is not read: zeros take its place. Whole scales of a cache block are read,
// also of tokens that do not exist: a score and a weight of such a key are never looked at.
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

// Starts the copy of one block of 16 keys, of which `valid` are read.
template <class Shape>
__device__ __forceinline__ void LoadBlock(const KvGeometry& kv, const uint8_t* block, int valid,
                                          int lane, uint8_t* stage) {
  constexpr int kWords = Shape::kRowBytes / 16;
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
  for (int i = lane; i < 2 * kKvBlockRows * kWords; i += kWarpLanes) {
    const int row = i / kWords, word = i % kWords;  // rows 16..31 are those of the values
    const bool wanted = row % kKvBlockRows < valid && 16 * word < kv.row_bytes;
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

  // Whether any scale of the block is NaN, and for one key, of keys or values.
  __device__ __forceinline__ bool AnyPoison(const uint8_t* stage) const {
    const uint8_t* scales = stage + (at.lane & 1) * Shape::kScaleBytes;
    bool bad = false;
    for (int i = at.lane / 2; i < 4 * kv.groups; i += 16) {
      bad |= AnyNaNScale(Load<uint32_t>(scales + 4 * i));
    }
    return __any_sync(kAllLanes, bad);
  }
  __device__ __forceinline__ bool Poisoned(const uint8_t* scales, int key) const {
    bool bad = false;
    for (int g = 0; g < kv.groups; ++g) bad |= AnyNaNScale(scales[g * kKvBlockRows + key]);
    return bad;
  }

  // What scores, and weights of KV4, of this lane's keys 8 j + 2 member + e are multiplied with.
  __device__ __forceinline__ void Factors(const uint8_t* stage, float (&key)[2][2],
                                          float (&value)[10]) const {
    const uint8_t* values = stage + Shape::kScaleBytes;
    if constexpr (kKind == KvKind::kI8) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int at_key = 4 * (8 * j + 2 * at.member);
        const float2 k = Load<float2>(stage + at_key);
        key[j][0] = k.x;
        key[j][1] = k.y;
      }
    } else {
      const float nan = __uint_as_float(0x7FC00000u);
      const bool any = AnyPoison(stage);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int index = 8 * j + 2 * at.member + e;
          key[j][e] = kv.groups == 1 ? DecodeE4M3(stage[index]) : 1.0f;
          value[8 * j + e] = static_cast<float>(1 << kWeightExponent);
          if (any) {
            if (Poisoned(stage, index)) key[j][e] = nan;
            if (Poisoned(values, index)) value[8 * j + e] = nan;
          }
        }
      }
    }
  }

  __device__ __forceinline__ bool AnyNonFinite(const uint8_t* values) const {
    bool bad = false;
#pragma unroll 1
    for (int i = at.lane; i < kKvBlockRows * kDim / 2; i += kWarpLanes) {
      const int row = i / (kDim / 2), pair = i % (kDim / 2);
      const uint32_t v = Load<uint32_t>(values + row * Shape::kStride + 4 * pair);
      bad |= FinitePair(v) != v;
    }
    return __any_sync(kAllLanes, bad);
  }

  // Adds one block of keys. visible: of its keys, how many rows group and group + 8 see; all:
  // every row of the tile sees every key.
  __device__ __forceinline__ void Attend(const uint8_t* stage, const int (&visible)[2], bool all) {
    const uint8_t* keys = stage + 2 * Shape::kScaleBytes;
    const uint8_t* values = keys + Shape::kTileBytes;
    float s[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    Score(stage, keys, s);
    float key_factor[2][2] = {{1, 1}, {1, 1}}, value_factor[10];  // as FactorWeights counts keys
    if constexpr (Shape::kQuantized) Factors(stage, key_factor, value_factor);
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
    } else if constexpr (kKind == KvKind::kI4) {
      FactorWeights(s, value_factor, visible, at.member);
    }
    Rescale(acc, rescale);
    uint32_t weights[4];
    PackWeights<!Shape::kQuantized>(s[0], s[1], weights);
    if constexpr (kKind == KvKind::kI4) {
      AddValuesI4<kDim>(kv, stage + Shape::kScaleBytes, values, at, weights, acc);
    } else if constexpr (kKind == KvKind::kI8) {
      AddValuesI8<kDim>(values, at, weights, acc);
    } else if (all || !AnyNonFinite(values)) {
      AddValuesBF16<kDim, false>(SharedAddress(values), at, weights, visible, acc);
    } else {
      AddValuesBF16<kDim, true>(SharedAddress(values), at, weights, visible, acc);
    }
  }
};

template <KvKind kKind, int kDim>
__device__ __forceinline__ void AttentionDecode(const AttentionParameters& p, uint8_t* shared) {
  using Shape = DecodeShape<kKind, kDim>;
  __shared__ float warp_max[Shape::kWarps][kTileRows], warp_sum[Shape::kWarps][kTileRows];
  const KvGeometry& kv = p.kv;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;

  constexpr int kStepCount = kSteps<kKind, kDim>;
  DecodeWarp<kKind, kDim> own(kv, lane);
  int64_t first_row_end, key_end, first, end;
  int row_after[2];  // keys that a row sees beyond first_row_end
  const uint8_t* blocks;
  float unit = 1;  // of acc
  {
    RowTile tile;
    if (!FindTile(p, &tile)) return;
    const QueryRows<typename BlockOrder<kKind>::Type, Shape::kQuantized> rows(
        tile.Query(p, own.at.group), tile.Query(p, own.at.group + 8), kv.head_dim, own.at.member);
    if constexpr (Shape::kQueryInShared) {
      uint4* words = reinterpret_cast<uint4*>(shared + Shape::kLoopBytes) + lane;
      for (int step = warp; step < kStepCount; step += Shape::kWarps) {
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
    key_end = tile.key_end;
    first = tile.key_begin / kKvBlockRows + warp;
    end = (key_end + kKvBlockRows - 1) / kKvBlockRows;
    blocks = reinterpret_cast<const uint8_t*>(HeadAddress(kv, tile.sequence, tile.kv_head));
  }

  // This warp's blocks: first, first + kWarps, ...
  uint8_t* ring = shared + warp * Shape::kStages * Shape::kStageBytes;
  const auto load = [&](int64_t block, int stage) {
    if (block < end) {
      const int64_t left = key_end - block * kKvBlockRows;
      LoadBlock<Shape>(kv, blocks + block * kv.block_bytes,
                       static_cast<int>(min(left, int64_t{kKvBlockRows})), lane,
                       ring + stage * Shape::kStageBytes);
    }
    CopyAsyncCommit();
  };
#pragma unroll
  for (int i = 0; i < Shape::kStages - 1; ++i) load(first + i * Shape::kWarps, i);
  int stage = 0;
  for (int64_t block = first; block < end; block += Shape::kWarps) {
    CopyAsyncWait<Shape::kStages - 2>();
    __syncwarp();  // all lanes' copies are there, and all have done with the stage before
    load(block + (Shape::kStages - 1) * Shape::kWarps,
         (stage + Shape::kStages - 1) % Shape::kStages);
    const int64_t key = block * kKvBlockRows;
    // Far from the end of the keys any number will do that is large enough.
    const int left = static_cast<int>(min(first_row_end - key, int64_t{kAllKeys}));
    const int visible[2] = {left + row_after[0], left + row_after[1]};
    own.Attend(ring + stage * Shape::kStageBytes, visible, left >= kKvBlockRows);
    stage = (stage + 1) % Shape::kStages;
  }
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
