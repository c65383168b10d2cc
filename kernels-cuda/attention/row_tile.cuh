// SPDX-License-Identifier: Apache-2.0
//
// The work of one block of threads where a tile has 16 rows: which rows, which keys, and where
// the result goes.
//
//   blockIdx.x = ((sequence * kv_heads + kv head) * tiles + tile) * ranges + range
//
// Neighbours read neighbouring ranges of one head. The grid is made from bounds; blocks beyond
// what a sequence has end at once.
#pragma once

#include "kernels-cuda/attention/softmax.cuh"

namespace nibble::cuda {

// How many keys more than another a row sees that is not there: none at all.
inline constexpr int kNoRow = -static_cast<int>(kMaxCount);

struct RowTile {
  DeviceSequence sequence;
  int index;          // of the sequence in the batch
  int kv_head;
  int first;          // row of the sequence, as kv_geometry.h counts them
  int rows;           // of the tile, 1..16
  int key_begin, key_end;
  int first_row_end;  // the keys that every row sees: of its first row
  int range, ranges;
  int heads;

  // How many keys more than the tile's first row a row sees; of rows that are not there, none.
  __device__ __forceinline__ int RowAfter(int row) const {
    if (row >= rows) return kNoRow;
    return (first + row) / heads - first / heads;
  }
  __device__ __forceinline__ int Column(int row, int head_dim) const {
    return (kv_head * heads + (first + row) % heads) * head_dim;
  }
  __device__ __forceinline__ int64_t BatchRow(int row) const {
    return sequence.first_row + (first + row) / heads;
  }
  __device__ __forceinline__ const float* Query(const AttentionParameters& p, int row) const {
    if (row >= rows) return nullptr;
    return reinterpret_cast<const float*>(p.q) + BatchRow(row) * p.q_stride +
           Column(row, p.kv.head_dim);
  }
};

// Whether this block of threads has work; without it, what *tile holds means nothing. kFewOnly:
// sequences of many rows are another kernel's; else their keys are one range.
template <bool kFewOnly = true>
__device__ __forceinline__ bool FindTile(const AttentionParameters& p, RowTile* tile) {
  int index = static_cast<int>(blockIdx.x);
  tile->range = index % p.ranges;
  index /= p.ranges;
  const int number = index % p.tiles;
  index /= p.tiles;
  tile->kv_head = index % p.kv.kv_heads;
  tile->index = index / p.kv.kv_heads;
  tile->sequence = reinterpret_cast<const DeviceSequence*>(p.sequences)[tile->index];
  tile->heads = p.heads;
  const DeviceSequence& s = tile->sequence;
  const bool few = HasFewRows(s.rows, p.heads);
  const int start = static_cast<int>(s.start), tokens = static_cast<int>(s.rows);
  const int rows = tokens * p.heads;
  tile->first = number * kTileRows;
  tile->rows = min(rows - tile->first, kTileRows);
  const int keys = start + tokens;
  const bool cut = kFewOnly || few;  // into ranges
  const int range_keys = cut ? static_cast<int>(RangeKeys(keys)) : keys;
  tile->ranges = cut ? static_cast<int>(Ranges(keys)) : 1;
  tile->key_begin = tile->range * range_keys;
  const int last = start + (tile->first + tile->rows - 1) / p.heads + 1;
  // Rows of early tokens may see nothing of the last range: it then has no keys for this tile,
  // and its state says so.
  tile->key_end = max(tile->key_begin, min(last, tile->key_begin + range_keys));
  tile->first_row_end = start + tile->first / p.heads + 1;
  return (few || !kFewOnly) && tile->first < rows && tile->range < tile->ranges;
}

// Where one row's result goes: to the output where its keys are one range, else to its state.
// One warp, all lanes.
struct RowOutput {
  float* to;
  float divide;

  __device__ __forceinline__ RowOutput(const AttentionParameters& p, const RowTile& tile, int row,
                                       float max, float sum, int lane) {
    if (tile.ranges == 1) {
      to = reinterpret_cast<float*>(p.y) + tile.BatchRow(row) * p.y_stride +
           tile.Column(row, p.kv.head_dim);
      divide = sum;
      return;
    }
    const int64_t slot =
        StateSlot(p, tile.index, tile.first + row, tile.kv_head, tile.range);
    float* states = reinterpret_cast<float*>(p.states);
    if (lane == 0) {
      states[2 * slot] = max;
      states[2 * slot + 1] = sum;
    }
    to = states + 2 * p.state_slots + slot * p.kv.head_dim;
    divide = 1;
  }

  __device__ __forceinline__ void Store(int dimension, float acc) const {
    to[dimension] = __fdiv_rn(acc, divide);
  }
};

}  // namespace nibble::cuda
