// SPDX-License-Identifier: Apache-2.0
//
// Attention of many rows (prefill), after FlashAttention-3's division of labour (arXiv
// 2407.08608) and FireQ's three stages (arXiv 2505.20839): load, decode, multiply.
//
//   loader, 4 warps       cp.async: blocks of the cache -> raw ring (KV16: straight to a stage)
//                         decode: raw codes -> a stage of 16-bit keys and values, in shared memory
//   consumer group 0, 1   4 warps each (2 for heads of 256), 16 rows a warp: Q K^T, softmax, P V
//                         by mma and ldmatrix (transposed for values)
//
//   tile t   loads   decodes   multiplies (each group at its own pace)
//     t+1    raw[1]
//     t      raw[0]  stage[t % 2]
//     t-1                      stage[(t - 1) % 2]
//
//   stage  = | keys [kKeys][row] | values [kKeys][row] | factors | flags |
//   row    = kDim 16-bit elements (keys by E4M3 mma: bytes), in words of 16 bytes: word w of row r
//            stands at w ^ (r >> shift & mask), which puts any 8 neighbouring rows' words w into
//            different banks, so that neither ldmatrix nor the loader's writes conflict
//   factors  of keys: F32 [groups][kKeys] by E4M3 mma, else [kKeys]; of values: [kKeys]
//
// Stages pass between loader and groups by named barriers, a full and an empty one for each
// stage and group: one side arrives, the other waits. The raw ring is the loader's alone.
//
// Values of KV4 are stored times their scale (exact in F16, block_products.cuh), keys of the
// 16-bit path too; scales of KV8 multiply scores and weights.
//
// Registers: beside 384 threads a thread has 168, of which results of 128 columns take 64 and
// queries 32 or 16; beside 256 threads (heads of 256) it has 255, and results take 128. Steps are
// as long as fits (kStepKeys). Four kernels spill all the same (resources.csv: KV8 on sm_90a and
// sm_120a, KV16 of 256 on sm_120a): 2 to 13 words a thread, read again at most 38 times beside the
// 48 mma of a step. Shorter steps do not cure them, and a smaller block would load every key more
// often.
//
// Shapes: head sizes ..64, ..96, ..128, ..256 by kDim, zeros above head_dim; any rows, heads.
// Rows of a block of threads see keys up to their own position; tiles behind a warp's rows are
// passed by. Precision: as attention_decode.cuh, with one state for all keys of a row.
#pragma once

#include <type_traits>

#include "kernels-cuda/attention/prefill_loader.cuh"

namespace nibble::cuda {

template <KvKind kKind, int kDim>
struct Consumer {
  using Shape = PrefillShape<kKind, kDim>;
  using Stage = PrefillStage<kKind, kDim>;
  static constexpr int kKeyTiles = Shape::kStepKeys / 8;
  static constexpr int kColumnTiles = kDim / 8;
  static constexpr int kStepCount = kSteps<kKind, kDim>;
  using Order = std::conditional_t<kKeysAreBytes<kKind>, OrderE4M3Rows, OrderNatural>;

  const KvGeometry& kv;
  LanePlace at;
  RowState state;
  float row_scale[2];
  int exponent[2];  // of the values' scales: KV8
  QueryInRegisters<kStepCount> q;
  float acc[kColumnTiles][4];

  __device__ __forceinline__ explicit Consumer(const KvGeometry& geometry, int lane)
      : kv(geometry), at{lane, lane / 4, lane % 4}, exponent{kLowestExponent, kLowestExponent} {
    state.Clear();
  }

  // After the queries have been loaded, which takes registers of its own.
  __device__ __forceinline__ void ClearResults() {
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[i][e] = 0;
    }
  }

  // Key fragments of 16 keys: of one step, b[0], b[1] of keys 0..7; b[2], b[3] of keys 8..15.
  __device__ __forceinline__ RowWords<Stage::kKeyWords> Keys(const Stage& stage, int keys) const {
    return stage.KeyWords(keys + at.lane % 8 + at.lane / 16 * 8, at.lane / 8 % 2);
  }

