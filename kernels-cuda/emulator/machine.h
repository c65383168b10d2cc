// SPDX-License-Identifier: Apache-2.0
//
// The state of a launch while it runs: blocks, warps, barriers.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels-cuda/emulator/device_memory.h"
#include "kernels-cuda/emulator/emulator.h"
#include "kernels-cuda/emulator/program.h"
#include "kernels-cuda/emulator/shared_shadow.h"
#include "kernels-cuda/emulator/warpgroup.h"

namespace nibble::cuda::emulator {

// What a kernel did that hardware punishes or leaves undefined. Ends the launch.
class Violation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Dimensions {
  unsigned x = 1, y = 1, z = 1;
  uint64_t Count() const { return uint64_t{x} * y * z; }
};

struct Launch {
  const Program* program = nullptr;
  DeviceMemory* memory = nullptr;
  std::vector<uint8_t> parameters;
  Dimensions grid, block;
  unsigned dynamic_shared_bytes = 0;
  int sm = 0;
  Options options;
};

// Shared and local memory as generic addresses see them.
constexpr uint64_t kSharedWindow = 0x0100'0000'0000'0000;
constexpr uint64_t kLocalWindow = 0x0200'0000'0000'0000;
constexpr uint64_t kWindowBytes = uint64_t{1} << 32;
// The first bytes of a block's shared memory are the system's, as on real devices.
constexpr uint64_t kSharedBase = 1024;

struct Block;

// One entry of the divergence stack: lanes that wait at pc until those above arrive at theirs.
struct StackEntry {
  int32_t pc;
  int32_t reconvergence;  // -1: none
  uint32_t mask;
  bool call_frame;  // returning from here ends a call
};

// A copy that cp.async started and that has not been waited for.
struct PendingCopy {
  uint32_t group;
  uint32_t destination;  // offset in shared memory
  const uint8_t* source;
  uint8_t bytes, source_bytes, lane;
  int32_t line;
};

// A fence.proxy.async: the warp's clock then, and the lanes.
struct ProxyFence {
  uint32_t clock, mask;
};

struct Warp {
  Block* block = nullptr;
  uint8_t* registers = nullptr;
  int index = 0;
  uint32_t live = 0;    // lanes that exist and have not exited
  uint32_t active = 0;  // lanes of the current entry
  int32_t pc = 0;
  int32_t reconvergence = -1;
  bool frame = false;
  bool waiting = false;  // at a barrier
  int barrier = -1;
  uint32_t carry = 0;  // the condition code, a bit a lane
  std::vector<StackEntry> stack;
  std::vector<uint8_t> local;
  std::vector<PendingCopy> copies;
  uint32_t copy_group[kLanes] = {};
  std::deque<WarpgroupProduct> products;  // under way, in order
  uint32_t product_group = 0;             // the open one
  std::vector<FragmentUse> fragments;     // by number in Program::fragment_names
  std::vector<ProxyFence> proxy_fences;
  uint64_t steps = 0;
  int current_line = 0;
  std::vector<uint32_t> clock;  // vector clock: what this warp has seen of each warp
  // The allocation that the last accesses hit.
  const Allocation* cached[2] = {nullptr, nullptr};
  std::mt19937 random;

  template <class T>
  T* Reg(int32_t offset) {
    return reinterpret_cast<T*>(registers + offset);
  }
  uint32_t& Pred(int32_t offset) { return *reinterpret_cast<uint32_t*>(registers + offset); }

  // Removes the top entry; the warp has ended when live is 0.
  void Pop();
  void ExitLanes(uint32_t mask);
};

struct Barrier {
  int expected = 0;  // threads; 0: not in use
  int arrived = 0;
  bool whole_block = false;
  std::vector<int> waiting;  // warps
  std::vector<uint32_t> clock;
  uint32_t reduction = 0;  // of bar.red: how many lanes said yes
  struct Reducer {
    int warp;
    const Instruction* instruction;
    uint32_t mask;
  };
  std::vector<Reducer> reducers;
  int32_t line = 0;
};

constexpr int kBarriers = 16;

struct Block {
  const Launch* launch = nullptr;
  unsigned id[3] = {0, 0, 0};
  int threads = 0;
  std::vector<uint8_t> shared;
  std::vector<Warp> warps;
  std::vector<uint8_t> register_files;
  Barrier barriers[kBarriers];
  bool checked = false;
  SharedShadow shadow;
  std::vector<WarpgroupLog> warpgroups;
  std::mt19937_64 random;
  int exited_warps = 0;

  // Throws Violation with everything that places it: kernel, block, warp, lane, PTX line.
  [[noreturn]] void Fail(const Warp& warp, const Instruction* instruction, int lane,
                         const std::string& what) const;
};

// Instructions that a launch's warps have run.
struct LaunchSteps {
  uint64_t all = 0;
  uint64_t longest = 0;  // of one warp
};

// Runs all blocks. Throws Violation for the first block (in the seeded order) that fails.
LaunchSteps RunLaunch(const Launch& launch);

// Memory access, in memory_access.cc. pointers[l] is set for the lanes in mask.
enum class Access : uint8_t { kRead, kWrite, kAtomic };
void Resolve(Warp& warp, const Instruction& instruction, uint32_t mask, int bytes, Access access,
             uint8_t** pointers);
// Reads the address registers of an access (32 or 64 bits) plus its offset.
void Addresses(Warp& warp, const Instruction& instruction, uint64_t* addresses);
// The offset in shared memory of an address in the shared space or generic window, checked.
uint32_t SharedOffset(Warp& warp, const Instruction& instruction, int lane, uint64_t address,
                      int bytes);

// cp.async, in async_copy.cc.
void CompleteCopies(Warp& warp, uint32_t mask, uint32_t allowed_groups, bool all);

// Fails unless every lane of the warp that has not exited takes part (instructions .aligned).
void RequireConverged(Warp& warp, const Instruction& instruction, uint32_t mask, bool all_32);

}  // namespace nibble::cuda::emulator
