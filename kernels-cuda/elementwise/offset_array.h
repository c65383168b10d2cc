// SPDX-License-Identifier: Apache-2.0
//
// For tests: an array in a device's memory behind `offset` unused elements, so that a test
// chooses the alignment; filled with a pattern, so that what a kernel should not touch shows.
#pragma once

#include <vector>

#include "kernels-cuda/testing/emulated_device.h"

namespace nibble::cuda {

inline constexpr uint8_t kUntouched = 0xA5;

template <class T>
class OffsetArray {
 public:
  OffsetArray(Device& device, size_t count, size_t offset = 0)
      : device_(device), array_(device, offset + count), offset_(offset) {
    const auto bytes = static_cast<int64_t>((offset + count) * sizeof(T));
    EXPECT_TRUE(Succeeded(device.Fill(array_.address(), kUntouched, bytes)));
  }
  OffsetArray(Device& device, const std::vector<T>& values, size_t offset = 0)
      : OffsetArray(device, values.size(), offset) {
    EXPECT_TRUE(Succeeded(device.CopyIn(get(), values.data(),
                                        static_cast<int64_t>(values.size() * sizeof(T)))));
  }

  DevicePtr get() const { return array_.at(offset_); }

  // Waits for the device.
  std::vector<T> Read() const {
    std::vector<T> values(array_.size() - offset_);
    EXPECT_TRUE(Succeeded(device_.CopyOut(values.data(), get(),
                                          static_cast<int64_t>(values.size() * sizeof(T)))));
    return values;
  }

 private:
  Device& device_;
  DeviceArray<T> array_;
  size_t offset_;
};

}  // namespace nibble::cuda
