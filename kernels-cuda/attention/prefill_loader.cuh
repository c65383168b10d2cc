// SPDX-License-Identifier: Apache-2.0
//
// The loader of attention_prefill.cuh: from a cache to stages of decoded keys and values.
//
//   KV4, KV8   cache -> raw ring by cp.async, blocks as they are -> stage, decoded in registers
//   KV16       cache -> stage by cp.async
//
// A thread decodes one 16-byte word of a stage at a time: 8 halves, or 16 bytes of E4M3. Words of
// keys that no row sees, and behind the head, become zero without a look at the cache. All decoded
// numbers are exact (block_products.cuh).
#pragma once

#include "kernels-cuda/attention/prefill_stage.cuh"

namespace nibble::cuda {

template <KvKind kKind, int kDim>
struct Loader {
  using Shape = PrefillShape<kKind, kDim>;
  using Stage = PrefillStage<kKind, kDim>;
  static constexpr int kThreads = Shape::kLoaderThreads;
  // Addresses worked out for more words at once would not fit in what consumers leave.
  static constexpr int kLoaderUnroll = 2;

  const KvGeometry& kv;
  const uint8_t* blocks;
  int keys;
  int thread;

  __device__ __forceinline__ int Valid(int tile) const {
    return min(keys - tile * Shape::kKeys, Shape::kKeys);
  }
  __device__ __forceinline__ const uint8_t* TileBlocks(int tile) const {
    return blocks + int64_t{tile} * (Shape::kKeys / kKvBlockRows) * kv.block_bytes;
  }

  // Cache blocks to the raw ring as they are; rows that nobody sees are not read.
  __device__ __forceinline__ void LoadRaw(int tile, uint8_t* raw) const {
    const int valid = Valid(tile);
    const uint8_t* from = TileBlocks(tile);
    const int words = kv.block_bytes / 16, scale_words = 2 * kv.scale_bytes / 16;
    const int row_words = kv.row_bytes / 16;
    const int count = (valid + kKvBlockRows - 1) / kKvBlockRows;
#pragma unroll 1
    for (int block = 0; block < count; ++block) {
      const int here = valid - block * kKvBlockRows;
#pragma unroll 1
      for (int word = thread; word < words; word += kThreads) {
        const int row = (word - scale_words) / row_words % kKvBlockRows;
        if (word >= scale_words && row >= here) continue;
        CopyAsync16(SharedAddress(raw + block * Shape::kRawBlockBytes + 16 * word),
                    from + block * kv.block_bytes + 16 * word);
      }
    }
  }

  // A key's row in the raw ring; part 0: keys, 1: values.
  __device__ __forceinline__ const uint8_t* RawBlock(const uint8_t* raw, int key) const {
    return raw + key / kKvBlockRows * Shape::kRawBlockBytes;
  }
  __device__ __forceinline__ const uint8_t* RawRow(const uint8_t* raw, int key, int part) const {
    return RawBlock(raw, key) + 2 * kv.scale_bytes +
           (key % kKvBlockRows + part * kKvBlockRows) * kv.row_bytes;
  }

  // Eight I4 codes times their scale; all are exact. A scale that is NaN makes keys NaN, and counts
  // as some number for values: FactorsI4.
  __device__ __forceinline__ uint4 ScaledI4(const uint8_t* raw, int key, int part,
                                            int word) const {
    uint32_t f16[4];
    DecodeI4x8ToF16(Load<uint32_t>(RawRow(raw, key, part) + 4 * word), f16);
    const int group = ScaleGroup(kv, 8 * word);
    const uint32_t code = RawBlock(
        raw, key)[part * kv.scale_bytes + group * kKvBlockRows + key % kKvBlockRows];
    const uint32_t scale = part == 0 ? KeyScaleTwice(code) : ValueScaleTwice(code);
    return make_uint4(MulF16x2(f16[0], scale), MulF16x2(f16[1], scale), MulF16x2(f16[2], scale),
                      MulF16x2(f16[3], scale));
  }
  __device__ __forceinline__ uint4 BytesI4(const uint8_t* raw, int key, int word) const {
    uint32_t low[2], high[2];
    const uint2 codes = Load<uint2>(RawRow(raw, key, 0) + 8 * word);
    DecodeI4x8ToE4M3(codes.x, low);
    DecodeI4x8ToE4M3(codes.y, high);
    return make_uint4(low[0], low[1], high[0], high[1]);
  }
  __device__ __forceinline__ uint4 HalvesI8(const uint8_t* raw, int key, int part,
                                            int word) const {
    uint32_t low[2], high[2];
    const uint2 codes = Load<uint2>(RawRow(raw, key, part) + 8 * word);
    DecodeI8x4ToF16(codes.x, low);
    DecodeI8x4ToF16(codes.y, high);
    return make_uint4(low[0], low[1], high[0], high[1]);
  }

