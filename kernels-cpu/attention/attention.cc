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
//
// Threads take runs of consecutive tasks, long ones first: consecutive ranges of keys lie
// behind each other in memory, so that a task's thread can fetch the next one's keys, while
// the short runs at the end even out what the threads have left. Who finishes the last range
// of a query block merges its states.
#include "kernels-cpu/attention/attention.h"

#include <algorithm>
#include <atomic>
#include <new>

#include "kernels-cpu/attention/query_block.h"

namespace nibble {
namespace {

// A call's tasks, handed out to its threads.
class TaskQueue {
 public:
  TaskQueue(int64_t tasks, int threads) : tasks_(tasks), threads_(threads) {}

  // The next run of tasks; empty when there are none left. A run is a quarter of a thread's
  // share of what is left: the first ones may be twice as long as others of the same length
  // (late query blocks of a prefill), and must still not be what all others wait for.
  Range Take() {
    int64_t begin = next_.load(std::memory_order_relaxed);
    for (;;) {
      const int64_t left = tasks_ - begin;
      if (left <= 0) return {begin, begin};
      const int64_t run = std::max<int64_t>(1, left / (4 * threads_));
      if (next_.compare_exchange_weak(begin, begin + run, std::memory_order_relaxed)) {
        return {begin, begin + run};
      }
    }
  }

 private:
  std::atomic<int64_t> next_{0};
  const int64_t tasks_;
  const int64_t threads_;
};

// Rows of a query block: enough that decoding a block of keys (about 4 operations an
// element) is small beside using it (2 operations an element and row), few enough that
// queries, scores and accumulators of head size 64 to 128 stay in a 256 KiB L2 cache.
constexpr int64_t kBlockRows = 64;
// A key range is worth a task of its own from this size on: rounding and packing the queries
// and merging the result again cost as much as attending to some 30 keys.
constexpr int64_t kMinRangeKeys = 1024;
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
  int64_t first_item;    // of the items (query block, kv head) of all sequences
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
  std::atomic<int32_t>* unfinished;  // [items] ranges that are not finished

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

  // The query block and keys of a task of a sequence.
  QueryBlock TaskBlock(const Sequence& s, const SequencePlan& plan, int64_t task) const {
    const int64_t item = TaskItem(plan, task), range = task % plan.ranges;
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
    return block;
  }

  // Late query blocks see the most keys: first, so that no thread ends on a long task.
  int64_t TaskItem(const SequencePlan& plan, int64_t task) const {
    return plan.blocks * kv_heads - 1 - task / plan.ranges;
  }

  // has_next: the same thread runs the sequence's next task.
  void RunTask(const Sequence& s, const SequencePlan& plan, int64_t task, bool has_next,
               float* scratch) const {
    QueryBlock block = TaskBlock(s, plan, task);
    if (has_next) {
      const QueryBlock next = TaskBlock(s, plan, task + 1);
      const int64_t block_bytes = s.cache->layout().bytes;
      const int64_t first = next.key_begin / kKvBlockTokens;
      block.next = s.cache->Blocks(layer, next.kv_head) + first * block_bytes;
      block.next_bytes = (DivUp(next.key_end, kKvBlockTokens) - first) * block_bytes;
    }
    const int64_t item = TaskItem(plan, task);
    if (plan.ranges == 1) {
      const int64_t rows = BlockRows(plan);
      const SoftmaxState state = StateAt(scratch, rows);
      AttendQueryBlock(block, scratch + StateFloats(rows, padded_dim), state);
      return Finish(s, plan, item, &state, 1);
    }
    AttendQueryBlock(block, scratch, State(plan, item, task % plan.ranges));
    // Releases this range's state, and acquires the others' where it is the last.
    if (unfinished[plan.first_item + item].fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    SoftmaxState ranges[kMaxStates];
    for (int64_t r = 0; r < plan.ranges; ++r) ranges[r] = State(plan, item, r);
    Finish(s, plan, item, ranges, plan.ranges);
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
                        nullptr,
                        nullptr};

  // Plans first (at the start of the shared scratch), the states and the counters behind them.
  int64_t state_floats = 0, block_rows = 1, items = 0;
  for (int i = 0; i < count; ++i) {
    const SequencePlan plan = PlanSequence(sequences[i], call.heads, call.kv_heads);
    block_rows = std::max(block_rows, call.BlockRows(plan));
    items += plan.blocks * call.kv_heads;
    if (plan.ranges > 1) {
      state_floats += plan.blocks * call.kv_heads * plan.ranges *
                      StateFloats(call.BlockRows(plan), padded_dim);
    }
  }
  using Counter = std::atomic<int32_t>;
  const size_t plan_bytes =
      static_cast<size_t>(RoundUp(count * static_cast<int64_t>(sizeof(SequencePlan)), 64));
  const size_t state_bytes = static_cast<size_t>(state_floats) * sizeof(float);
  uint8_t* shared = workspace.Shared(plan_bytes + state_bytes +
                                     static_cast<size_t>(items) * sizeof(Counter));
  SequencePlan* plans = reinterpret_cast<SequencePlan*>(shared);
  call.plans = plans;
  call.states = reinterpret_cast<float*>(shared + plan_bytes);
  call.unfinished = reinterpret_cast<Counter*>(shared + plan_bytes + state_bytes);
  int64_t rows = 0, tasks = 0, states = 0;
  items = 0;
  for (int i = 0; i < count; ++i) {
    SequencePlan& plan = plans[i] = PlanSequence(sequences[i], call.heads, call.kv_heads);
    const int64_t own = plan.blocks * call.kv_heads;
    plan.first_row = rows;
    plan.first_task = tasks;
    plan.first_state = states;
    plan.first_item = items;
    for (int64_t item = 0; item < own; ++item) {
      new (call.unfinished + items + item) Counter(static_cast<int32_t>(plan.ranges));
    }
    rows += sequences[i].rows;
    tasks += own * plan.ranges;
    items += own;
    if (plan.ranges > 1) {
      states += own * plan.ranges * StateFloats(call.BlockRows(plan), padded_dim);
    }
  }
  if (rows == 0) return;
  workspace.ReservePerThread(static_cast<size_t>(StateFloats(block_rows, padded_dim) +
                                                 QueryBlockScratch(block_rows, padded_dim)) *
                             sizeof(float));

  TaskQueue queue(tasks, workspace.threads());
  workspace.pool().Run([&](int thread) {
    float* scratch = reinterpret_cast<float*>(workspace.PerThread(thread));
    int i = 0;
    for (Range run; (run = queue.Take()).begin < run.end;) {
      for (int64_t task = run.begin; task < run.end; ++task) {
        while (i + 1 < count && plans[i + 1].first_task <= task) ++i;  // tasks only grow
        const int64_t last = i + 1 < count ? plans[i + 1].first_task : tasks;
        call.RunTask(sequences[i], plans[i], task - plans[i].first_task,
                     task + 1 < std::min(run.end, last), scratch);
      }
    }
  });
}

}  // namespace nibble
