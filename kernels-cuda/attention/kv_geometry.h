// SPDX-License-Identifier: Apache-2.0
//
// Where the parts of a cache lie (drawn in attention.h), as numbers that host and kernels share,
// and how a call's sequences are cut into work.
#pragma once

#include <cstdint>

#include "kernels-cuda/attention/sequence.h"

#if defined(__CUDACC__)
#define NIBBLE_SHARED_FUNCTION __host__ __device__ inline
#else
#define NIBBLE_SHARED_FUNCTION inline
#endif

namespace nibble::cuda {

// Tokens of a block: the rows of keys that one fragment of P V takes.
inline constexpr int kKvBlockRows = 16;

// Keys of a sequence, and rows of one (below) or heads of all tokens of a call, at most: so that
// kernels count them in 32 bits. Keys alone would take 32 GiB a head.
inline constexpr int64_t kMaxCount = int64_t{1} << 30;

// Plain data, a kernel parameter.
struct KvGeometry {
  int64_t data;       // bytes from the cache's start to its first block
  int32_t kv_heads;
  int32_t head_dim;
  int32_t groups;     // of scales in a head; 1 but for KV4
  int32_t group_dim;  // elements of a group
  int32_t row_bytes;  // of one token's keys, or values: a multiple of 16
  int32_t scale_bytes;  // of a block's key scales, or value scales: a multiple of 16
  int32_t block_bytes;  // 2 * (scale_bytes + 16 * row_bytes)
  int32_t layer;
  // 65536 / (group_dim / 16) + 1 where there are several groups: see GroupOf.
  uint32_t group_reciprocal;
};

// The group of an element below 256: (element / 16) / (group_dim / 16), where groups are multiples
// of 16 elements. The product is above the quotient by less than 16 / 65536, which does not reach
// the next whole number.
NIBBLE_SHARED_FUNCTION int GroupOf(int element, uint32_t reciprocal) {
  return static_cast<int>((static_cast<uint32_t>(element) / 16 * reciprocal) >> 16);
}

// The address of block 0 of a head.
NIBBLE_SHARED_FUNCTION uint64_t HeadAddress(const KvGeometry& g, const DeviceSequence& s,
                                            int64_t head) {
  const int64_t blocks = (s.capacity + kKvBlockRows - 1) / kKvBlockRows;
  return s.cache + static_cast<uint64_t>(
                       g.data + (g.layer * int64_t{g.kv_heads} + head) * blocks * g.block_bytes);
}

// The address of a layer's key factor; the value factor follows it.
NIBBLE_SHARED_FUNCTION uint64_t FactorAddress(const KvGeometry& g, const DeviceSequence& s) {
  return s.cache + static_cast<uint64_t>(g.layer) * 2 * sizeof(float);
}

// ---- the cut of a sequence into work; it depends on the sequence's own numbers alone, so that
// it has the same bits in any batch ----

// Rows of one tile of few rows: those of a fragment. A row is a (token, query head) of one kv
// head: row r is head r % heads of token r / heads.
inline constexpr int kTileRows = 16;
// Up to so many rows the keys are split over blocks of threads, and codes are decoded for each
// tile of 16 rows again; beyond, a block of threads decodes keys once for 64 to 128 rows.
inline constexpr int64_t kFewRows = 64;
// A range of keys is worth a block of threads from this size on, and a sequence has at most
// kMaxRanges of them, which bounds the states that wait for the merge.
inline constexpr uint32_t kMinRangeKeys = 128;
inline constexpr uint32_t kMaxRanges = 64;

NIBBLE_SHARED_FUNCTION bool HasFewRows(int64_t rows, int64_t heads) {
  return rows == 1 || rows * heads <= kFewRows;
}

// Keys of every range but the last: whole blocks. Counts from 0 to kMaxCount.
NIBBLE_SHARED_FUNCTION uint32_t RangeKeys(uint32_t keys) {
  constexpr uint32_t kLeast = kMinRangeKeys / kKvBlockRows, kMost = kMaxRanges * kKvBlockRows;
  const uint32_t even = (keys + (kMost - 1)) / kMost;
  return (even > kLeast ? even : kLeast) * kKvBlockRows;
}

NIBBLE_SHARED_FUNCTION uint32_t Ranges(uint32_t keys) {
  const uint32_t range = RangeKeys(keys);
  return (keys + range - 1) / range;
}

// The operands of the appending; plain data, a kernel parameter.
struct RopeParameters {
  KvGeometry kv;
  uint64_t sequences;  // DeviceSequence [count]
  uint64_t q, k, v;    // F32
  uint64_t angles;     // F32, or 0
  int64_t q_stride, k_stride, v_stride, angles_stride;
  int32_t rows;        // bound
  int32_t q_heads;
  int32_t count;
};

// The operands of attention; plain data, a kernel parameter.
struct AttentionParameters {
  KvGeometry kv;
  uint64_t sequences;  // DeviceSequence [count]
  uint64_t q;          // F32
  uint64_t y;          // F32
  uint64_t states;     // of ranges: F32 [slots][2], then [slots][head_dim]
  int64_t q_stride;
  int64_t y_stride;
  int64_t state_slots;
  int32_t count;
  int32_t heads;       // query heads of one kv head
  int32_t tiles;       // kernels of few rows: tiles a sequence may have
  int32_t ranges;      // and ranges of keys
  int32_t state_rows;  // rows of a sequence that may have states
  float log2_scale;    // the softmax scale times log2(e)
};

// The slot of a range's state: m and l at [slot][2], acc at [slot][head_dim].
NIBBLE_SHARED_FUNCTION int64_t StateSlot(const AttentionParameters& p, int64_t sequence,
                                         int64_t row, int64_t kv_head, int64_t range) {
  return ((sequence * p.state_rows + row) * p.kv.kv_heads + kv_head) * p.ranges + range;
}

}  // namespace nibble::cuda
