// SPDX-License-Identifier: Apache-2.0
//
// The emulated device's global memory. Addresses are not the host's (reading one on the host
// faults); every allocation is an island, and its address is never given out again, so that one
// byte past the end and a use after free are both seen.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace nibble::cuda::emulator {

struct Allocation {
  uint64_t address = 0;
  uint64_t bytes = 0;
  uint8_t* data = nullptr;  // null once freed
  bool read_only = false;
  const char* what = "";  // "cuMemAlloc", "module variable"
  std::unique_ptr<uint8_t[]> storage;
  mutable std::atomic<bool> written{false};  // by a kernel, since TakeWritten
};

class DeviceMemory {
 public:
  explicit DeviceMemory(uint64_t capacity) : capacity_(capacity) {}

  // 0 where less than bytes are left. The content is poison (0xFF: a NaN in every float format).
  uint64_t Allocate(uint64_t bytes, const char* what, bool counted = true);
  bool Free(uint64_t address);           // false: not the start of a live allocation
  void FreeUncounted(uint64_t address);  // one made without counted
  // The live allocation that holds all of [address, address + bytes), or null.
  const Allocation* Find(uint64_t address, uint64_t bytes) const;
  // Why Find gave null, for a message.
  std::string Explain(uint64_t address, uint64_t bytes) const;

  // A kernel stores to it. Any thread of a launch.
  void NoteWritten(const Allocation& allocation) {
    if (allocation.written.load(std::memory_order_relaxed) || allocation.written.exchange(true))
      return;
    std::lock_guard<std::mutex> lock(mutex_);
    written_.push_back(&allocation);
  }
  // The allocations that kernels have stored to since the last call, by address.
  std::vector<const Allocation*> TakeWritten();

  uint64_t capacity() const { return capacity_; }
  uint64_t used() const { return used_; }
  int64_t count() const { return count_; }  // live allocations made with counted
  void SetReadOnly(uint64_t address) { table_.at(address).read_only = true; }

 private:
  std::map<uint64_t, Allocation> table_;
  uint64_t capacity_;
  uint64_t used_ = 0;
  int64_t count_ = 0;
  uint64_t next_ = 0x0000'9000'0000'0000;  // no canonical address of the host
  std::mutex mutex_;
  std::vector<const Allocation*> written_;  // never freed: only their storage is
};

}  // namespace nibble::cuda::emulator
