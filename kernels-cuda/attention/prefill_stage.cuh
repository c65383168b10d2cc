// SPDX-License-Identifier: Apache-2.0
//
// What loader and consumers of attention_prefill.cuh share: stages in shared memory, the barriers
// that hand them over, and the rows of a block of threads. Layouts are drawn there.
#pragma once

#include "kernels-cuda/attention/block_products.cuh"
#include "kernels-cuda/attention/row_tile.cuh"

namespace nibble::cuda {

// Named barriers; 0 is __syncthreads.
template <class Shape>
struct Barriers {
  static constexpr int kLoader = 1;
  static constexpr int kThreads = Shape::kLoaderThreads + kWarpLanes * Shape::kConsumerWarps;
  __device__ static int Full(int group, int stage) { return 2 + group * Shape::kStages + stage; }
  __device__ static int Empty(int group, int stage) {
    return 2 + (Shape::kConsumers + group) * Shape::kStages + stage;
  }
  static_assert(2 + 2 * Shape::kConsumers * Shape::kStages <= 16);
};

constexpr int Gcd8(int words) { return words % 8 == 0 ? 8 : words % 4 == 0 ? 4 : 2; }

// Where a 16-byte word of a row stands, for rows of kWords (even).
template <int kWords>
__device__ __forceinline__ int Swizzle(int row, int word) {
  constexpr int kPeriod = Gcd8(kWords);  // rows begin at multiples of this many of 8 places
  return word ^ (row / (8 / kPeriod) % kPeriod);
}

// The addresses of a lane's words 2 i + odd of one row, for ldmatrix. All that depends on the lane
// is in base and flip, so that only a few different sums of them exist.
template <int kWords>
struct RowWords {
  uint32_t base;
  uint32_t flip;

  __device__ __forceinline__ RowWords(uint32_t tile, int row, int row_bytes, int odd)
      : base(tile + row * row_bytes), flip((Swizzle<kWords>(row, 0) ^ odd) * 16) {}
  __device__ __forceinline__ uint32_t At(int i) const {
    constexpr int kPeriod = Gcd8(kWords);
    return base + 2 * i / kPeriod * kPeriod * 16 + (2 * i % kPeriod * 16 ^ flip);
  }
};

template <KvKind kKind, int kDim>
struct PrefillStage : PrefillShape<kKind, kDim> {
  using Shape = PrefillShape<kKind, kDim>;
  static constexpr bool kBytes = kKeysAreBytes<kKind>;
  static constexpr int kKeyRowBytes = kBytes ? kDim : 2 * kDim;
  static constexpr int kKeyWords = kKeyRowBytes / 16;
  static constexpr int kValueWords = 2 * kDim / 16;

  uint8_t* at;

  __device__ __forceinline__ RowWords<kKeyWords> KeyWords(int key, int odd) const {
    return {SharedAddress(at), key, kKeyRowBytes, odd};
  }
  __device__ __forceinline__ RowWords<kValueWords> ValueWords(int key, int odd) const {
    return {SharedAddress(at) + Shape::kTileBytes, key, 2 * kDim, odd};
  }
  __device__ __forceinline__ uint8_t* Key(int key, int word) const {
    return at + key * kKeyRowBytes + 16 * Swizzle<kKeyWords>(key, word);
  }
  __device__ __forceinline__ uint8_t* Value(int key, int word) const {
    return at + Shape::kTileBytes + key * 2 * kDim + 16 * Swizzle<kValueWords>(key, word);
  }
  __device__ __forceinline__ float* KeyFactors() const {
    return reinterpret_cast<float*>(at + 2 * Shape::kTileBytes);
  }
  __device__ __forceinline__ float* ValueFactors() const {
    return KeyFactors() + Shape::kMaxGroups * Shape::kKeys;
  }
  // KV16: [warp of the loader] 1 if all values that it looked at are finite.
  __device__ __forceinline__ uint32_t* Flags() const {
    return reinterpret_cast<uint32_t*>(at + 2 * Shape::kTileBytes + 4 * Shape::kFactors);
  }
};

// The rows of one block of threads.
struct PrefillTile {
  DeviceSequence sequence;
  int kv_head;
  int first;  // row of the sequence
  int rows;   // of the sequence
  int keys;   // that the last row sees

  __device__ __forceinline__ int RowEnd(int row, int heads) const {
    return static_cast<int>(sequence.start) + row / heads + 1;
  }
  // Stages of kKeys keys.
  template <int kKeys>
  __device__ __forceinline__ int Stages() const {
    return (keys + kKeys - 1) / kKeys;
  }
  // As RowTile's.
  __device__ __forceinline__ int RowAfter(int row, int heads) const {
    return row < rows ? row / heads - first / heads : kNoRow;
  }
};

// blockIdx.x = (tile of the batch, the last one first) * kv_heads + kv head: late tiles see the
// most keys, and those that start first should not be the short ones.
template <int kRows>
__device__ __forceinline__ bool FindPrefillTile(const AttentionParameters& p, PrefillTile* tile) {
  const int block = static_cast<int>(blockIdx.x);
  int number = p.tiles - 1 - block / p.kv.kv_heads;
  tile->kv_head = block % p.kv.kv_heads;
  const DeviceSequence* sequences = reinterpret_cast<const DeviceSequence*>(p.sequences);
#pragma unroll 1
  for (int i = 0; i < p.count; ++i) {
    const int tokens = static_cast<int>(sequences[i].rows), rows = tokens * p.heads;
    if (HasFewRows(tokens, p.heads)) continue;
    const int tiles = (rows + kRows - 1) / kRows;
    if (number >= tiles) {
      number -= tiles;
      continue;
    }
    tile->sequence = sequences[i];
    tile->first = number * kRows;
    tile->rows = rows;
    tile->keys = tile->RowEnd(min(tile->first + kRows, rows) - 1, p.heads);
    return true;
  }
  return false;
}

}  // namespace nibble::cuda
