// SPDX-License-Identifier: Apache-2.0
//
// The cache handle, and the batch of sequences of one call.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "kernels-cpu/attention/kv_cache.h"
#include "native/src/context.h"

struct nb_kv_cache {
  // The CPU's.
  nb_kv_cache(const nibble::KvCacheShape& cache_shape, const float* key_factors,
              const float* value_factors)
      : shape(cache_shape),
        device(nibble::abi::kCpu),
        cpu(std::make_unique<nibble::KvCache>(cache_shape, key_factors, value_factors)) {}
  // A CUDA device's; owns cuda_cache.
  nb_kv_cache(const nibble::KvCacheShape& cache_shape, int device_number,
              const nibble::cuda::Backend* table, nibble::cuda::BackendCache* cuda_cache)
      : shape(cache_shape),
        device(device_number),
        backend(table),
        cuda(cuda_cache),
        lengths(static_cast<size_t>(cache_shape.layers), 0) {}
  nb_kv_cache(const nb_kv_cache&) = delete;
  nb_kv_cache& operator=(const nb_kv_cache&) = delete;
  ~nb_kv_cache() {
    if (cuda != nullptr) backend->cache_destroy(cuda);
  }

  // Tokens held in a layer; the CPU's kernels keep their own count.
  int64_t length(int32_t layer) const {
    return cpu != nullptr ? cpu->length(layer) : lengths[static_cast<size_t>(layer)];
  }
  int64_t bytes() const { return cpu != nullptr ? cpu->bytes() : backend->cache_bytes(cuda); }

  const nibble::KvCacheShape shape;
  const int device;
  const std::unique_ptr<nibble::KvCache> cpu;
  const nibble::cuda::Backend* const backend = nullptr;
  nibble::cuda::BackendCache* const cuda = nullptr;
  std::vector<int64_t> lengths;
  std::atomic<bool> in_use{false};  // a call works on it
};

namespace nibble::abi {

// The sequences of one call, checked: every cache is there, of the context's device, of one
// shape, not used twice and not used by another call at the same time; start and rows are in
// range. The caches count as in use until the object is destroyed. Belongs to the call that
// holds the context, whose lists of sequences it fills. While the context records, positions are
// left to the launches, and the sequences must be those of the recording's other calls.
class Batch {
 public:
  // What the positions of a sequence must respect.
  enum class Positions {
    kAppend,  // start <= length(layer), start + rows <= capacity
    kAttend,  // start + rows <= length(layer)
  };

  explicit Batch(nb_context* context) : context_(context) {}
  ~Batch();
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  // Checks and leases. Only when it returns NB_OK may the getters be called.
  nb_status Open(const char* function, int32_t layer, const nb_sequence* sequences,
                 int32_t count, Positions positions);

  // The same for every layer that a graph uses, in the order of its calls (graph.cc).
  nb_status OpenForGraph(const char* function, const RecordedCalls& recorded,
                         const nb_sequence* sequences, int32_t count);

  int64_t rows() const { return rows_; }                // of all sequences
  const KvCacheShape* shape() const { return shape_; }  // null for an empty batch

 private:
  nb_status Lease(const char* function, const nb_sequence* sequences, int64_t index);

  nb_context* context_;
  std::vector<nb_kv_cache*>& leased() { return context_->leased; }
  const KvCacheShape* shape_ = nullptr;
  int64_t rows_ = 0;
};

// Checks start and rows of sequences whose caches do not matter, and fills the context's lists
// of sequences; *rows is the sum. The context must be held.
nb_status ReadPositions(const char* function, nb_context* context, const nb_sequence* sequences,
                        int32_t count, int64_t* rows);

// While the context records: that sequences are those of the recording's other calls, as far as
// both name caches; else nothing.
nb_status CheckRecordedBatch(const char* function, const nb_context* context,
                             const nb_sequence* sequences, int32_t count);
// Keeps what a call that is about to be recorded says about its sequences and its layer.
void KeepBatch(nb_context* context, const nb_sequence* sequences, int32_t count);
void KeepUse(nb_context* context, int32_t layer, Batch::Positions positions);

// After the plug-in has appended: sets what the leased caches hold of a layer.
void SetLengths(const nb_context& context, int32_t layer);

}  // namespace nibble::abi
