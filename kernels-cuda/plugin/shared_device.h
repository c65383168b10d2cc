// SPDX-License-Identifier: Apache-2.0
//
// What all contexts of one GPU in this process share: the owner of weights, caches and the
// caller's memory, which may outlive the context that they were made with.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "kernels-cuda/common/device.h"

namespace nibble::cuda {

class SharedDevice {
 public:
  // The one of this ordinal, opened if nothing holds it yet. Thread-safe, as all functions here.
  static Status Get(int ordinal, std::shared_ptr<SharedDevice>* device);

  int ordinal() const { return device_->ordinal(); }
  const DeviceProperties& properties() const { return device_->properties(); }
  const Driver& driver() const { return device_->driver(); }

  // Memory that any context of this device may use.
  Status Allocate(int64_t bytes, DevicePtr* memory);
  // Waits for all contexts first: a call that has returned may still be at work on the device.
  void Free(DevicePtr memory);
  Status CopyIn(DevicePtr dst, const void* src, int64_t bytes);  // waits until it is there
  Status CopyOut(void* dst, DevicePtr src, int64_t bytes);
  // Runs work on the device's own stream and waits for it.
  template <class Work>
  Status Run(const Work& work) {
    const std::lock_guard<std::recursive_mutex> lock(mutex_);
    NIBBLE_CUDA_RETURN_IF_FAILED(work(*device_));
    return device_->Synchronize();
  }
  void DestroyGraph(CUgraphExec graph);

  // A context's device: Free waits for it from Join to Leave.
  void Join(const Device* context);
  void Leave(const Device* context);

  // Held while a context records: waiting for its stream, as Free does, would spoil that. The
  // recording thread itself may still allocate.
  std::recursive_mutex& recording_mutex() { return mutex_; }

 private:
  void WaitForAll();  // mutex_ is held

  std::recursive_mutex mutex_;
  std::unique_ptr<Device> device_;
  std::vector<const Device*> contexts_;
};

// Device memory with an owner.
class SharedMemory {
 public:
  SharedMemory() = default;
  ~SharedMemory() {
    if (device_ != nullptr) device_->Free(address_);  // then lets go of the device
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // Once.
  Status Allocate(std::shared_ptr<SharedDevice> device, int64_t bytes) {
    NIBBLE_CUDA_RETURN_IF_FAILED(device->Allocate(bytes, &address_));
    device_ = std::move(device);
    bytes_ = bytes;
    return Status();
  }
  void Swap(SharedMemory& other) {
    std::swap(device_, other.device_);
    std::swap(address_, other.address_);
    std::swap(bytes_, other.bytes_);
  }
  DevicePtr address() const { return address_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<SharedDevice> device_;
  DevicePtr address_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace nibble::cuda