  // Decodes a tile from the raw ring; what is behind its keys and its head becomes zero.
  __device__ __forceinline__ void Decode(int tile, const uint8_t* raw, const Stage& stage) {
    const int valid = Valid(tile);
    // Raw bytes of one word of a stage.
    constexpr int kKeyCodes = kKind == KvKind::kI4 && !Stage::kBytes ? 4 : 8;
    constexpr int kValueCodes = kKind == KvKind::kI4 ? 4 : 8;
    const uint4 zero = make_uint4(0, 0, 0, 0);
#pragma unroll kLoaderUnroll
    for (int i = thread; i < Shape::kKeys * Stage::kKeyWords; i += kThreads) {
      const int key = i / Stage::kKeyWords, word = i % Stage::kKeyWords;
      uint4 decoded = zero;
      if (key < valid && kKeyCodes * word < kv.row_bytes) {
        if constexpr (kKind == KvKind::kI8) {
          decoded = HalvesI8(raw, key, 0, word);
        } else if constexpr (Stage::kBytes) {
          decoded = BytesI4(raw, key, word);
        } else {
          decoded = ScaledI4(raw, key, 0, word);
        }
      }
      *reinterpret_cast<uint4*>(stage.Key(key, word)) = decoded;
    }
#pragma unroll kLoaderUnroll
    for (int i = thread; i < Shape::kKeys * Stage::kValueWords; i += kThreads) {
      const int key = i / Stage::kValueWords, word = i % Stage::kValueWords;
      uint4 decoded = zero;
      if (key < valid && kValueCodes * word < kv.row_bytes) {
        decoded = kKind == KvKind::kI8 ? HalvesI8(raw, key, 1, word)
                                       : ScaledI4(raw, key, 1, word);
      }
      *reinterpret_cast<uint4*>(stage.Value(key, word)) = decoded;
    }
    if constexpr (kKind == KvKind::kI8) {
      FactorsI8(raw, valid, stage);
    } else {
      FactorsI4(raw, valid, stage);
    }
  }

  // Keys that nobody sees keep what is left of other tiles: it is not looked at.
  __device__ __forceinline__ void FactorsI8(const uint8_t* raw, int valid, const Stage& stage) {
    if (thread >= valid) return;
    const uint8_t* scales = RawBlock(raw, thread) + 4 * (thread % kKvBlockRows);
    stage.KeyFactors()[thread] = Load<float>(scales);
    stage.ValueFactors()[thread] = Load<float>(scales + kv.scale_bytes);
  }

  // Of keys as bytes, each group's scale. Of values, what weights are multiplied with: NaN where
  // any group's scale is.
  __device__ __forceinline__ void FactorsI4(const uint8_t* raw, int valid, const Stage& stage) {
    if (thread >= valid) return;
    const uint8_t* codes = RawBlock(raw, thread) + thread % kKvBlockRows;
    bool poison = false;
#pragma unroll 1
    for (int g = 0; g < kv.groups; ++g) {
      const uint8_t* code = codes + g * kKvBlockRows;
      if constexpr (Stage::kBytes) {
        stage.KeyFactors()[g * Shape::kKeys + thread] = ScaleToF32(code[0]);
      }
      poison |= code[kv.scale_bytes] == kNaNScale;
    }
    stage.ValueFactors()[thread] = WeightFactor(poison);
  }

