// SPDX-License-Identifier: Apache-2.0
//
// How a batch of sequences is cut into tasks, and their results merged.
//
//   sequence -> query blocks of about 64 rows (tokens x heads of one kv head)
//            -> where those are few (decode), ranges of at least 512 keys
//   task     = (sequence, query block, kv head, key range)
//
// The cut depends on each sequence's own shape alone, never on the threads or on its
// neighbours in the batch; threads take tasks from a counter, and the states of key ranges
// merge in their order. So a sequence has the same bits for any number of threads and in
// any batch.
#include "kernels-cpu/attention/attention.h"

#include <algorithm>
#include <atomic>

#include "kernels-cpu/attention/query_block.h"

namespace nibble {
namespace {

// Rows of a query block: enough that decoding a block of keys (about 4 operations an
// element) is small beside using it (2 operations an element and row), few enough that
// queries, scores and accumulators of head size 64 to 128 stay in a 256 KiB L2 cache.
constexpr int64_t kBlockRows = 64;
// A key range is worth a task of its own from this size on; merging it costs as much as
// attending to about one key.
constexpr int64_t kMinRangeKeys = 512;
// A sequence is split by keys where it has fewer tasks than this, which would leave some
// threads of a large machine idle or unevenly loaded; into at most kMaxStates tasks, which
// bounds the memory of their states.
constexpr int64_t kSplitTasks = 64;
constexpr int64_t kMaxStates = 256;

// How one sequence is cut. All counts are of one call.
struct SequencePlan {
  int64_t first_row;     // of the sequence in q and y
  int64_t block_tokens;  // tokens of a query block (the last may have fewer)
  int64_t blocks;        // query blocks
  int64_t range_keys;    // keys of a range (the last has fewer)
  int64_t ranges;        // key ranges; 1: a task finishes its rows itself
  int64_t first_task;
  int64_t first_state;   // floats from the start of all states
};

SequencePlan PlanSequence(const Sequence& s, int64_t heads, int64_t kv_heads) {
  SequencePlan plan = {};
  plan.block_tokens = std::max<int64_t>(1, kBlockRows / heads);
  plan.blocks = DivUp(s.rows, plan.block_tokens);
  plan.block_tokens = std::min(plan.block_tokens, std::max<int64_t>(1, s.rows));
  const int64_t keys = s.start + s.rows;
  const int64_t tasks = plan.blocks * kv_heads;
  plan.range_keys = std::max<int64_t>(keys, 1);
  if (tasks > 0 && tasks < kSplitTasks) {
    const int64_t most_ranges = kMaxStates / tasks;
    plan.range_keys = RoundUp(DivUp(keys, most_ranges), kMinRangeKeys);
  }
  plan.ranges = DivUp(keys, plan.range_keys);
  return plan;
}

// Floats of one state of `rows` rows, laid out max, sum, acc; a multiple of 16.
int64_t StateFloats(int64_t rows, int64_t padded_dim) {
  return 2 * RoundUp(rows, 16) + rows * padded_dim;
}

SoftmaxState StateAt(float* floats, int64_t rows) {
  const int64_t padded_rows = RoundUp(rows, 16);
  return {floats, floats + padded_rows, floats + 2 * padded_rows};
}

// One call of Attention.
struct AttentionCall {
  int layer;
  const float* q;
  int64_t q_stride;
  int64_t heads;  // query heads of one kv head
  int64_t kv_heads, head_dim, padded_dim;
  float scale;
  float* y;
  int64_t y_stride;
  const Sequence* sequences;
  const SequencePlan* plans;
  float* states;

  // Rows of every full query block of a sequence.
  int64_t BlockRows(const SequencePlan& plan) const { return plan.block_tokens * heads; }

  SoftmaxState State(const SequencePlan& plan, int64_t item, int64_t range) const {
    const int64_t rows = BlockRows(plan);
    const int64_t index = item * plan.ranges + range;
    return StateAt(states + plan.first_state + index * StateFloats(rows, padded_dim), rows);
  }

  // Writes the rows of query block item / kv_heads and kv head item % kv_heads.
  void Finish(const Sequence& s, const SequencePlan& plan, int64_t item,
              const SoftmaxState* ranges, int64_t count) const {
    const int64_t first = item / kv_heads * plan.block_tokens;
    const int64_t tokens = std::min(plan.block_tokens, s.rows - first);
    for (int64_t row = 0; row < tokens * heads; ++row) {
      float* out = y + (plan.first_row + first + row / heads) * y_stride +
                   (item % kv_heads * heads + row % heads) * head_dim;
      MergeStates(ranges, count, row, padded_dim, head_dim, out);
    }
  }

