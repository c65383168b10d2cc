// SPDX-License-Identifier: Apache-2.0
#include "native/src/context.h"

#include "native/src/device.h"
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
  NIBBLE_RETURN_IF_FAILED(CheckDevice(kFunction, device));
  if (threads < 0 || threads > kMaxThreads) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "threads"}, "%d but 0..%d was expected",
                   threads, kMaxThreads);
  }
  NIBBLE_RETURN_IF_FAILED(ApplySimdTarget(kFunction));
  *context = new nb_context(threads == 0 ? AvailableThreads() : threads);
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
  *bytes_per_second = MeasureReadBandwidth(context->workspace.pool(), buffer_bytes, repeats);
  return NB_OK;
}

}  // namespace

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
