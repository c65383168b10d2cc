// SPDX-License-Identifier: Apache-2.0
//
// Zero-filled memory for packed weights, caches and scratch: anonymous pages straight
// from the system, so that each page is placed by the thread that first writes it, and
// on huge pages where the system gives them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace nibble {

class Buffer {
 public:
  Buffer() = default;
  // Aligned to at least 64 bytes. Throws std::bad_alloc. bytes may be 0.
  explicit Buffer(size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(mapped_, other.mapped_);
    return *this;
  }

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;
};

}  // namespace nibble
