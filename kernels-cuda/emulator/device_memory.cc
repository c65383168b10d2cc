// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/emulator/device_memory.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>

namespace nibble::cuda::emulator {

namespace {
constexpr uint64_t kAlignment = 256;          // what cuMemAlloc promises
constexpr uint64_t kGap = uint64_t{1} << 20;  // unmapped after every allocation

std::string Hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}
}  // namespace

uint64_t DeviceMemory::Allocate(uint64_t bytes, const char* what, bool counted) {
  if (bytes == 0 || bytes > capacity_ - used_) return 0;
  std::unique_ptr<uint8_t[]> storage(new (std::nothrow) uint8_t[bytes + kAlignment]);
  if (storage == nullptr) return 0;
  Allocation& allocation = table_[next_];
  allocation.storage = std::move(storage);
  allocation.bytes = bytes;
  allocation.address = next_;
  allocation.what = what;
  const uintptr_t raw = reinterpret_cast<uintptr_t>(allocation.storage.get());
  allocation.data = reinterpret_cast<uint8_t*>((raw + kAlignment - 1) / kAlignment * kAlignment);
  std::memset(allocation.data, 0xFF, bytes);
  next_ += (bytes + kGap + kAlignment - 1) / kAlignment * kAlignment;
  used_ += bytes;
  if (counted) ++count_;
  return allocation.address;
}

std::vector<const Allocation*> DeviceMemory::TakeWritten() {
  std::vector<const Allocation*> taken;
  taken.swap(written_);
  for (const Allocation* allocation : taken) allocation->written.store(false);
  std::sort(taken.begin(), taken.end(),
            [](const Allocation* a, const Allocation* b) { return a->address < b->address; });
  return taken;
}

bool DeviceMemory::Free(uint64_t address) {
  const auto found = table_.find(address);
  if (found == table_.end() || found->second.data == nullptr) return false;
  used_ -= found->second.bytes;
  --count_;
  found->second.data = nullptr;
  found->second.storage.reset();
  return true;
}

void DeviceMemory::FreeUncounted(uint64_t address) {
  if (Free(address)) ++count_;
}

const Allocation* DeviceMemory::Find(uint64_t address, uint64_t bytes) const {
  auto after = table_.upper_bound(address);
  if (after == table_.begin()) return nullptr;
  const Allocation& allocation = std::prev(after)->second;
  const uint64_t offset = address - allocation.address;
  if (allocation.data == nullptr || offset > allocation.bytes ||
      bytes > allocation.bytes - offset) {
    return nullptr;
  }
  return &allocation;
}

std::string DeviceMemory::Explain(uint64_t address, uint64_t bytes) const {
  const std::string range = std::to_string(bytes) + " bytes at " + Hex(address);
  auto after = table_.upper_bound(address);
  if (after == table_.begin()) return range + " lie in no allocation";
  const Allocation& allocation = std::prev(after)->second;
  const uint64_t offset = address - allocation.address;
  const std::string owner =
      "an allocation of " + std::to_string(allocation.bytes) + " bytes (" + allocation.what + ")";
  if (offset >= allocation.bytes + kGap) return range + " lie in no allocation";
  if (allocation.data == nullptr)
    return range + " lie at offset " + std::to_string(offset) + " of " + owner +
           " that has been freed";
  return range + " reach from offset " + std::to_string(offset) + " past the end of " + owner;
}

}  // namespace nibble::cuda::emulator