  // As ScoreBytes in block_products.cuh; here the halves of a step are those of the fragment.
  __device__ __forceinline__ void ScoreBytes(const Stage& stage, int first,
                                             float (&s)[kKeyTiles][4]) const {
    if (kv.groups == 1) {
      ScoreByteSteps<false>(stage, first, s);
    } else {
      ScoreByteSteps<true>(stage, first, s);
    }
  }

  template <bool kGroups>
  __device__ __forceinline__ void ScoreByteSteps(const Stage& stage, int first,
                                                 float (&s)[kKeyTiles][4]) const {
    const float* factors = stage.KeyFactors() + first + 2 * at.member;
#pragma unroll
    for (int j = 0; j < kKeyTiles; j += 2) {
      const RowWords<Stage::kKeyWords> keys = Keys(stage, first + 8 * j);
#pragma unroll
      for (int step = 0; step < kStepCount; ++step) {
        uint32_t b[4];
        LoadMatrix4(b, keys.At(step));
#pragma unroll
        for (int half = 0; half < (kGroups ? 2 : 1); ++half) {
          const float* scales = nullptr;
          if constexpr (kGroups) {
            const int element = 32 * step + 16 * half;
            if (element >= kv.head_dim) continue;
            scales = factors + GroupOf(element, GroupReciprocal(kv)) * Shape::kKeys;
          }
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            // Half a step: the other half of the keys' elements counts as zero.
            const uint32_t own[2] = {kGroups && half == 1 ? 0 : b[2 * i],
                                     kGroups && half == 0 ? 0 : b[2 * i + 1]};
            float part[4] = {0, 0, 0, 0};
            MmaBytes(part, q.Get(step).word, own);
            float2 scale = make_float2(1, 1);
            if constexpr (kGroups) {
              scale = *reinterpret_cast<const float2*>(scales + 8 * (j + i));
            }
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              s[j + i][e] = __fmaf_rn(part[e], e % 2 == 0 ? scale.x : scale.y, s[j + i][e]);
            }
          }
        }
      }
    }
  }

  __device__ __forceinline__ void ScoreHalves(const Stage& stage, int first,
                                              float (&s)[kKeyTiles][4]) const {
#pragma unroll
    for (int j = 0; j < kKeyTiles; j += 2) {
      const RowWords<Stage::kKeyWords> keys = Keys(stage, first + 8 * j);
#pragma unroll
      for (int step = 0; step < kStepCount; ++step) {
        uint32_t b[4];
        LoadMatrix4(b, keys.At(step));
        const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
        if constexpr (kKind == KvKind::kBF16) {
          MmaBF16(s[j], q.Get(step).word, first);
          MmaBF16(s[j + 1], q.Get(step).word, second);
        } else {
          MmaF16(s[j], q.Get(step).word, first);
          MmaF16(s[j + 1], q.Get(step).word, second);
        }
      }
    }
  }

  // acc += weights (of 16 keys from `keys` on) times values.
  // visible: of these 16 keys; by_key: AddValuesByKey, KV16 alone.
  __device__ __forceinline__ void AddValues(const Stage& stage, int keys, const uint32_t (&a)[4],
                                            const int (&visible)[2], bool by_key) {
    if constexpr (kKind == KvKind::kBF16) {
      if (by_key) {
        return AddValuesByKey(
            a, visible, at,
            [&](int key, int tile) {
              return Load<uint32_t>(stage.Value(keys + key, tile) + 4 * at.member);
            },
            acc);
      }
    }
    const RowWords<Stage::kValueWords> values =
        stage.ValueWords(keys + at.lane % 16, at.lane / 16);
#pragma unroll
    for (int pair = 0; pair < kColumnTiles / 2; ++pair) {
      uint32_t b[4];
      LoadMatrixTransposed4(b, values.At(pair));
      AddPair<kKind == KvKind::kBF16>(a, b, acc[2 * pair], acc[2 * pair + 1]);
    }
  }

  // Adds a step: some keys of a stage, from `first` on. visible: of them, how many rows group and
  // group + 8 see (any number beyond them for all, any below 1 for none); non_finite: KV16 has
  // values that are not finite, and some rows do not see all keys.
  __device__ __forceinline__ void Attend(const Stage& stage, int first, const int (&visible)[2],
                                         bool non_finite) {
    float s[kKeyTiles][4];
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[j][e] = 0;
    }
    if constexpr (kKeysAreBytes<kKind>) {
      ScoreBytes(stage, first, s);
    } else {
      ScoreHalves(stage, first, s);
    }
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j) {
      float2 factor = make_float2(1, 1);
      if (kKind == KvKind::kI8 || (kKeysAreBytes<kKind> && kv.groups == 1)) {
        factor = *reinterpret_cast<const float2*>(stage.KeyFactors() + first + 8 * j +
                                                  2 * at.member);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        s[j][e] *= (e % 2 == 0 ? factor.x : factor.y) * row_scale[e / 2];
      }
    }
    float rescale[2];
    Softmax(s, visible, at.member, state, rescale);
    if constexpr (Shape::kQuantized) {
      const float* factors = stage.ValueFactors() + first + 2 * at.member;
      if constexpr (kKind == KvKind::kI8) {
        ScaleWeights(s, factors, visible, at.member, exponent, rescale);
      } else {
        FactorWeights(s, factors, visible, at.member);
      }
    }
    Rescale(acc, rescale);