  // KV16: straight to the stage, zeros for what is behind keys and head.
  __device__ __forceinline__ void LoadStage(int tile, const Stage& stage) const {
    const int valid = Valid(tile);
    const uint8_t* from = TileBlocks(tile);
#pragma unroll kLoaderUnroll
    for (int i = thread; i < 2 * Shape::kKeys * Stage::kValueWords; i += kThreads) {
      const int part = i / (Shape::kKeys * Stage::kValueWords);
      const int key = i / Stage::kValueWords % Shape::kKeys, word = i % Stage::kValueWords;
      const bool wanted = key < valid && 16 * word < kv.row_bytes;
      const int row = key % kKvBlockRows + part * kKvBlockRows;
      const uint8_t* source = from + (wanted ? key / kKvBlockRows * kv.block_bytes +
                                                   row * kv.row_bytes + 16 * word
                                             : 0);
      CopyAsync16(SharedAddress(part == 0 ? stage.Key(key, word) : stage.Value(key, word)),
                  source, wanted ? 16 : 0);
    }
  }

  // Whether a value that this warp has loaded is not finite.
  __device__ __forceinline__ bool AnyNonFinite(const Stage& stage) const {
    uint32_t bits = 0;
#pragma unroll 1
    for (int i = thread; i < Shape::kKeys * Stage::kValueWords; i += kThreads) {
      bits |= NonFiniteBits(
          Load<uint4>(stage.Value(i / Stage::kValueWords, i % Stage::kValueWords)));
    }
    return __any_sync(kAllLanes, HasNonFinite(bits));
  }
};

template <KvKind kKind, int kDim>
__device__ __forceinline__ void RunLoader(const AttentionParameters& p, const PrefillTile& tile,
                                          uint8_t* shared, int thread) {
  using Shape = PrefillShape<kKind, kDim>;
  using Stage = PrefillStage<kKind, kDim>;
  using Barrier = Barriers<Shape>;
  constexpr int kStages = Shape::kStages;
  Loader<kKind, kDim> loader{
      p.kv, reinterpret_cast<const uint8_t*>(HeadAddress(p.kv, tile.sequence, tile.kv_head)),
      tile.keys, thread};
  const int tiles = tile.template Stages<Shape::kKeys>();
  const int first_end = tile.RowEnd(tile.first, p.heads);
  const auto stage = [&](int t) {
    return Stage{{}, shared + t % kStages * Shape::kStageBytes};
  };
  const auto wait_empty = [&](int t) {
    if (t < kStages || t >= tiles) return;
    for (int g = 0; g < Shape::kConsumers; ++g) {
      NamedBarrier(Barrier::Empty(g, t % kStages), Barrier::kThreads);
    }
  };
  const auto signal_full = [&](int t) {
    for (int g = 0; g < Shape::kConsumers; ++g) {
      NamedBarrierArrive(Barrier::Full(g, t % kStages), Barrier::kThreads);
    }
  };
  if constexpr (Shape::kQuantized) {
    uint8_t* raw = shared + kStages * Shape::kStageBytes;
    const auto ring = [&](int t) {
      return raw + t % Shape::kRawStages * Shape::kRawBytes;
    };
    loader.LoadRaw(0, ring(0));
    CopyAsyncCommit();
    for (int t = 0; t < tiles; ++t) {
      CopyAsyncWait<0>();
      // All of the loader's copies of tile t are there, and tile t - 1 is decoded, whose place
      // tile t + 1 takes.
      NamedBarrier(Barrier::kLoader, Shape::kLoaderThreads);
      if (t + 1 < tiles) loader.LoadRaw(t + 1, ring(t + 1));
      CopyAsyncCommit();
      wait_empty(t);
      loader.Decode(t, ring(t), stage(t));
      signal_full(t);
    }
  } else {
    for (int t = 0; t < kStages - 1; ++t) {
      if (t < tiles) loader.LoadStage(t, stage(t));
      CopyAsyncCommit();
    }
    for (int t = 0; t < tiles; ++t) {
      CopyAsyncWait<kStages - 2>();
      if ((t + 1) * Shape::kKeys > first_end) {
        const bool bad = loader.AnyNonFinite(stage(t));
        if (thread % kWarpLanes == 0) stage(t).Flags()[thread / kWarpLanes] = !bad;
      }
      signal_full(t);
      wait_empty(t + kStages - 1);
      if (t + kStages - 1 < tiles) loader.LoadStage(t + kStages - 1, stage(t + kStages - 1));
      CopyAsyncCommit();
    }
  }
  CopyAsyncWaitAll();
}

}  // namespace nibble::cuda
