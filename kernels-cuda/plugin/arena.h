// SPDX-License-Identifier: Apache-2.0
//
// Device memory that the operators of one context work in: operands that come from the host,
// quantized activations, partial sums. It only grows, so that a call of a size seen before
// allocates nothing.
#pragma once

#include <memory>
#include <vector>

#include "kernels-cuda/plugin/shared_device.h"

namespace nibble::cuda {

class Arena {
 public:
  explicit Arena(std::shared_ptr<SharedDevice> device) : device_(std::move(device)) {}

  // Memory on a boundary of 256 bytes, valid until the next Reset; undefined content.
  Status Take(int64_t bytes, DevicePtr* memory) {
    const int64_t size = (bytes + kBoundary - 1) / kBoundary * kBoundary;
    while (block_ < blocks_.size()) {
      const SharedMemory& block = *blocks_[block_];
      if (size <= block.bytes() - used_) {
        *memory = block.address() + static_cast<DevicePtr>(used_);
        used_ += size;
        return Status();
      }
      ++block_;
      used_ = 0;
    }
    auto block = std::make_unique<SharedMemory>();
    // A quarter more than asked for, so that slowly growing calls do not allocate each time;
    // where that does not fit, as much as was asked for.
    const int64_t wanted = size + size / 4 + kSmallest;
    if (!block->Allocate(device_, wanted).ok()) {
      NIBBLE_CUDA_RETURN_IF_FAILED(block->Allocate(device_, size));
    }
    *memory = block->address();
    used_ = size;
    block_ = blocks_.size();
    blocks_.push_back(std::move(block));
    return Status();
  }

  // Takes everything back, at the beginning of a call. Work that still uses the memory is ahead
  // of the call's on the device. Several blocks, left by a call that made the arena grow, become
  // one the next time.
  void Reset() {
    if (blocks_.size() > 1) {
      int64_t bytes = 0;
      for (const auto& block : blocks_) bytes += block->bytes();
      blocks_.clear();
      auto whole = std::make_unique<SharedMemory>();
      if (whole->Allocate(device_, bytes).ok()) blocks_.push_back(std::move(whole));
    }
    Rewind();
  }

  // The same without freeing and allocating, for an arena whose memory a recording refers to.
  void Rewind() { block_ = 0, used_ = 0; }

 private:
  static constexpr int64_t kBoundary = 256;
  static constexpr int64_t kSmallest = 64 << 10;

  std::shared_ptr<SharedDevice> device_;
  std::vector<std::unique_ptr<SharedMemory>> blocks_;
  size_t block_ = 0;   // the block in use
  int64_t used_ = 0;   // bytes of it
};

}  // namespace nibble::cuda
