// SPDX-License-Identifier: Apache-2.0
//
// Devices for the tests of CUDA kernels: emulated GPUs of every generation that Nibble has
// kernels for, and arrays on them.
//
//   for (int sm : nibble::cuda::kEmulatedGenerations) {
//     Device& device = EmulatedDevice(sm);
//     DeviceArray<float> x(device, host_vector);      // upload
//     DeviceArray<uint16_t> y(device, rows * cols);   // poisoned (0xFF bytes)
//     ... launch with x.address(), y.address() ...
//     EXPECT_EQ(y.Download(), expected);
//   }
//
// Whatever goes wrong in a helper here is a failure of the calling test that names the reason.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels-cuda/common/device.h"
#include "kernels-cuda/emulator/emulator.h"

namespace nibble::cuda {

inline constexpr int kEmulatedGenerations[] = {80, 89, 90, 120};

// The emulated device of that generation, one a process. Where an earlier test lost it (a kernel
// did something wrong), it is closed and opened anew; DeviceArrays from before are then invalid.
// The environment variable NIBBLE_TEST_SM limits tests to one generation: see Generations().
// NIBBLE_TEST_DEVICE=N puts this machine's GPU N in the place of them all (./nibble gpu-verify).
Device& EmulatedDevice(int sm);

// kEmulatedGenerations, or the one that NIBBLE_TEST_SM names.
std::vector<int> Generations();

// The seed of this run's random shapes and values: NIBBLE_TEST_SEED, or a fixed one; printed once
// so that a failure can be replayed. Every test should mix in something of its own.
uint64_t TestSeed();

// True (for EXPECT_TRUE), or false with the status's message.
::testing::AssertionResult Succeeded(const Status& status);

// An array in a device's memory, freed at the end of its life.
template <class T>
class DeviceArray {
 public:
  DeviceArray(Device& device, size_t count) : device_(&device), count_(count) {
    const Status status = device.Allocate(static_cast<int64_t>(count * sizeof(T)), &address_);
    EXPECT_TRUE(Succeeded(status));
  }
  DeviceArray(Device& device, const std::vector<T>& values) : DeviceArray(device, values.size()) {
    Upload(values);
  }
  DeviceArray(DeviceArray&& other) noexcept
      : device_(other.device_), count_(other.count_), address_(other.address_) {
    other.address_ = 0;
  }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(count_, other.count_);
    std::swap(address_, other.address_);
    return *this;
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { device_->Free(address_); }

  DevicePtr address() const { return address_; }
  // Of element i, which may be one past the end.
  DevicePtr at(size_t i) const { return address_ + i * sizeof(T); }
  size_t size() const { return count_; }

  void Upload(const std::vector<T>& values) {
    ASSERT_EQ(values.size(), count_);
    ASSERT_TRUE(Succeeded(
        device_->CopyIn(address_, values.data(), static_cast<int64_t>(count_ * sizeof(T)))));
  }
  // Waits for the device.
  std::vector<T> Download() const {
    std::vector<T> values(count_);
    EXPECT_TRUE(Succeeded(
        device_->CopyOut(values.data(), address_, static_cast<int64_t>(count_ * sizeof(T)))));
    return values;
  }

 private:
  Device* device_;
  size_t count_;
  DevicePtr address_ = 0;
};

}  // namespace nibble::cuda
