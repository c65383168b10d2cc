// SPDX-License-Identifier: Apache-2.0
//
// A context: a device, worker threads, scratch memory, and the lock that makes calls take turns.
//
// A process that forks keeps the contexts of the parent's side only: worker threads do not
// exist in the child, which must make contexts of its own and never touch inherited ones.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels-cpu/attention/attention.h"
#include "kernels-cpu/threads/workspace.h"
#include "native/src/checks.h"
#include "native/src/device.h"
#include "native/src/fifo_lock.h"

namespace nibble::abi {
struct RecordedCalls;
}

struct nb_context {
  // device other than kCpu: backend and cuda are given, and the context owns cuda.
  explicit nb_context(int threads, int device = nibble::abi::kCpu,
                      const nibble::cuda::Backend* backend = nullptr,
                      nibble::cuda::BackendContext* cuda = nullptr);
  ~nb_context();

  const int device;
  const nibble::cuda::Backend* const backend;
  nibble::cuda::BackendContext* const cuda;
  const uint64_t id;  // of no other context of this process, ever

  nibble::abi::FifoLock lock;
  // All that follows belongs to the call that holds the lock.
  nibble::Workspace workspace;
  // The batch of the current call, for the CPU's kernels and for the plug-in, and the caches that
  // this call has marked as in use.
  std::vector<nibble::Sequence> sequences;
  std::vector<nibble::cuda::BackendSequence> cuda_sequences;
  std::vector<nb_kv_cache*> leased;
  // Between nb_graph_begin and nb_graph_end.
  std::unique_ptr<nibble::abi::RecordedCalls> recording;
};

namespace nibble::abi {

// Holds the context for one call: first come, first served.
using Turn = std::lock_guard<FifoLock>;

// The part of a call that computes, behind all checks: it owns copies of what it needs, since it
// may run later, and again, as part of a graph. What differs from run to run is the context's
// batch of sequences.
using Work = std::function<nb_status(nb_context&)>;

void Record(nb_context* context, Work work);

// Runs work, or records it. The context is held.
template <class Body>
nb_status Submit(nb_context* context, const Body& work) {
  if (context->recording == nullptr) return work(*context);
  Record(context, work);
  return NB_OK;
}

inline nb_status CheckContext(const char* function, const nb_context* context) {
  if (context != nullptr) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, {function, "context"}, "NULL but a context was expected");
}

// For functions that cannot be part of a graph. The context is held.
nb_status CheckNotRecording(const char* function, const nb_context* context);

// That what was made with a context of `device` is used with one of the same.
inline nb_status CheckSameDevice(const Arg& arg, int device, const nb_context* context) {
  if (device == context->device) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, arg, "of %s but of %s, as the context, was expected",
                 DeviceName(device).c_str(), DeviceName(context->device).c_str());
}

// The plug-in's form of a checked tensor; of none for a default View.
inline cuda::BackendView CudaView(const View& v) {
  return {v.data, v.rows, v.cols, v.stride, v.element_bytes, v.on_device};
}
inline cuda::BackendNorm CudaNorm(const View& weight, float epsilon) {
  return {CudaView(weight), epsilon};
}

}  // namespace nibble::abi
