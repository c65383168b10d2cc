// SPDX-License-Identifier: Apache-2.0
//
// A list of calls as one CUDA graph. Its kernels read positions from memory that belongs to the
// graph and that every launch writes first; all else in them is fixed.
#include <algorithm>

#include "kernels-cuda/plugin/context.h"

struct nibble::cuda::BackendGraph {
  explicit BackendGraph(const std::shared_ptr<SharedDevice>& device)
      : shared(device), arena(device) {}
  ~BackendGraph() { shared->DestroyGraph(graph); }
  BackendGraph(const BackendGraph&) = delete;
  BackendGraph& operator=(const BackendGraph&) = delete;

  std::shared_ptr<SharedDevice> shared;
  CUgraphExec graph = nullptr;
  Arena arena;
  // Written by launches, which one context makes, one at a time.
  mutable DeviceBatch batch;
};

namespace nibble::cuda {
namespace {

// Turns context->recording on for as long as it lives.
class RecordingScope {
 public:
  RecordingScope(BackendContext& context, Recording* recording) : context_(context) {
    context_.recording = recording;
  }
  ~RecordingScope() {
    context_.recording = nullptr;
    context_.device->AbandonRecording();  // nothing, once it has ended
  }
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;

 private:
  BackendContext& context_;
};

nb_status GraphRecord(BackendContext* context, const BackendSequence* sequences, int32_t count,
                      int64_t max_tokens, nb_status (*run)(void* argument, BackendError* error),
                      void* argument, BackendGraph** graph, BackendError* error) {
  *graph = nullptr;
  return Enter(error, [&] {
    auto made = std::make_unique<BackendGraph>(context->shared);
    attention::SequenceBatch bounds{0, count, 0, 0, max_tokens};
    for (int32_t i = 0; i < count; ++i) {
      bounds.total_rows += sequences[i].rows;
      bounds.max_rows = std::max(bounds.max_rows, sequences[i].rows);
    }
    NIBBLE_CUDA_RETURN_IF_FAILED(ReserveBatch(context->shared, count, &made->batch));
    bounds.sequences = made->batch.memory.address();
    Recording recording{&made->arena, bounds};
    Device& device = *context->device;
    const std::lock_guard<std::recursive_mutex> lock(context->shared->recording_mutex());
    const RecordingScope scope(*context, &recording);
    NIBBLE_CUDA_RETURN_IF_FAILED(device.BeginRecording());
    BackendError inner{};
    const nb_status status = run(argument, &inner);
    if (status != NB_OK) return Status(status, inner.text);
    NIBBLE_CUDA_RETURN_IF_FAILED(device.EndRecording(&made->graph));
    *graph = made.release();
    return Status();
  });
}

nb_status GraphLaunch(BackendContext* context, const BackendGraph* graph,
                      const BackendSequence* sequences, int32_t count, BackendError* error) {
  return Enter(error, [&] {
    Device& device = *context->device;
    if (count > 0) {
      NIBBLE_CUDA_RETURN_IF_FAILED(SendSequences(device, sequences, count, &graph->batch));
    }
    return device.LaunchGraph(graph->graph);
  });
}

void GraphDestroy(BackendGraph* graph) { delete graph; }

}  // namespace

void AddGraphFunctions(Backend* table) {
  table->graph_record = GraphRecord;
  table->graph_launch = GraphLaunch;
  table->graph_destroy = GraphDestroy;
}

}  // namespace nibble::cuda
