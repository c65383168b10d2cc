// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/plugin/context.h"

#include <algorithm>
#include <cstdio>

namespace nibble::cuda {

BackendContext::~BackendContext() {
  if (device == nullptr) return;
  // What the context still works on goes with its members.
  device->WaitForStream();
  shared->Leave(device.get());
}

// ----------------------------------------------------------------- operands --

namespace {

int64_t Bytes(const BackendView& view) { return view.rows * view.cols * view.element_bytes; }
bool Dense(const BackendView& view) { return view.rows <= 1 || view.stride == view.cols; }

}  // namespace

Arena& Operands::arena() {
  return context_.recording == nullptr ? *context_.arena : *context_.recording->arena;
}

Operands::Operands(BackendContext& context) : context_(context) {
  if (context_.recording == nullptr) {
    arena().Reset();
  } else {
    arena().Rewind();
  }
}

Status Operands::Take(int64_t bytes, DevicePtr* memory) { return arena().Take(bytes, memory); }

Status Operands::In(const BackendView& view, elementwise::Rows* rows) {
  *rows = {0, 0};
  if (view.data == nullptr) return Status();
  if (view.on_device) {
    *rows = {reinterpret_cast<DevicePtr>(view.data), view.stride};
    return Status();
  }
  NIBBLE_CUDA_RETURN_IF_FAILED(Take(Bytes(view), &rows->values));
  rows->stride = view.cols;
  if (Dense(view)) return device().CopyIn(rows->values, view.data, Bytes(view));
  const int64_t row_bytes = view.cols * view.element_bytes;
  rows_.resize(static_cast<size_t>(Bytes(view)));
  for (int64_t r = 0; r < view.rows; ++r) {
    std::memcpy(rows_.data() + r * row_bytes,
                static_cast<const uint8_t*>(view.data) + r * view.stride * view.element_bytes,
                static_cast<size_t>(row_bytes));
  }
  return device().CopyIn(rows->values, rows_.data(), Bytes(view));
}

Status Operands::Out(const BackendView& view, elementwise::Rows* rows) {
  if (view.on_device) {
    *rows = {reinterpret_cast<DevicePtr>(view.data), view.stride};
    return Status();
  }
  NIBBLE_CUDA_RETURN_IF_FAILED(Take(Bytes(view), &rows->values));
  rows->stride = view.cols;
  pending_.push_back({&view, rows->values});
  return Status();
}

Status Operands::InOut(const BackendView& view, elementwise::Rows* rows) {
  NIBBLE_CUDA_RETURN_IF_FAILED(In(view, rows));
  if (!view.on_device) pending_.push_back({&view, rows->values});
  return Status();
}

Status Operands::Finish() {
  for (const Pending& p : pending_) {
    const BackendView& view = *p.view;
    if (Dense(view)) {
      NIBBLE_CUDA_RETURN_IF_FAILED(device().CopyOut(view.data, p.memory, Bytes(view)));
      continue;
    }
    const int64_t row_bytes = view.cols * view.element_bytes;
    rows_.resize(static_cast<size_t>(Bytes(view)));
    NIBBLE_CUDA_RETURN_IF_FAILED(device().CopyOut(rows_.data(), p.memory, Bytes(view)));
    for (int64_t r = 0; r < view.rows; ++r) {
      std::memcpy(static_cast<uint8_t*>(view.data) + r * view.stride * view.element_bytes,
                  rows_.data() + r * row_bytes, static_cast<size_t>(row_bytes));
    }
  }
  return Status();
}

// ------------------------------------------------------------------- device --

namespace {

std::string Describe(const DeviceProperties& p) {
  char text[512];
  std::snprintf(text, sizeof(text),
                "%s, compute capability %d.%d, %d multiprocessors, %.1f GiB of memory",
                p.name.c_str(), p.capability / 10, p.capability % 10, p.multiprocessors,
                static_cast<double>(p.memory_bytes) / (1 << 30));
  return text;
}

const char* Targets() {
  static const std::string targets = [] {
    std::string names;
    for (const int target : {80, 89, 90, 120}) {
      const bool there = std::any_of(kModuleImages, kModuleImages + kModuleImageCount,
                                     [&](const ModuleImage& i) { return i.target == target; });
      if (!there) continue;
      if (!names.empty()) names += ' ';
      names += "sm_" + std::to_string(target) + (target >= 90 ? "a" : "");
    }
    return names;
  }();
  return targets.c_str();
}

nb_status DeviceStatus(int ordinal, char* description, int64_t description_bytes,
                       BackendError* error) {
  return Enter(error, [&] {
    std::shared_ptr<SharedDevice> device;
    NIBBLE_CUDA_RETURN_IF_FAILED(SharedDevice::Get(ordinal, &device));
    if (description == nullptr) return Status();
    const std::string line = Describe(device->properties());
    if (static_cast<int64_t>(line.size()) >= description_bytes) {
      return Status(NB_INVALID_ARGUMENT, "buffer_length: " + std::to_string(description_bytes) +
                                             " but at least " + std::to_string(line.size() + 1) +
                                             " was expected");
    }
    std::memcpy(description, line.c_str(), line.size() + 1);
    return Status();
  });
}

nb_status ContextOpen(int ordinal, BackendContext** context, BackendError* error) {
  *context = nullptr;
  return Enter(error, [&] {
    auto made = std::make_unique<BackendContext>();
    NIBBLE_CUDA_RETURN_IF_FAILED(SharedDevice::Get(ordinal, &made->shared));
    std::unique_ptr<Device> device;
    NIBBLE_CUDA_RETURN_IF_FAILED(Device::Open(made->shared->driver(), ordinal, &device));
    made->shared->Join(device.get());
    made->device = std::move(device);
    made->arena = std::make_unique<Arena>(made->shared);
    made->batch = std::make_unique<DeviceBatch>();
    *context = made.release();
    return Status();
  });
}

void ContextClose(BackendContext* context) { delete context; }

nb_status Synchronize(BackendContext* context, BackendError* error) {
  return Enter(error, [&] { return context->device->Synchronize(); });
}

nb_status MeasureBandwidth(BackendContext* context, int64_t buffer_bytes, int32_t repeats,
                           double* bytes_per_second, BackendError* error) {
  return Enter(error, [&] {
    return elementwise::MeasureCopyBandwidth(*context->device, buffer_bytes / 2 / 16 * 16,
                                             repeats, bytes_per_second);
  });
}

nb_status MemoryAllocate(BackendContext* context, int64_t bytes, BackendMemory** memory,
                         void** address, BackendError* error) {
  *memory = nullptr;
  return Enter(error, [&] {
    auto made = std::make_unique<BackendMemory>();
    NIBBLE_CUDA_RETURN_IF_FAILED(made->memory.Allocate(context->shared, bytes));
    *address = reinterpret_cast<void*>(made->memory.address());
    *memory = made.release();
    return Status();
  });
}

void MemoryFree(BackendMemory* memory) { delete memory; }

nb_status MemoryCopy(BackendContext* context, void* destination, bool destination_on_device,
                     const void* source, bool source_on_device, int64_t bytes,
                     BackendError* error) {
  return Enter(error, [&] {
    Device& device = *context->device;
    const auto to = reinterpret_cast<DevicePtr>(destination);
    const auto from = reinterpret_cast<DevicePtr>(source);
    if (destination_on_device && source_on_device) return device.CopyWithin(to, from, bytes);
    if (destination_on_device) return device.CopyIn(to, source, bytes);
    if (source_on_device) return device.CopyOut(destination, from, bytes);
    std::memcpy(destination, source, static_cast<size_t>(bytes));
    return Status();
  });
}

}  // namespace

void AddContextFunctions(Backend* table) {
  table->targets = Targets;
  table->device_status = DeviceStatus;
  table->context_open = ContextOpen;
  table->context_close = ContextClose;
  table->synchronize = Synchronize;
  table->measure_bandwidth = MeasureBandwidth;
  table->live_resources = Device::LiveResources;
  table->memory_allocate = MemoryAllocate;
  table->memory_free = MemoryFree;
  table->memory_copy = MemoryCopy;
}

}  // namespace nibble::cuda
