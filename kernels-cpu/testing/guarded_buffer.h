// SPDX-License-Identifier: Apache-2.0
//
// For tests: a typed array that ends flush against an inaccessible page.
#pragma once

#include <cstddef>
#include <cstring>
#include <vector>

#include "kernels-cpu/testing/guarded_array.h"

namespace nibble {

template <class T>
class GuardedBuffer {
 public:
  // count zeroed elements (may be 0). The address is aligned to sizeof(T) only, whatever
  // count is: alignment that a kernel needs must not come from here by luck.
  explicit GuardedBuffer(size_t count) : count_(count), array_(count * sizeof(T), Flush::kEnd) {
    if (count > 0) std::memset(array_.data(), 0, array_.size());
  }
  explicit GuardedBuffer(const std::vector<T>& values) : GuardedBuffer(values.size()) {
    if (!values.empty()) std::memcpy(array_.data(), values.data(), array_.size());
  }

  T* data() const { return array_.as<T>(); }
  size_t size() const { return count_; }
  T* begin() const { return data(); }
  T* end() const { return data() + count_; }
  T& operator[](size_t i) const { return data()[i]; }

 private:
  size_t count_;
  GuardedArray array_;
};

}  // namespace nibble
