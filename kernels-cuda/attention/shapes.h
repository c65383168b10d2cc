// SPDX-License-Identifier: Apache-2.0
//
// Tile sizes and shared memory of the attention kernels: what host and kernels must agree on.
#pragma once

#include "kernels-cuda/attention/kv_geometry.h"

namespace nibble::cuda {

enum class KvKind { kI4, kI8, kBF16 };

// Of one block of threads; what every target can hold (sm_89 and sm_120 have 99 KiB).
inline constexpr int kMaxSharedBytes = 99 * 1024;

// The row of a token at kDim elements, in bytes.
constexpr int KvRowBytes(KvKind kind, int dim) {
  return kind == KvKind::kI4 ? dim / 2 : kind == KvKind::kI8 ? dim : 2 * dim;
}
// The scales of a block's keys, or values, at most.
constexpr int KvScaleBytes(KvKind kind, int dim) {
  return kind == KvKind::kI4   ? dim / 16 * kKvBlockRows
         : kind == KvKind::kI8 ? 4 * kKvBlockRows
                               : 0;
}

// ---- few rows: attention_decode.cuh ----

// One block of 16 keys in shared memory: block_products.cuh.
template <KvKind kKind, int kDim>
struct BlockShape {
  static constexpr bool kQuantized = kKind != KvKind::kBF16;
  static constexpr int kRowBytes = KvRowBytes(kKind, kDim);
  static constexpr int kStride = kRowBytes % 32 == 0 ? kRowBytes + 16 : kRowBytes;
  static constexpr int kScaleBytes = KvScaleBytes(kKind, kDim);
  static constexpr int kTileBytes = kKvBlockRows * kStride;
  static constexpr int kStageBytes = 2 * kScaleBytes + 2 * kTileBytes;
  static constexpr int kColumnTiles = kDim / 8;  // mma of P V
};

// Warps and stages: about 80 KiB of shared memory at most, and two or more blocks of threads on
// a multiprocessor where rows are short.
template <KvKind kKind, int kDim>
struct DecodeShape : BlockShape<kKind, kDim> {
  using Block = BlockShape<kKind, kDim>;
  static constexpr int kWarps = Block::kStageBytes > 12288 ? 2 : 4;  // 2: KV16 of 256
  static constexpr int kStages = Block::kStageBytes > 4864 ? 2 : 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRingBytes = kWarps * kStages * Block::kStageBytes;
  // The states of the warps at the end, in the same memory: acc [warp][16][kDim + 4].
  static constexpr int kStateStride = kDim + 4;
  static constexpr int kStateBytes = kWarps * kTileRows * kStateStride * 4;
  static constexpr int kLoopBytes = kRingBytes > kStateBytes ? kRingBytes : kStateBytes;
  // Queries of large heads: results of 256 take 128 registers alone.
  static constexpr bool kQueryInShared = kDim == 256;
  static constexpr int kQueryBytes = kQueryInShared ? kDim / 16 * 32 * 16 : 0;
  static constexpr int kSharedBytes = kLoopBytes + kQueryBytes;
  static_assert(kSharedBytes <= kMaxSharedBytes);
};

// ---- many rows: attention_prefill.cuh ----

template <KvKind kKind, int kDim>
struct PrefillShape {
  static constexpr bool kQuantized = kKind != KvKind::kBF16;
  static constexpr int kKeys = kDim == 256 ? 32 : 64;  // of a stage
  // Keys of one step of a consumer: scores of 64 keys would not fit in registers beside large
  // results.
  static constexpr int kStepKeys =
      kDim == 64 ? 64 : kDim == 256 || (kDim == 128 && kKind != KvKind::kI8) ? 16 : 32;
  static constexpr int kLoaderWarps = 4;
  static constexpr int kConsumers = 2;                       // groups of warps
  static constexpr int kConsumerWarps = kDim == 256 ? 2 : 4;  // of a group; 16 rows each
  static constexpr int kLoaderThreads = 32 * kLoaderWarps;
  static constexpr int kThreads = 32 * (kLoaderWarps + kConsumers * kConsumerWarps);
  static constexpr int kRows = kConsumers * kConsumerWarps * kTileRows;
  // A stage: keys and values in 16 bits (keys in 8 where E4M3 mma is used), and factors.
  static constexpr int kRowBytes = 2 * kDim;
  static constexpr int kTileBytes = kKeys * kRowBytes;
  static constexpr int kMaxGroups = kKind == KvKind::kI4 ? kDim / 16 : 1;
  static constexpr int kFactors = kQuantized ? (kMaxGroups + 1) * kKeys : 0;
  static constexpr int kFactorBytes = 4 * kFactors + 16;  // and one word of flags, padded
  static constexpr int kStageBytes = 2 * kTileBytes + kFactorBytes;
  static constexpr int kStages = kQuantized ? 2 : 3;
  // What the loader reads of the cache before it is decoded: blocks as they are.
  static constexpr int kRawBlockBytes =
      2 * KvScaleBytes(kKind, kDim) + 2 * kKvBlockRows * KvRowBytes(kKind, kDim);
  static constexpr int kRawBytes = kQuantized ? kKeys / kKvBlockRows * kRawBlockBytes : 0;
  static constexpr int kRawStages = 2;
  static constexpr int kSharedBytes = kStages * kStageBytes + kRawStages * kRawBytes;
  static_assert(kSharedBytes <= kMaxSharedBytes);
};

// ---- F32: attention_f32.cu ----

struct F32Shape {
  static constexpr int kMaxDim = 256;
  static constexpr int kStride = 4 * kMaxDim + 16;  // bytes of a key in shared memory
  static constexpr int kTileBytes = kKvBlockRows * kStride;
  static constexpr int kStageBytes = 2 * kTileBytes;
  static constexpr int kThreads = 128;
  static constexpr int kSharedBytes = 2 * kStageBytes;
};

inline constexpr int kRopeThreads = 128;
inline constexpr int kMergeThreads = 128;

}  // namespace nibble::cuda
