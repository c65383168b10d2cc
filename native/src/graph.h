// SPDX-License-Identifier: Apache-2.0
//
// Recorded calls.
#pragma once

#include "native/src/kv_cache.h"

namespace nibble::abi {

// A call that uses the batch's caches: what its positions must respect.
struct CacheUse {
  int32_t layer;
  Batch::Positions positions;
};

struct RecordedCalls {
  int64_t max_tokens = 0;  // as nb_graph_begin was given it
  std::vector<Work> calls;
  std::vector<CacheUse> uses;  // in the order of the calls
  bool has_batch = false;
  std::vector<nb_sequence> batch;  // the sequences that all calls had; caches may be null
};

}  // namespace nibble::abi

struct nb_graph {
  uint64_t context_id = 0;
  int device = nibble::abi::kCpu;
  nibble::abi::RecordedCalls recorded;  // its calls: on the CPU alone
  const nibble::cuda::Backend* backend = nullptr;
  nibble::cuda::BackendGraph* cuda = nullptr;

  nb_graph() = default;
  nb_graph(const nb_graph&) = delete;
  nb_graph& operator=(const nb_graph&) = delete;
  ~nb_graph() {
    if (cuda != nullptr) backend->graph_destroy(cuda);
  }
};
