// SPDX-License-Identifier: Apache-2.0
//
// What a launch remembers for wgmma (instructions_wgmma.cc): products under way, who accessed
// their registers last, and what the four warps of a warpgroup have issued.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "kernels-cuda/emulator/matrix_elements.h"
#include "kernels-cuda/emulator/program.h"

namespace nibble::cuda::emulator {

struct Block;
struct Warp;

constexpr int kWarpgroupWarps = 4;

// A matrix in shared memory with K along its rows, as a matrix descriptor gives it: rows of two
// 16-byte words (32 bytes of K), in core matrices of eight rows.
struct SharedMatrix {
  uint32_t start, leading, stride;  // addresses and distances in bytes
  uint32_t row_bytes;               // of the swizzled pattern of eight rows: 32, 64, 128; 16: none

  // Address of word 0 or 1 of a row. A pattern's 16-byte words are exclusive-ored with the row's
  // number, which stands three bits above them in the address.
  uint32_t At(uint32_t row, uint32_t word) const {
    const uint32_t linear = start + row % 8 * row_bytes + row / 8 * stride +
                            word * (row_bytes == 16 ? leading : 16);
    return linear ^ (linear >> 3 & (row_bytes - 16));
  }
};

// Of a wgmma.mma_async, its Instruction::extra. Instruction::list has D's N / 2 registers, then the
// 4 of A, if there are any; fragments has their numbers in Program::fragment_names.
struct WarpgroupShape {
  Element a, b;
  int n, k;
  bool a_in_registers;
  bool negate = false;  // the products: imm-scale-a * imm-scale-b
  std::string name;     // "m64n64k32.f32": whose accumulators follow each other without a fence
  std::vector<int32_t> fragments;
  int accumulators() const { return n / 2; }
};

inline const WarpgroupShape& ShapeOf(const Instruction& instruction) {
  return *static_cast<const WarpgroupShape*>(instruction.extra);
}

// A warp's share of one wgmma.mma_async that nothing has waited for.
struct WarpgroupProduct {
  const Instruction* instruction;
  uint32_t group;  // by wgmma.commit_group, from 0
  SharedMatrix a, b;
  bool accumulate;
};

// What happened to a register of some wgmma's accumulator or left operand.
struct FragmentUse {
  bool ordered = false;     // by wgmma.fence after the last access by any other instruction
  int32_t access_line = 0;  // of that access; 0: none
  enum class Role : uint8_t { kNone, kAccumulator, kLeft } role = Role::kNone;
  const Instruction* product = nullptr;  // that took it in this role
  int under_way = 0;                     // products that have it and that nothing has waited for
};

// What the warps of a warpgroup must issue alike, from the first that one of them has yet to issue.
struct WarpgroupLog {
  struct Entry {
    const Instruction* instruction;
    uint64_t a, b;
    bool accumulate;
    int warp;
  };
  std::deque<Entry> entries;
  uint64_t first = 0;
  uint64_t issued[kWarpgroupWarps] = {};
};

// Puts the instruction, which the warp runs, into its warpgroup's log, or compares it with what a
// warp put there; fails where they differ. a, b: descriptors.
void Agree(Warp& warp, const Instruction& instruction, uint64_t a, uint64_t b, bool accumulate);

// Fails if a register of the product has been accessed by anything since the last wgmma.fence but,
// as the same operand, by other products: as an accumulator, by those of the same shape.
void CheckOrder(Warp& warp, const Instruction& instruction, int32_t fragment,
                FragmentUse::Role role);

void ResetWarpgroups(Block& block);
// Fails if the warp, which has ended, left products or its warpgroup behind.
void CheckWarpgroupAtExit(const Warp& warp);

// Of an instruction other than wgmma that reads or writes registers of wgmma's operands: notes it
// and runs the handler that it had (Program::watches).
void RunWatched(Warp& warp, const Instruction& instruction, uint32_t mask);

// fence.proxy.async for shared memory.
void RunProxyFence(Warp& warp, const Instruction& instruction, uint32_t mask);

}  // namespace nibble::cuda::emulator
