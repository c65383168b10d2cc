// SPDX-License-Identifier: Apache-2.0
//
// Who last wrote and read each byte of a block's shared memory, to find accesses that no barrier
// orders. Order between warps is kept as vector clocks: a warp's clock ticks at each barrier and
// bar.warp.sync, and a barrier hands every waiting warp the clocks of all that arrived. Two
// accesses to a byte, at least one of them a write, race unless the later one's warp has seen the
// clock of the earlier one; within a warp, unless the same lane made both or a bar.warp.sync (or
// barrier) lies between.
//
// Bytes are watched four at a time, since nearly all accesses are of whole words; a word that is
// accessed in parts is split into bytes from then on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nibble::cuda::emulator {

struct Warp;

class SharedShadow {
 public:
  void Reset(size_t bytes, int warps);

  // kCollectiveRead: by a warp-wide instruction (ldmatrix), which has ended for all lanes before
  // any of them goes on, so that no later write of the same warp can overtake it.
  enum class Kind : uint8_t { kRead, kWrite, kAtomic, kCollectiveRead };
  // Records the access; returns a description of the race it makes, or "".
  std::string Touch(const Warp& warp, int lane, int line, uint32_t offset, int bytes, Kind kind) {
    if ((offset | static_cast<uint32_t>(bytes)) % kWord == 0) {
      for (uint32_t word = offset / kWord; word < (offset + bytes) / kWord; ++word) {
        if (words_[word].split) {
          for (uint32_t b = 0; b < kWord; ++b) {
            Cell& cell = bytes_[words_[word].write_clock + b];
            if (!Quiet(warp, lane, line, kind, cell))
              return Describe(warp, lane, kind, word * kWord + b, cell);
          }
        } else if (!Quiet(warp, lane, line, kind, words_[word])) {
          return Describe(warp, lane, kind, word * kWord, words_[word]);
        }
      }
      return std::string();
    }
    return TouchBytes(warp, lane, line, offset, bytes, kind);
  }

  // wgmma reads the bytes (whole words) at any time from Begin to End. What was written to them
  // must lie behind a barrier, and behind a fence.proxy.async of the writer before that.
  std::string BeginAsyncRead(const Warp& warp, int lane, int line, uint32_t offset, int bytes);
  std::string EndAsyncRead(const Warp& warp, int line, uint32_t offset, int bytes);

  // cp.async: the bytes (whole words) hold nothing until the copy has been waited for.
  void Pend(uint32_t offset, int bytes, int line);
  void Arrive(uint32_t offset, int bytes);

 private:
  static constexpr uint32_t kWord = 4;

  struct Cell {
    uint32_t write_clock = 0;  // 0: never written in this block. Split: index into bytes_
    uint32_t read_clock = 0;   // 0: not read since the last write
    int32_t write_line = 0, read_line = 0;  // read_line of a pending cell: the cp.async's
    uint32_t readers = 0;                   // index into readers_ + 1 once several warps read
    uint32_t write_fences = 0;              // fence.proxy.async of write_warp before the write
    int32_t async_line = 0;                 // of a wgmma that is reading
    uint8_t write_warp = 0, write_lane = 0, read_warp = 0, read_lane = 0;
    uint16_t async_reads = 0;  // by warps and their products
    bool write_atomic = false;
    bool pending = false;
    bool split = false;
    bool collective = false;     // the last read was ldmatrix's
    bool read_by_lanes = false;  // several lanes of read_warp, at read_clock
  };

  // Records the access in one cell; false: it races.
  bool Quiet(const Warp& warp, int lane, int line, Kind kind, Cell& cell);
  std::string TouchBytes(const Warp& warp, int lane, int line, uint32_t offset, int bytes,
                         Kind kind);
  std::string Describe(const Warp& warp, int lane, Kind kind, uint32_t byte,
                       const Cell& cell) const;
  void Split(uint32_t word);
  // Whether a read that the cell remembers is unordered before a write by the lane; *by: its warp.
  bool ReadRaces(const Warp& warp, int lane, const Cell& cell, int* by) const;
  bool WriteRaces(const Warp& warp, int lane, const Cell& cell) const;
  // Whether the cell's last write has reached wgmma.
  bool IsFenced(const Warp& warp, const Cell& cell) const;
  template <class Visit>
  void ForEachCell(uint32_t offset, int bytes, const Visit& visit);

  std::vector<Cell> words_;
  std::vector<Cell> bytes_;        // four for each split word
  std::vector<uint32_t> readers_;  // [set][warp]: clock of the warp's last read
  int warps_ = 0;
};

}  // namespace nibble::cuda::emulator
