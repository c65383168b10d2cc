// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/emulator/shared_shadow.h"

#include <algorithm>

#include "kernels-cuda/emulator/machine.h"

namespace nibble::cuda::emulator {

void SharedShadow::Reset(size_t bytes, int warps) {
  words_.assign((bytes + kWord - 1) / kWord, Cell());
  bytes_.clear();
  readers_.clear();
  warps_ = warps;
}

bool SharedShadow::WriteRaces(const Warp& warp, int lane, const Cell& cell) const {
  if (cell.write_warp != warp.index) return cell.write_clock > warp.clock[cell.write_warp];
  return cell.write_clock == warp.clock[warp.index] && cell.write_lane != lane;
}

bool SharedShadow::ReadRaces(const Warp& warp, int lane, const Cell& cell, int* by) const {
  *by = cell.read_warp;
  if (cell.readers != 0) {
    const uint32_t* readers = &readers_[size_t{cell.readers - 1} * warps_];
    for (int w = 0; w < warps_; ++w) {
      if (w != warp.index && readers[w] > warp.clock[w]) {
        *by = w;
        return true;
      }
    }
  }
  if (cell.read_warp != warp.index)
    return cell.readers == 0 && cell.read_clock > warp.clock[cell.read_warp];
  return !cell.collective && cell.read_clock == warp.clock[warp.index] &&
         (cell.read_by_lanes || cell.read_lane != lane);
}

bool SharedShadow::Quiet(const Warp& warp, int lane, int line, Kind kind, Cell& cell) {
  if (cell.pending) return false;
  const bool writes = kind == Kind::kWrite || kind == Kind::kAtomic;
  if (writes && cell.async_reads != 0) return false;
  if (cell.write_clock != 0 && !(kind == Kind::kAtomic && cell.write_atomic) &&
      WriteRaces(warp, lane, cell)) {
    return false;
  }
  const uint8_t self = static_cast<uint8_t>(warp.index);
  const uint32_t now = warp.clock[warp.index];
  if (writes) {
    int by;
    if (cell.read_clock != 0 && ReadRaces(warp, lane, cell, &by)) return false;
    if (cell.readers != 0) std::fill_n(&readers_[size_t{cell.readers - 1} * warps_], warps_, 0u);
    cell.write_clock = now;
    cell.write_line = line;
    cell.write_fences = static_cast<uint32_t>(warp.proxy_fences.size());
    cell.write_warp = self;
    cell.write_lane = static_cast<uint8_t>(lane);
    cell.write_atomic = kind == Kind::kAtomic;
    cell.read_clock = 0;
    return true;
  }
  const bool again = cell.read_clock == now && cell.read_warp == self;
  if (cell.read_clock != 0 && cell.read_warp != self) {
    // A second warp reads: from now on all warps' last reads are kept.
    if (cell.readers == 0) {
      readers_.resize(readers_.size() + warps_, 0);
      cell.readers = static_cast<uint32_t>(readers_.size() / warps_);
    }
    uint32_t& other = readers_[size_t{cell.readers - 1} * warps_ + cell.read_warp];
    other = std::max(other, cell.read_clock);
  }
  if (cell.readers != 0) readers_[size_t{cell.readers - 1} * warps_ + self] = now;
  const bool collective = kind == Kind::kCollectiveRead;
  if (again && collective) return true;  // what is known says more
  cell.read_by_lanes = again && !cell.collective && (cell.read_by_lanes || cell.read_lane != lane);
  cell.collective = collective;
  cell.read_warp = self;
  cell.read_lane = static_cast<uint8_t>(lane);
  cell.read_clock = now;
  cell.read_line = line;
  return true;
}

void SharedShadow::Split(uint32_t word) {
  Cell& cell = words_[word];
  if (cell.split) return;
  const uint32_t at = static_cast<uint32_t>(bytes_.size());
  for (uint32_t b = 0; b < kWord; ++b) {
    bytes_.push_back(cell);
    if (cell.readers != 0) {  // each byte needs a set of its own
      const size_t from = size_t{cell.readers - 1} * warps_;
      const std::vector<uint32_t> set(readers_.begin() + from, readers_.begin() + from + warps_);
      readers_.insert(readers_.end(), set.begin(), set.end());
      bytes_.back().readers = static_cast<uint32_t>(readers_.size() / warps_);
    }
  }
  cell = Cell();
  cell.split = true;
  cell.write_clock = at;
}

std::string SharedShadow::TouchBytes(const Warp& warp, int lane, int line, uint32_t offset,
                                     int bytes, Kind kind) {
  for (uint32_t byte = offset; byte < offset + static_cast<uint32_t>(bytes); ++byte) {
    Split(byte / kWord);
    Cell& cell = bytes_[words_[byte / kWord].write_clock + byte % kWord];
    if (!Quiet(warp, lane, line, kind, cell)) return Describe(warp, lane, kind, byte, cell);
  }
  return std::string();
}

std::string SharedShadow::Describe(const Warp& warp, int lane, Kind kind, uint32_t byte,
                                   const Cell& cell) const {
  const bool writes = kind == Kind::kWrite || kind == Kind::kAtomic;
  const std::string access = (writes ? std::string("write") : std::string("read")) +
                             " of shared memory byte " + std::to_string(byte);
  if (cell.pending) {
    return access + " that the cp.async of PTX line " + std::to_string(cell.read_line) +
           " has still to deliver (nothing has waited for it)";
  }
  if (writes && cell.async_reads != 0) {
    return access + " that the wgmma of PTX line " + std::to_string(cell.async_line) +
           " may still be reading (not every warp has waited for it)";
  }
  if (cell.write_clock != 0 && !(kind == Kind::kAtomic && cell.write_atomic) &&
      WriteRaces(warp, lane, cell)) {
    return "race: " + access + " without a barrier after the write by warp " +
           std::to_string(cell.write_warp) + " lane " + std::to_string(cell.write_lane) +
           " at PTX line " + std::to_string(cell.write_line);
  }
  int by = 0;
  ReadRaces(warp, lane, cell, &by);
  return "race: " + access + " without a barrier after the read by warp " + std::to_string(by) +
         (by == cell.read_warp ? " lane " + std::to_string(cell.read_lane) + " at PTX line " +
                                     std::to_string(cell.read_line)
                               : " (an earlier one; the latest is at PTX line " +
                                     std::to_string(cell.read_line) + ")");
}

template <class Visit>
void SharedShadow::ForEachCell(uint32_t offset, int bytes, const Visit& visit) {
  for (uint32_t byte = offset; byte < offset + static_cast<uint32_t>(bytes); byte += kWord) {
    Cell& cell = words_[byte / kWord];
    if (!cell.split) {
      visit(byte, cell);
      continue;
    }
    for (uint32_t i = 0; i < kWord; ++i) visit(byte + i, bytes_[cell.write_clock + i]);
  }
}

void SharedShadow::Pend(uint32_t offset, int bytes, int line) {
  ForEachCell(offset, bytes, [line](uint32_t, Cell& cell) {
    cell.pending = true;
    cell.read_line = line;
  });
}

void SharedShadow::Arrive(uint32_t offset, int bytes) {
  ForEachCell(offset, bytes, [](uint32_t, Cell& cell) { cell.pending = false; });
}

bool SharedShadow::IsFenced(const Warp& warp, const Cell& cell) const {
  const std::vector<ProxyFence>& fences = warp.block->warps[cell.write_warp].proxy_fences;
  for (size_t i = cell.write_fences; i < fences.size(); ++i) {
    if ((fences[i].mask >> cell.write_lane & 1) == 0) continue;
    return fences[i].clock <= warp.clock[cell.write_warp];
  }
  return false;
}

std::string SharedShadow::BeginAsyncRead(const Warp& warp, int lane, int line, uint32_t offset,
                                         int bytes) {
  std::string problem;
  ForEachCell(offset, bytes, [&](uint32_t byte, Cell& cell) {
    if (!problem.empty()) return;
    if (cell.pending || (cell.write_clock != 0 && WriteRaces(warp, lane, cell))) {
      problem = Describe(warp, lane, Kind::kRead, byte, cell);
    } else if (cell.write_clock != 0 && !IsFenced(warp, cell)) {
      problem = "wgmma reads shared memory byte " + std::to_string(byte) + ", but warp " +
                std::to_string(cell.write_warp) + " lane " + std::to_string(cell.write_lane) +
                " had no fence.proxy.async between its write at PTX line " +
                std::to_string(cell.write_line) + " and the barrier";
    }
    ++cell.async_reads;
    cell.async_line = line;
  });
  return problem;
}

std::string SharedShadow::EndAsyncRead(const Warp& warp, int line, uint32_t offset, int bytes) {
  ForEachCell(offset, bytes, [](uint32_t, Cell& cell) { --cell.async_reads; });
  return Touch(warp, 0, line, offset, bytes, Kind::kCollectiveRead);
}

}  // namespace nibble::cuda::emulator