#pragma unroll
    for (int block = 0; block < kKeyTiles / 2; ++block) {
      uint32_t weights[4];
      PackWeights<!Shape::kQuantized>(s[2 * block], s[2 * block + 1], weights);
      const int keys = kKvBlockRows * block;
      AddValues(stage, first + keys, weights, {visible[0] - keys, visible[1] - keys}, non_finite);
    }
  }
};

template <KvKind kKind, int kDim>
__device__ __forceinline__ void RunConsumer(const AttentionParameters& p, const PrefillTile& tile,
                                            uint8_t* shared, int warp, int lane) {
  using Shape = PrefillShape<kKind, kDim>;
  using Stage = PrefillStage<kKind, kDim>;
  using Barrier = Barriers<Shape>;
  const int group = warp / Shape::kConsumerWarps;
  const int first = tile.first + warp * kTileRows;
  Consumer<kKind, kDim> own(p.kv, lane);
  int first_left = tile.RowEnd(tile.first, p.heads);  // keys that the block's first row sees
  int row_after[2];  // how many keys more than the block's first row rows see
  const float* query[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = first + own.at.group + 8 * r;
    row_after[r] = tile.RowAfter(row, p.heads);
    query[r] = nullptr;
    if (row < tile.rows) {
      query[r] = reinterpret_cast<const float*>(p.q) +
                 (tile.sequence.first_row + row / p.heads) * p.q_stride +
                 (tile.kv_head * p.heads + row % p.heads) * p.kv.head_dim;
    }
  }
  const QueryRows<typename Consumer<kKind, kDim>::Order, kDim, Shape::kQuantized> rows(
      query[0], query[1], p.kv.head_dim, own.at.member);
#pragma unroll
  for (int step = 0; step < kSteps<kKind, kDim>; ++step) own.q.fragments[step] = rows.Step(step);
  float unit = 1;  // of acc
#pragma unroll
  for (int r = 0; r < 2; ++r) own.row_scale[r] = rows.scale[r] * p.log2_scale;
  if constexpr (kKind == KvKind::kI4) {
    const float* factors = reinterpret_cast<const float*>(FactorAddress(p.kv, tile.sequence));
    own.row_scale[0] *= factors[0];
    own.row_scale[1] *= factors[0];
    unit = factors[1] * (1.0f / (1 << kWeightExponent));
  }
  // The rows of a warp are in order: its last one sees the most.
  const int warp_after =
      tile.RowAfter(first < tile.rows ? min(first + kTileRows, tile.rows) - 1 : first, p.heads);

  own.ClearResults();
  const int tiles = tile.template Stages<Shape::kKeys>();
  for (int t = 0; t < tiles; ++t) {
    const int index = t % Shape::kStages;
    const Stage stage{{}, shared + index * Shape::kStageBytes};
    NamedBarrier(Barrier::Full(group, index), Barrier::kThreads);
    // Keys of the stage that the warp's rows see: up to their own positions.
    int left = first_left;
    first_left -= Shape::kKeys;
    // Nothing made of it may stay in registers over the loop, of which KV8 has too few.
    if constexpr (kKind == KvKind::kI8) asm volatile("" : "+r"(left));
    const int limit = min(left + warp_after, Shape::kKeys);
    bool non_finite = false;
    if constexpr (kKind == KvKind::kBF16) {
      if (left < Shape::kKeys) {
        const uint4 flags = Load<uint4>(reinterpret_cast<const uint8_t*>(stage.Flags()));
        non_finite = (flags.x & flags.y & flags.z & flags.w) == 0;
      }
    }
#pragma unroll 1
    for (int step = 0; step < limit; step += Shape::kStepKeys) {
      own.Attend(stage, step, {left + row_after[0] - step, left + row_after[1] - step},
                 non_finite);
    }
    if (t + Shape::kStages < tiles) {
      NamedBarrierArrive(Barrier::Empty(group, index), Barrier::kThreads);
    }
  }

  PrefillTile rows_of;  // found again: it would take registers in the loop
  FindPrefillTile<Shape::kRows>(p, &rows_of);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = rows_of.first + warp * kTileRows + own.at.group + 8 * r;
    if constexpr (kKind == KvKind::kI8) unit = ScaleUp(own.exponent[r]);
    const float sum = WarpSum<4>(own.state.sum[r]);
    if (row >= rows_of.rows) continue;
    float* y = reinterpret_cast<float*>(p.y) +
               (rows_of.sequence.first_row + row / p.heads) * p.y_stride +
               (rows_of.kv_head * p.heads + row % p.heads) * p.kv.head_dim;
#pragma unroll
    for (int i = 0; i < Consumer<kKind, kDim>::kColumnTiles; ++i) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int d = 8 * i + 2 * own.at.member + e;
        if (d < p.kv.head_dim) y[d] = __fdiv_rn(own.acc[i][2 * r + e] * unit, sum);
      }
    }
  }
}

