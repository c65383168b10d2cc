// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/memory/buffer.h"

#include <sys/mman.h>

#include <new>

namespace nibble {
namespace {
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPage = 4096;
}  // namespace

Buffer::Buffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  const size_t page = bytes >= kHugePage ? kHugePage : kPage;
  if (bytes > SIZE_MAX - 2 * page) throw std::bad_alloc();
  const size_t length = (bytes + page - 1) / page * page;
  // A huge page starts at a multiple of its size: take one more, give back both ends.
  const size_t taken = page == kHugePage ? length + kHugePage : length;
  void* base =
      mmap(nullptr, taken, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<uint8_t*>(base);
  const size_t skip = (page - reinterpret_cast<uintptr_t>(begin) % page) % page;
  if (skip > 0) munmap(begin, skip);
  if (taken > skip + length) munmap(begin + skip + length, taken - skip - length);
  data_ = begin + skip;
  mapped_ = length;
#ifdef MADV_HUGEPAGE
  if (page == kHugePage) madvise(data_, length, MADV_HUGEPAGE);  // advice: may be refused
#endif
}

Buffer::~Buffer() {
  if (mapped_ > 0) munmap(data_, mapped_);
}

}  // namespace nibble
