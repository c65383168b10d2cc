// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/plugin/shared_device.h"

#include <algorithm>
#include <map>

namespace nibble::cuda {
namespace {

std::mutex table_mutex;

// Never destroyed: a handle may be closed after static objects are gone.
std::map<int, std::weak_ptr<SharedDevice>>& Table() {
  static auto* table = new std::map<int, std::weak_ptr<SharedDevice>>;
  return *table;
}

}  // namespace

Status SharedDevice::Get(int ordinal, std::shared_ptr<SharedDevice>* device) {
  const std::lock_guard<std::mutex> lock(table_mutex);
  std::weak_ptr<SharedDevice>& entry = Table()[ordinal];
  *device = entry.lock();
  if (*device != nullptr) return Status();
  const Driver* driver = nullptr;
  NIBBLE_CUDA_RETURN_IF_FAILED(OpenDriver(&driver));
  auto made = std::make_shared<SharedDevice>();
  NIBBLE_CUDA_RETURN_IF_FAILED(Device::Open(*driver, ordinal, &made->device_));
  entry = made;
  *device = std::move(made);
  return Status();
}

void SharedDevice::WaitForAll() {
  for (const Device* context : contexts_) context->WaitForStream();
}

Status SharedDevice::Allocate(int64_t bytes, DevicePtr* memory) {
  const std::lock_guard<std::recursive_mutex> lock(mutex_);
  return device_->Allocate(bytes, memory);
}

void SharedDevice::Free(DevicePtr memory) {
  if (memory == 0) return;
  const std::lock_guard<std::recursive_mutex> lock(mutex_);
  WaitForAll();
  device_->Free(memory);
}

Status SharedDevice::CopyIn(DevicePtr dst, const void* src, int64_t bytes) {
  return Run([&](Device& device) { return device.CopyIn(dst, src, bytes); });
}

Status SharedDevice::CopyOut(void* dst, DevicePtr src, int64_t bytes) {
  return Run([&](Device& device) { return device.CopyOut(dst, src, bytes); });
}

void SharedDevice::DestroyGraph(CUgraphExec graph) {
  const std::lock_guard<std::recursive_mutex> lock(mutex_);
  WaitForAll();
  device_->DestroyGraph(graph);
}

void SharedDevice::Join(const Device* context) {
  const std::lock_guard<std::recursive_mutex> lock(mutex_);
  contexts_.push_back(context);
}

void SharedDevice::Leave(const Device* context) {
  const std::lock_guard<std::recursive_mutex> lock(mutex_);
  contexts_.erase(std::find(contexts_.begin(), contexts_.end(), context));
}

}  // namespace nibble::cuda