template <KvKind kKind, int kDim>
__device__ __forceinline__ void AttentionPrefill(const AttentionParameters& p, uint8_t* shared) {
  using Shape = PrefillShape<kKind, kDim>;
  PrefillTile tile;
  if (!FindPrefillTile<Shape::kRows>(p, &tile)) return;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < Shape::kLoaderThreads) {
    RunLoader<kKind, kDim>(p, tile, shared, thread);
  } else {
    RunConsumer<kKind, kDim>(p, tile, shared, thread / kWarpLanes - Shape::kLoaderWarps,
                             thread % kWarpLanes);
  }
}

}  // namespace nibble::cuda

// The kernels of one kind of cache, named by the largest head size they take.
#define NIBBLE_PREFILL_KERNEL(name, kind, dim)                                                 \
  extern "C" __global__ void __launch_bounds__(                                                \
      (nibble::cuda::PrefillShape<nibble::cuda::KvKind::kind, dim>::kThreads))                 \
      attention_prefill_##name##_##dim(const nibble::cuda::AttentionParameters p) {            \
    extern __shared__ __align__(16) uint8_t shared[];                                          \
    nibble::cuda::AttentionPrefill<nibble::cuda::KvKind::kind, dim>(p, shared);                \
  }
#define NIBBLE_PREFILL_KERNELS(name, kind) \
  NIBBLE_PREFILL_KERNEL(name, kind, 64)    \
  NIBBLE_PREFILL_KERNEL(name, kind, 96)    \
  NIBBLE_PREFILL_KERNEL(name, kind, 128)   \
  NIBBLE_PREFILL_KERNEL(name, kind, 256)
