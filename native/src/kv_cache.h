// SPDX-License-Identifier: Apache-2.0
//
// The cache handle, and the batch of sequences of one call.
#pragma once

#include <atomic>
#include <vector>

#include "kernels-cpu/attention/kv_cache.h"
#include "native/src/context.h"

struct nb_kv_cache {
  nb_kv_cache(const nibble::KvCacheShape& shape, const float* key_factors,
              const float* value_factors)
      : cache(shape, key_factors, value_factors) {}

  nibble::KvCache cache;
  std::atomic<bool> in_use{false};  // a call works on it
};

namespace nibble::abi {

// The sequences of one call, checked: every cache is there, of one shape, not used twice and
// not used by another call at the same time; start and rows are in range. The caches count as
// in use until the object is destroyed. Belongs to the call that holds the context.
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

  const Sequence* sequences() const { return context_->sequences.data(); }
  int64_t rows() const { return rows_; }                // of all sequences
  const KvCacheShape* shape() const { return shape_; }  // null for an empty batch

 private:
  nb_status Lease(const char* function, const nb_sequence* sequences, int64_t index);

  nb_context* context_;
  std::vector<nb_kv_cache*>& leased() { return context_->leased; }
  const KvCacheShape* shape_ = nullptr;
  int64_t rows_ = 0;
};

// Checks start and rows of sequences whose caches do not matter, and fills
// context->sequences; *rows is the sum. The context must be held.
nb_status ReadPositions(const char* function, nb_context* context, const nb_sequence* sequences,
                        int32_t count, int64_t* rows);

}  // namespace nibble::abi
