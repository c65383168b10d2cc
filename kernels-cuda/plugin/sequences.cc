// SPDX-License-Identifier: Apache-2.0
//
// Caches, rotation and attention over a batch of sequences.
#include <algorithm>

#include "kernels-cuda/plugin/context.h"

namespace nibble::cuda {

using attention::DeviceRows;
using attention::SequenceBatch;
using elementwise::Rows;

// -------------------------------------------------------------------- batch --

Status ReserveBatch(const std::shared_ptr<SharedDevice>& shared, int64_t count,
                    DeviceBatch* batch) {
  if (count <= batch->count) return Status();
  // A larger one replaces it; freeing waits for the kernels that still read it.
  const int64_t room = std::max(2 * batch->count, count);
  SharedMemory larger;
  NIBBLE_CUDA_RETURN_IF_FAILED(
      larger.Allocate(shared, room * static_cast<int64_t>(sizeof(DeviceSequence))));
  batch->memory.Swap(larger);
  batch->count = room;
  batch->sent.clear();
  return Status();
}

namespace {

bool Same(const DeviceSequence& a, const DeviceSequence& b) {
  return a.cache == b.cache && a.capacity == b.capacity && a.start == b.start &&
         a.rows == b.rows && a.first_row == b.first_row;
}

}  // namespace

Status SendSequences(Device& device, const BackendSequence* sequences, int32_t count,
                     DeviceBatch* batch) {
  std::vector<DeviceSequence> list;
  list.reserve(static_cast<size_t>(count));
  int64_t first_row = 0;
  for (int32_t i = 0; i < count; ++i) {
    const BackendSequence& s = sequences[i];
    const bool stored = s.cache != nullptr;  // rotation angles need no cache
    list.push_back({stored ? s.cache->memory.address() : 0,
                    stored ? s.cache->shape.capacity : s.start + s.rows, s.start, s.rows,
                    first_row});
    first_row += s.rows;
  }
  const std::vector<DeviceSequence>& sent = batch->sent;
  if (list.size() == sent.size() && std::equal(list.begin(), list.end(), sent.begin(), Same)) {
    return Status();
  }
  batch->sent.clear();  // in case the copy fails
  NIBBLE_CUDA_RETURN_IF_FAILED(
      device.CopyIn(batch->memory.address(), list.data(),
                    count * static_cast<int64_t>(sizeof(DeviceSequence))));
  batch->sent = std::move(list);
  return Status();
}

namespace {

// What the kernels of attention/ take: sent to the device, or, while a graph is recorded, where
// its launches will put it.
Status BringBatch(BackendContext& context, const BackendSequence* sequences, int32_t count,
                  SequenceBatch* out) {
  if (context.recording != nullptr) {
    *out = context.recording->bounds;
    return Status();
  }
  *out = {0, count, 0, 0, 0};
  for (int32_t i = 0; i < count; ++i) {
    const BackendSequence& s = sequences[i];
    out->total_rows += s.rows;
    out->max_rows = std::max(out->max_rows, s.rows);
    out->max_keys = std::max(out->max_keys, s.start + s.rows);
  }
  NIBBLE_CUDA_RETURN_IF_FAILED(ReserveBatch(context.shared, count, context.batch.get()));
  NIBBLE_CUDA_RETURN_IF_FAILED(
      SendSequences(*context.device, sequences, count, context.batch.get()));
  out->sequences = context.batch->memory.address();
  return Status();
}

DeviceRows AsRows(const Rows& rows) { return {rows.values, rows.stride}; }

// ------------------------------------------------------------------- caches --

nb_status CacheCreate(BackendContext* context, const KvCacheShape* shape,
                      const float* key_factors, const float* value_factors, BackendCache** cache,
                      BackendError* error) {
  *cache = nullptr;
  return Enter(error, [&] {
    const int64_t bytes = attention::KvCacheBytes(*shape);
    if (bytes < 0) return Status(NB_OUT_OF_MEMORY, "the cache's bytes do not fit in 63 bits");
    auto made = std::make_unique<BackendCache>();
    made->shape = *shape;
    NIBBLE_CUDA_RETURN_IF_FAILED(made->memory.Allocate(context->shared, bytes));
    NIBBLE_CUDA_RETURN_IF_FAILED(context->shared->Run([&](Device& device) {
      return attention::PrepareKvCache(device, *shape, key_factors, value_factors,
                                       made->memory.address());
    }));
    *cache = made.release();
    return Status();
  });
}

int64_t CacheBytes(const BackendCache* cache) { return cache->memory.bytes(); }

void CacheDestroy(BackendCache* cache) { delete cache; }

// ---------------------------------------------------------------- operators --

nb_status RopeAngles(BackendContext* context, const BackendView* inverse_frequencies,
                     const BackendSequence* sequences, int32_t count, const BackendView* angles,
                     BackendError* error) {
  return Enter(error, [&] {
    Operands operands(*context);
    Rows f, a;
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*inverse_frequencies, &f));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.Out(*angles, &a));
    SequenceBatch batch;
    NIBBLE_CUDA_RETURN_IF_FAILED(BringBatch(*context, sequences, count, &batch));
    NIBBLE_CUDA_RETURN_IF_FAILED(elementwise::RopeAngles(
        operands.device(), f.values, inverse_frequencies->cols, batch.sequences, batch.count,
        batch.total_rows, a));
    return operands.Finish();
  });
}

nb_status RopeAppend(BackendContext* context, int32_t layer, int64_t q_heads,
                     const BackendView* q, const BackendView* k, const BackendView* v,
                     const BackendView* angles, const BackendSequence* sequences, int32_t count,
                     BackendError* error) {
  return Enter(error, [&] {
    Operands operands(*context);
    Rows qr, kr, vr, ar;
    SequenceBatch batch;
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.InOut(*q, &qr));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*k, &kr));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*v, &vr));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*angles, &ar));
    NIBBLE_CUDA_RETURN_IF_FAILED(BringBatch(*context, sequences, count, &batch));
    NIBBLE_CUDA_RETURN_IF_FAILED(attention::RopeAppend(
        operands.device(), sequences[0].cache->shape, layer, q_heads, AsRows(qr), AsRows(kr),
        AsRows(vr), AsRows(ar), batch));
    return operands.Finish();
  });
}

nb_status Attention(BackendContext* context, int32_t layer, int64_t q_heads, const BackendView* q,
                    float scale, const BackendSequence* sequences, int32_t count,
                    const BackendView* output, BackendError* error) {
  return Enter(error, [&] {
    Operands operands(*context);
    const KvCacheShape& shape = sequences[0].cache->shape;
    Rows qr, y;
    SequenceBatch batch;
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*q, &qr));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.Out(*output, &y));
    NIBBLE_CUDA_RETURN_IF_FAILED(BringBatch(*context, sequences, count, &batch));
    Scratch scratch{0, attention::ScratchBytes(shape, q_heads, batch)};
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.Take(scratch.bytes, &scratch.memory));
    NIBBLE_CUDA_RETURN_IF_FAILED(attention::Attention(operands.device(), shape, layer, q_heads,
                                                      AsRows(qr), scale, AsRows(y), batch,
                                                      scratch));
    return operands.Finish();
  });
}

}  // namespace

void AddAttentionFunctions(Backend* table) {
  table->cache_create = CacheCreate;
  table->cache_bytes = CacheBytes;
  table->cache_destroy = CacheDestroy;
  table->rope_angles = RopeAngles;
  table->rope_append = RopeAppend;
  table->attention = Attention;
}

}  // namespace nibble::cuda
