// SPDX-License-Identifier: Apache-2.0
//
// The driver's functions for graphs and events, and the tables made of all functions.

#include "kernels-cuda/emulator/driver_api.h"

using namespace nibble::cuda::emulator;  // the functions below are C's

extern "C" {

CUresult CUDAAPI cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
  const auto lock = Lock();
  if (stream == nullptr) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream->capturing) return CUDA_ERROR_ILLEGAL_STATE;
  if (stream->context->lost != CUDA_SUCCESS) return stream->context->lost;
  stream->capturing = true;
  stream->capture_broken = false;
  stream->capture_mode = mode;
  stream->captured.clear();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  const auto lock = Lock();
  *graph = nullptr;
  if (stream == nullptr || !stream->capturing) return CUDA_ERROR_ILLEGAL_STATE;
  stream->capturing = false;
  if (stream->capture_broken) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  *graph = new CUgraph_st{std::move(stream->captured)};
  stream->captured.clear();
  ++live_objects;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph,
                                             unsigned long long) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *executable = new CUgraphExec_st{context, graph->operations};
  ++live_objects;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphLaunch(CUgraphExec executable, CUstream stream) {
  const auto lock = Lock();
  if (executable == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (const Operation& operation : executable->operations) {
    const CUresult result = Enqueue(stream, operation);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphDestroy(CUgraph graph) {
  const auto lock = Lock();
  if (graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  delete graph;
  --live_objects;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec executable) {
  const auto lock = Lock();
  if (executable == nullptr) return CUDA_ERROR_INVALID_VALUE;
  delete executable;
  --live_objects;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventCreate(CUevent* event, unsigned) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *event = new CUevent_st{};
  (*event)->context = context;
  ++live_objects;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventDestroy_v2(CUevent event) {
  const auto lock = Lock();
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (event->stream != nullptr && !event->done) Flush(event->stream);
  delete event;
  --live_objects;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventRecord(CUevent event, CUstream stream) {
  const auto lock = Lock();
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (stream != nullptr && stream->capturing) return BreakCapture(stream, "cuEventRecord");
  event->stream = stream;
  event->recorded = true;
  event->done = false;
  return Enqueue(stream, [event] {
    event->when = std::chrono::steady_clock::now();
    event->done = true;
    return CUDA_SUCCESS;
  });
}

CUresult CUDAAPI cuEventSynchronize(CUevent event) {
  const auto lock = Lock();
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!event->recorded || event->done || event->stream == nullptr) return event->context->lost;
  return Flush(event->stream);
}

CUresult CUDAAPI cuEventElapsedTime(float* milliseconds, CUevent begin, CUevent end) {
  const auto lock = Lock();
  if (begin == nullptr || end == nullptr || !begin->recorded || !end->recorded)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!begin->done || !end->done) return CUDA_ERROR_NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(end->when - begin->when).count();
  return CUDA_SUCCESS;
}

}  // extern "C"

namespace nibble::cuda::emulator {

namespace {

template <int kGeneration>
CUresult CUDAAPI GetDevice(CUdevice* device, int ordinal) {
  if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
  *device = kGeneration;
  return CUDA_SUCCESS;
}

Driver MakeDriver(decltype(&::cuDeviceGet) get_device) {
  Driver driver;
#define NIBBLE_EMULATOR_FILL(name) driver.name = &::name;
  NIBBLE_CUDA_DRIVER_FUNCTIONS(NIBBLE_EMULATOR_FILL)
#undef NIBBLE_EMULATOR_FILL
  driver.cuDeviceGet = get_device;
  return driver;
}

}  // namespace

const Driver& EmulatedDriver(int sm, bool second_board) {
  static const Driver kAmpere = MakeDriver(GetDevice<80>),
                      kAmpere2 = MakeDriver(GetDevice<80 + kSecondBoard>);
  static const Driver kAda = MakeDriver(GetDevice<89>),
                      kAda2 = MakeDriver(GetDevice<89 + kSecondBoard>);
  static const Driver kHopper = MakeDriver(GetDevice<90>),
                      kHopper2 = MakeDriver(GetDevice<90 + kSecondBoard>);
  static const Driver kBlackwell = MakeDriver(GetDevice<120>),
                      kBlackwell2 = MakeDriver(GetDevice<120 + kSecondBoard>);
  switch (sm) {
    case 80:
      return second_board ? kAmpere2 : kAmpere;
    case 90:
      return second_board ? kHopper2 : kHopper;
    case 120:
      return second_board ? kBlackwell2 : kBlackwell;
    default:
      return second_board ? kAda2 : kAda;
  }
}

}  // namespace nibble::cuda::emulator

// CUDA 13's header renames this one by a macro, but drivers keep the old name too, under which
// Nibble looks it up.
#undef cuEventElapsedTime
extern "C" CUresult CUDAAPI cuEventElapsedTime(float* milliseconds, CUevent begin, CUevent end) {
  return cuEventElapsedTime_v2(milliseconds, begin, end);
}
