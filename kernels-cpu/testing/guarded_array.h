// SPDX-License-Identifier: Apache-2.0
//
// For tests: memory between two inaccessible pages, flush against one of them, so that
// touching one byte past that end crashes at once.
//
//   Flush::kEnd     | no access | unused .... | bytes | no access |
//   Flush::kStart   | no access | bytes | .... unused | no access |
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace nibble {

enum class Flush { kEnd, kStart };

class GuardedArray {
 public:
  // bytes may be 0. With kEnd the address is as aligned as bytes is, no more: alignment that
  // a kernel needs must not come from here by luck. Filled with 0xA5.
  GuardedArray(size_t bytes, Flush flush) : bytes_(bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t inner = (bytes + page - 1) / page * page;
    mapped_ = inner + 2 * page;
    void* base = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<uint8_t*>(base);
    if (inner > 0 && mprotect(base_ + page, inner, PROT_READ | PROT_WRITE) != 0) {
      munmap(base_, mapped_);
      throw std::bad_alloc();
    }
    data_ = base_ + page + (flush == Flush::kEnd ? inner - bytes : 0);
    if (bytes > 0) std::memset(data_, 0xA5, bytes);
  }
  ~GuardedArray() { munmap(base_, mapped_); }
  GuardedArray(const GuardedArray&) = delete;
  GuardedArray& operator=(const GuardedArray&) = delete;

  uint8_t* data() const { return data_; }
  size_t size() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

  // Makes the bytes read-only, so that writing an input crashes too; or writable again. The
  // whole pages are the array's own.
  void SetReadOnly(bool read_only) const {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    if (mapped_ == 2 * page) return;
    mprotect(base_ + page, mapped_ - 2 * page, read_only ? PROT_READ : PROT_READ | PROT_WRITE);
  }

 private:
  size_t bytes_;
  size_t mapped_ = 0;
  uint8_t* base_ = nullptr;
  uint8_t* data_ = nullptr;
};

}  // namespace nibble
