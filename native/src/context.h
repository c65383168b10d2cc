// SPDX-License-Identifier: Apache-2.0
//
// A context: worker threads, scratch memory, and the lock that makes calls take turns.
//
// A process that forks keeps the contexts of the parent's side only: worker threads do not
// exist in the child, which must make contexts of its own and never touch inherited ones.
#pragma once

#include <mutex>
#include <vector>

#include "kernels-cpu/attention/attention.h"
#include "kernels-cpu/threads/workspace.h"
#include "native/src/checks.h"
#include "native/src/fifo_lock.h"

struct nb_context {
  explicit nb_context(int threads) : workspace(threads) {}

  nibble::abi::FifoLock lock;
  // All that follows belongs to the call that holds the lock.
  nibble::Workspace workspace;
  std::vector<nibble::Sequence> sequences;  // the batch of the current call
  std::vector<nb_kv_cache*> leased;         // the caches that this call has marked as in use
};

namespace nibble::abi {

// Holds the context for one call: first come, first served.
using Turn = std::lock_guard<FifoLock>;

inline nb_status CheckContext(const char* function, const nb_context* context) {
  if (context != nullptr) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, {function, "context"}, "NULL but a context was expected");
}

}  // namespace nibble::abi
