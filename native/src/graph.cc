// SPDX-License-Identifier: Apache-2.0
//
// Recording calls, and making them again.
#include "native/src/graph.h"

#include <algorithm>
#include <cstdio>

namespace nibble::abi {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 40;

nb_status Begin(nb_context* context, int64_t max_tokens) {
  constexpr char kFunction[] = "nb_graph_begin";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  if (max_tokens < 0 || max_tokens > kMaxTokens) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "max_tokens"},
                   "%lld but 0..2^40 was expected", static_cast<long long>(max_tokens));
  }
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  context->recording = std::make_unique<RecordedCalls>();
  context->recording->max_tokens = max_tokens;
  return NB_OK;
}

// Has the plug-in record the calls. The context is held and records no longer.
nb_status RecordOnDevice(const char* function, nb_context* context, nb_graph* graph) {
  context->cuda_sequences.clear();
  for (const nb_sequence& s : graph->recorded.batch) {
    const bool cached = s.cache != nullptr;
    context->cuda_sequences.push_back({cached ? s.cache->cuda : nullptr, s.start, s.rows});
  }
  struct Calls {
    nb_context* context;
    const std::vector<Work>* list;
  } calls{context, &graph->recorded.calls};
  const auto run = [](void* argument, cuda::BackendError* error) {
    const Calls& c = *static_cast<const Calls*>(argument);
    for (const Work& work : *c.list) {
      const nb_status status = work(*c.context);
      if (status == NB_OK) continue;
      std::snprintf(error->text, sizeof(error->text), "%s", LastMessage());
      return status;
    }
    return NB_OK;
  };
  return CallCuda(function, [&](cuda::BackendError* error) {
    const auto count = static_cast<int32_t>(context->cuda_sequences.size());
    return context->backend->graph_record(context->cuda, context->cuda_sequences.data(), count,
                                          graph->recorded.max_tokens, run, &calls, &graph->cuda,
                                          error);
  });
}

nb_status End(nb_context* context, nb_graph** graph) {
  constexpr char kFunction[] = "nb_graph_end";
  if (graph != nullptr) *graph = nullptr;
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  const Turn turn(context->lock);
  if (context->recording == nullptr) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "context"},
                   "not recording: nb_graph_begin was expected before");
  }
  const std::unique_ptr<RecordedCalls> recorded = std::move(context->recording);
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "graph"}, graph));
  auto made = std::make_unique<nb_graph>();
  made->context_id = context->id;
  made->device = context->device;
  made->backend = context->backend;
  made->recorded = std::move(*recorded);
  int64_t smallest = kMaxTokens;
  for (const nb_sequence& s : made->recorded.batch) {
    if (s.cache != nullptr) smallest = std::min(smallest, s.cache->shape.capacity);
  }
  int64_t& max_tokens = made->recorded.max_tokens;
  max_tokens = max_tokens == 0 ? smallest : std::min(max_tokens, smallest);
  if (context->cuda != nullptr) {
    NIBBLE_RETURN_IF_FAILED(RecordOnDevice(kFunction, context, made.get()));
    made->recorded.calls.clear();  // they are in the device's graph
  }
  *graph = made.release();
  return NB_OK;
}

nb_status Launch(nb_context* context, const nb_graph* graph, const nb_sequence* sequences,
                 int32_t count) {
  constexpr char kFunction[] = "nb_graph_launch";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "graph"}, graph));
  if (graph->context_id != context->id) {
    NIBBLE_RETURN_IF_FAILED(CheckSameDevice({kFunction, "graph"}, graph->device, context));
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "graph"},
                   "recorded by another context, but the one that recorded it was expected");
  }
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  Batch batch(context);
  NIBBLE_RETURN_IF_FAILED(batch.OpenForGraph(kFunction, graph->recorded, sequences, count));
  if (context->cuda == nullptr) {
    for (const Work& work : graph->recorded.calls) NIBBLE_RETURN_IF_FAILED(work(*context));
    return NB_OK;
  }
  NIBBLE_RETURN_IF_FAILED(CallCuda(kFunction, [&](cuda::BackendError* error) {
    return context->backend->graph_launch(context->cuda, graph->cuda,
                                          context->cuda_sequences.data(), count, error);
  }));
  for (const CacheUse& use : graph->recorded.uses) {
    if (use.positions == Batch::Positions::kAppend) SetLengths(*context, use.layer);
  }
  return NB_OK;
}

}  // namespace

void Record(nb_context* context, Work work) {
  context->recording->calls.push_back(std::move(work));
}

nb_status CheckNotRecording(const char* function, const nb_context* context) {
  if (context->recording == nullptr) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, {function, "context"},
                 "records a graph, of which this call cannot be part: nb_graph_end was expected "
                 "before");
}

}  // namespace nibble::abi

using namespace nibble::abi;

nb_status nb_graph_begin(nb_context* context, int64_t max_tokens) {
  return Guard("nb_graph_begin", [&] { return Begin(context, max_tokens); });
}

nb_status nb_graph_end(nb_context* context, nb_graph** graph) {
  return Guard("nb_graph_end", [&] { return End(context, graph); });
}

nb_status nb_graph_launch(nb_context* context, const nb_graph* graph,
                          const nb_sequence* sequences, int32_t count) {
  return Guard("nb_graph_launch", [&] { return Launch(context, graph, sequences, count); });
}

nb_status nb_graph_destroy(nb_graph* graph) {
  return Guard("nb_graph_destroy", [&] {
    delete graph;
    return NB_OK;
  });
}
