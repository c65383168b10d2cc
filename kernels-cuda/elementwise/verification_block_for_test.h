// SPDX-License-Identifier: Apache-2.0
//
// Device memory and values for the cases of the mutation suite.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels-cuda/common/device.h"

namespace nibble::cuda::elementwise {

// Memory that is freed at the end; 0 where the device failed.
class Block {
 public:
  Block(Device& device, const void* from, size_t bytes) : device_(device) {
    ok_ = device.Allocate(static_cast<int64_t>(bytes), &memory_).ok() &&
          (from == nullptr ? device.Fill(memory_, 0xA5, static_cast<int64_t>(bytes))
                           : device.CopyIn(memory_, from, static_cast<int64_t>(bytes)))
              .ok();
  }
  template <class T>
  Block(Device& device, const std::vector<T>& values)
      : Block(device, values.data(), values.size() * sizeof(T)) {}
  ~Block() { device_.Free(memory_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  DevicePtr get() const { return memory_; }
  template <class T>
  bool Read(std::vector<T>* values, size_t count, size_t offset = 0) const {
    values->resize(count);
    return ok_ && device_.CopyOut(values->data(), memory_ + offset,
                                  static_cast<int64_t>(count * sizeof(T))).ok();
  }

 private:
  Device& device_;
  DevicePtr memory_ = 0;
  bool ok_;
};

// Values between -4 and 4 without a pattern that a wrong index would meet.
inline std::vector<float> Values(int64_t count, uint32_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) {
    seed = seed * 1664525u + 1013904223u;
    v = static_cast<float>(static_cast<int32_t>(seed)) * 0x1p-29f;
  }
  return values;
}

}  // namespace nibble::cuda::elementwise
