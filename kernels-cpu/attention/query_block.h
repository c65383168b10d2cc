// SPDX-License-Identifier: Apache-2.0
//
// The unit of work of attention: a block of query rows of one sequence and kv head against
// a range of its keys. Layout, limits and precision: query_block.cc.
#pragma once

#include <cstdint>

#include "kernels-cpu/attention/kv_cache.h"

namespace nibble {

// The running state of online softmax over one block of rows, as FlashAttention has it, in
// powers of two. With scores s_j = q k_j * scale * log2(e) of the keys seen so far:
// m = max s_j, l = sum 2^(s_j - m), acc = sum 2^(s_j - m) v_j. No key seen: m = -infinity,
// l = 0, acc = 0.
struct SoftmaxState {
  float* max;  // [rows]
  float* sum;  // [rows]
  float* acc;  // [rows][padded_dim], 64-byte aligned
};

struct QueryBlock {
  const KvCache* cache;
  int layer;
  int64_t kv_head;
  const float* q;     // the first row's first query head of this kv head
  int64_t q_stride;   // elements from one token to the next
  int64_t heads;      // query heads that share the kv head
  int64_t tokens;     // rows = tokens * heads; row r is head r % heads of token r / heads
  int64_t position;   // of the first token
  int64_t key_begin;  // a multiple of kKvBlockTokens
  int64_t key_end;    // at most position + tokens
  float scale;        // softmax scale

  // What the thread will read after this block, to be fetched ahead: as many bytes as it
  // likes, or none.
  const uint8_t* next = nullptr;
  int64_t next_bytes = 0;

  int64_t rows() const { return tokens * heads; }
};

// Floats of scratch that AttendQueryBlock needs for blocks of up to this many rows (a
// multiple of 16, so that arrays laid one behind the other stay 64-byte aligned).
int64_t QueryBlockScratch(int64_t rows, int64_t padded_dim);

// Runs online softmax over the block's keys and writes its final state. scratch: 64-byte
// aligned, QueryBlockScratch floats. On the calling thread; allocates nothing.
void AttendQueryBlock(const QueryBlock& block, float* scratch, const SoftmaxState& state);

// Merges the states of consecutive key ranges, in their order, into row `row` of the
// result: y[0..head_dim) = softmax-weighted values. state(i) = states[i].
void MergeStates(const SoftmaxState* states, int64_t count, int64_t row, int64_t padded_dim,
                 int64_t head_dim, float* y);

}  // namespace nibble
