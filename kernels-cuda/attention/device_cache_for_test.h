// SPDX-License-Identifier: Apache-2.0
//
// For tests: caches in the device's layout, made from the CPU's caches by the drawing in
// attention.h alone, and operands on the device.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "kernels-cpu/attention/attention_case.h"
#include "kernels-cpu/numerics/formats.h"
#include "kernels-cuda/attention/attention.h"

namespace nibble::cuda::attention {

// Device memory of T, freed at the end. Nothing here is a failure of gtest: see status().
template <class T>
class OnDevice {
 public:
  OnDevice(Device& device, const std::vector<T>& values) : device_(&device), size_(values.size()) {
    status_ = device.Allocate(Bytes(), &memory_);
    if (status_.ok() && size_ > 0) status_ = device.CopyIn(memory_, values.data(), Bytes());
  }
  ~OnDevice() { device_->Free(memory_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  const Status& status() const { return status_; }
  DevicePtr get() const { return memory_; }
  // Waits for the device; what it says, goes to *status.
  std::vector<T> Read(Status* status) const {
    std::vector<T> values(size_);
    *status = size_ == 0 ? Status() : device_->CopyOut(values.data(), memory_, Bytes());
    return values;
  }

 private:
  int64_t Bytes() const { return static_cast<int64_t>(size_ * sizeof(T)); }
  Device* device_;
  size_t size_;
  DevicePtr memory_ = 0;
  Status status_;
};

// Where things lie in a device cache.
struct DeviceLayout {
  explicit DeviceLayout(const KvCacheShape& s) : shape(s) {
    const int64_t bits =
        s.type == DType::kI4 ? 4 : s.type == DType::kI8 ? 8 : s.type == DType::kBF16 ? 16 : 32;
    groups = s.type == DType::kI4 ? s.head_dim / s.group_size : 1;
    row_bytes = RoundUp(DivUp(s.head_dim * bits, 8), 16);
    scale_bytes = s.type == DType::kI4 ? 16 * groups : s.type == DType::kI8 ? 64 : 0;
    block_bytes = 2 * (scale_bytes + 16 * row_bytes);
    head_bytes = DivUp(s.capacity, 16) * block_bytes;
    header = RoundUp(8 * s.layers, 256);
    total = header + s.layers * s.kv_heads * head_bytes;
  }
  int64_t Block(int64_t layer, int64_t head, int64_t token) const {
    return header + (layer * shape.kv_heads + head) * head_bytes + token / 16 * block_bytes;
  }
  KvCacheShape shape;
  int64_t groups, row_bytes, scale_bytes, block_bytes, head_bytes, header, total;
};

// The code of an element in a CPU cache.
inline uint32_t CpuCode(const KvCache& cache, int layer, int64_t head, int64_t token,
                        int64_t element, bool key) {
  const KvBlockLayout& layout = cache.layout();
  const DType type = cache.shape().type;
  const uint8_t* block = cache.Blocks(layer, head) + token / 16 * layout.bytes;
  if (key) return GetTileCode(type, block + layout.keys, token % 16, element);
  return GetTileCode(type, block + layout.values + element / 16 * TileBytes(type, 16),
                     element % 16, token % 16);
}

// Writes a CPU cache's first `tokens` tokens of a layer to a device cache's bytes, which keep
// whatever they hold elsewhere.
inline void PackLayer(const KvCache& cache, int layer, int64_t tokens, const DeviceLayout& at,
                      std::vector<uint8_t>* bytes) {
  const KvCacheShape& shape = cache.shape();
  const float factors[2] = {cache.key_factor(layer), cache.value_factor(layer)};
  std::memcpy(bytes->data() + 8 * layer, factors, sizeof(factors));
  for (int64_t head = 0; head < shape.kv_heads; ++head) {
    for (int64_t token = 0; token < tokens; ++token) {
      uint8_t* block = bytes->data() + at.Block(layer, head, token);
      const uint8_t* source =
          cache.Blocks(layer, head) + token / 16 * cache.layout().bytes;
      for (const bool key : {true, false}) {
        uint8_t* scales = block + (key ? 0 : at.scale_bytes);
        const uint8_t* source_scales =
            source + (key ? cache.layout().key_scales : cache.layout().value_scales);
        if (shape.type == DType::kI4) {
          for (int64_t g = 0; g < at.groups; ++g) {
            scales[g * 16 + token % 16] = source_scales[g * 16 + token % 16];
          }
        } else if (shape.type == DType::kI8) {
          std::memcpy(scales + 4 * (token % 16), source_scales + 4 * (token % 16), 4);
        }
        uint8_t* row = block + 2 * at.scale_bytes + (token % 16 + (key ? 0 : 16)) * at.row_bytes;
        std::memset(row, 0, static_cast<size_t>(at.row_bytes));
        for (int64_t i = 0; i < shape.head_dim; ++i) {
          const uint32_t code = CpuCode(cache, layer, head, token, i, key);
          switch (shape.type) {
            case DType::kI4: {
              const int64_t nibble = i % 8 / 2 + i % 2 * 4;
              row[i / 8 * 4 + nibble / 2] |=
                  static_cast<uint8_t>((code & 15) << (4 * (nibble % 2)));
              break;
            }
            case DType::kI8: row[i] = static_cast<uint8_t>(code); break;
            case DType::kBF16: std::memcpy(row + 2 * i, &code, 2); break;
            default: std::memcpy(row + 4 * i, &code, 4);
          }
        }
      }
    }
  }
}

}  // namespace nibble::cuda::attention