  void RunTask(const Sequence& s, const SequencePlan& plan, int64_t task, float* scratch) const {
    // Late query blocks see the most keys: first, so that no thread ends on a long task.
    const int64_t items = plan.blocks * kv_heads;
    const int64_t item = items - 1 - task / plan.ranges;
    const int64_t range = task % plan.ranges;
    const int64_t first = item / kv_heads * plan.block_tokens;
    const int64_t kv_head = item % kv_heads;
    QueryBlock block;
    block.cache = s.cache;
    block.layer = layer;
    block.kv_head = kv_head;
    block.q = q + (plan.first_row + first) * q_stride + kv_head * heads * head_dim;
    block.q_stride = q_stride;
    block.heads = heads;
    block.tokens = std::min(plan.block_tokens, s.rows - first);
    block.position = s.start + first;
    block.key_begin = range * plan.range_keys;
    block.key_end = std::min(block.position + block.tokens, block.key_begin + plan.range_keys);
    block.scale = scale;
    if (plan.ranges > 1) {
      AttendQueryBlock(block, scratch, State(plan, item, range));
      return;
    }
    const int64_t rows = BlockRows(plan);
    const SoftmaxState state = StateAt(scratch, rows);
    AttendQueryBlock(block, scratch + StateFloats(rows, padded_dim), state);
    Finish(s, plan, item, &state, 1);
  }
};

}  // namespace

void Attention(Workspace& workspace, int layer, const float* q, int64_t q_stride, int64_t q_heads,
               float scale, const Sequence* sequences, int count, float* y, int64_t y_stride) {
  if (count == 0) return;
  const KvCacheShape& shape = sequences[0].cache->shape();
  const int64_t padded_dim = sequences[0].cache->layout().padded_dim;
  AttentionCall call = {layer,
                        q,
                        q_stride,
                        q_heads / shape.kv_heads,
                        shape.kv_heads,
                        shape.head_dim,
                        padded_dim,
                        scale,
                        y,
                        y_stride,
                        sequences,
                        nullptr,
                        nullptr};

  // Plans first (at the start of the shared scratch), then the states behind them.
  int64_t state_floats = 0, block_rows = 1;
  for (int i = 0; i < count; ++i) {
    const SequencePlan plan = PlanSequence(sequences[i], call.heads, call.kv_heads);
    block_rows = std::max(block_rows, call.BlockRows(plan));
    if (plan.ranges > 1) {
      state_floats += plan.blocks * call.kv_heads * plan.ranges *
                      StateFloats(call.BlockRows(plan), padded_dim);
    }
  }
  const size_t plan_bytes =
      static_cast<size_t>(RoundUp(count * static_cast<int64_t>(sizeof(SequencePlan)), 64));
  uint8_t* shared = workspace.Shared(plan_bytes + static_cast<size_t>(state_floats) * 4);
  SequencePlan* plans = reinterpret_cast<SequencePlan*>(shared);
  call.plans = plans;
  call.states = reinterpret_cast<float*>(shared + plan_bytes);
  int64_t rows = 0, tasks = 0, states = 0, split_items = 0;
  for (int i = 0; i < count; ++i) {
    SequencePlan& plan = plans[i] = PlanSequence(sequences[i], call.heads, call.kv_heads);
    const int64_t items = plan.blocks * call.kv_heads;
    plan.first_row = rows;
    plan.first_task = tasks;
    plan.first_state = states;
    rows += sequences[i].rows;
    tasks += items * plan.ranges;
    if (plan.ranges > 1) {
      states += items * plan.ranges * StateFloats(call.BlockRows(plan), padded_dim);
      split_items += items;
    }
  }
  if (rows == 0) return;
  workspace.ReservePerThread(static_cast<size_t>(StateFloats(block_rows, padded_dim) +
                                                 QueryBlockScratch(block_rows, padded_dim)) *
                             sizeof(float));

  std::atomic<int64_t> next_task{0};
  workspace.pool().Run([&](int thread) {
    float* scratch = reinterpret_cast<float*>(workspace.PerThread(thread));
    int i = 0;
    for (int64_t task; (task = next_task.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
      while (i + 1 < count && plans[i + 1].first_task <= task) ++i;  // tasks only grow
      call.RunTask(sequences[i], plans[i], task - plans[i].first_task, scratch);
    }
  });
  if (split_items == 0) return;

  workspace.pool().Run([&](int thread) {
    const Range share = Share(split_items, thread, workspace.threads());
    int64_t base = 0;
    SoftmaxState ranges[kMaxStates];
    for (int i = 0; i < count; ++i) {
      const SequencePlan& plan = plans[i];
      if (plan.ranges == 1) continue;
      const int64_t items = plan.blocks * call.kv_heads;
      const int64_t end = std::min(share.end, base + items);
      for (int64_t item = std::max(share.begin, base); item < end; ++item) {
        for (int64_t r = 0; r < plan.ranges; ++r) ranges[r] = call.State(plan, item - base, r);
        call.Finish(sequences[i], plan, item - base, ranges, plan.ranges);
      }
      base += items;
    }
  });
}

}  // namespace nibble
