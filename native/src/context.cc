// SPDX-License-Identifier: Apache-2.0
#include "native/src/context.h"

#include <atomic>

#include "native/src/graph.h"
#include "native/src/read_bandwidth.h"
#include "native/src/simd_target.h"

namespace {

using namespace nibble;
using namespace nibble::abi;

constexpr int32_t kMaxThreads = 1024;
constexpr int64_t kMinBandwidthBytes = int64_t{1} << 20;
constexpr int32_t kMaxBandwidthRepeats = 1000;

nb_status CreateContext(const char* device, int32_t threads, nb_context** context) {
  constexpr char kFunction[] = "nb_context_create";
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "context"}, context));
  *context = nullptr;
  int number = kCpu;
  NIBBLE_RETURN_IF_FAILED(ParseDevice(kFunction, device, &number));
  if (threads < 0 || threads > kMaxThreads) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "threads"}, "%d but 0..%d was expected",
                   threads, kMaxThreads);
  }
  NIBBLE_RETURN_IF_FAILED(ApplySimdTarget(kFunction));
  const int count = threads == 0 ? AvailableThreads() : threads;
  if (number == kCpu) {
    *context = new nb_context(count);
    return NB_OK;
  }
  const std::string prefix = std::string(kFunction) + ": device: \"" + device +
                             "\" cannot be used";
  const cuda::Backend* backend = nullptr;
  NIBBLE_RETURN_IF_FAILED(OpenCuda(prefix.c_str(), &backend));
  cuda::BackendContext* opened = nullptr;
  NIBBLE_RETURN_IF_FAILED(CallCuda(prefix.c_str(), [&](cuda::BackendError* error) {
    return backend->context_open(number, &opened, error);
  }));
  try {
    *context = new nb_context(count, number, backend, opened);
  } catch (...) {
    backend->context_close(opened);
    throw;
  }
  return NB_OK;
}

nb_status MeasureBandwidth(nb_context* context, int64_t buffer_bytes, int32_t repeats,
                           double* bytes_per_second) {
  constexpr char kFunction[] = "nb_measure_read_bandwidth";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "bytes_per_second"}, bytes_per_second));
  if (buffer_bytes < kMinBandwidthBytes) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "buffer_bytes"},
                   "%lld but at least %lld was expected", static_cast<long long>(buffer_bytes),
                   static_cast<long long>(kMinBandwidthBytes));
  }
  if (repeats < 1 || repeats > kMaxBandwidthRepeats) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "repeats"}, "%d but 1..%d was expected",
                   repeats, kMaxBandwidthRepeats);
  }
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  if (context->cuda != nullptr) {
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return context->backend->measure_bandwidth(context->cuda, buffer_bytes, repeats,
                                                 bytes_per_second, error);
    });
  }
  *bytes_per_second = MeasureReadBandwidth(context->workspace.pool(), buffer_bytes, repeats);
  return NB_OK;
}

uint64_t NextContextId() {
  static std::atomic<uint64_t> next{1};
  return next++;
}

}  // namespace

nb_context::nb_context(int threads, int device_number, const cuda::Backend* table,
                       cuda::BackendContext* opened)
    : device(device_number), backend(table), cuda(opened), id(NextContextId()),
      workspace(threads) {}

nb_context::~nb_context() {
  if (cuda != nullptr) backend->context_close(cuda);
}

nb_status nb_synchronize(nb_context* context) {
  constexpr char kFunction[] = "nb_synchronize";
  return Guard(kFunction, [&] {
    NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
    const Turn turn(context->lock);
    NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
    if (context->cuda == nullptr) return NB_OK;
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return context->backend->synchronize(context->cuda, error);
    });
  });
}

nb_status nb_context_create(const char* device, int32_t threads, nb_context** context) {
  return Guard("nb_context_create", [&] { return CreateContext(device, threads, context); });
}

nb_status nb_context_destroy(nb_context* context) {
  return Guard("nb_context_destroy", [&] {
    delete context;
    return NB_OK;
  });
}

int32_t nb_context_threads(const nb_context* context) {
  return context == nullptr ? 0 : context->workspace.threads();
}

nb_status nb_measure_read_bandwidth(nb_context* context, int64_t buffer_bytes, int32_t repeats,
                                    double* bytes_per_second) {
  return Guard("nb_measure_read_bandwidth", [&] {
    return MeasureBandwidth(context, buffer_bytes, repeats, bytes_per_second);
  });
}
