// SPDX-License-Identifier: Apache-2.0
//
// The loop that runs warps: random order from the seed, divergence, the end of blocks.

#include "kernels-cuda/emulator/machine.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>
#include <thread>

namespace nibble::cuda::emulator {

namespace {

// How many instructions a warp runs before another may: short often enough that every pair of
// instructions of two warps gets to run in both orders over a few seeds.
constexpr int kLongestTurn = 256;

std::string Triple(const unsigned* v) {
  return "(" + std::to_string(v[0]) + "," + std::to_string(v[1]) + "," + std::to_string(v[2]) + ")";
}

uint64_t Mix(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

void FillSpecials(Block& block, Warp& warp) {
  const Launch& launch = *block.launch;
  for (const SpecialRegister& special : launch.program->specials) {
    uint32_t* values = warp.Reg<uint32_t>(special.offset);
    for (int lane = 0; lane < kLanes; ++lane) {
      const unsigned thread = warp.index * kLanes + lane;
      uint32_t value = 0;
      const std::string& name = special.name;
      if (name == "%tid.x")
        value = thread % launch.block.x;
      else if (name == "%tid.y")
        value = thread / launch.block.x % launch.block.y;
      else if (name == "%tid.z")
        value = thread / launch.block.x / launch.block.y;
      else if (name == "%ntid.x")
        value = launch.block.x;
      else if (name == "%ntid.y")
        value = launch.block.y;
      else if (name == "%ntid.z")
        value = launch.block.z;
      else if (name == "%ctaid.x")
        value = block.id[0];
      else if (name == "%ctaid.y")
        value = block.id[1];
      else if (name == "%ctaid.z")
        value = block.id[2];
      else if (name == "%nctaid.x")
        value = launch.grid.x;
      else if (name == "%nctaid.y")
        value = launch.grid.y;
      else if (name == "%nctaid.z")
        value = launch.grid.z;
      else if (name == "%laneid")
        value = lane;
      else if (name == "%warpid")
        value = warp.index;
      else if (name == "%nwarpid")
        value = 64;
      else if (name == "%smid")
        value = static_cast<uint32_t>(Mix(block.id[0] + launch.options.seed) % 16);
      else if (name == "%nsmid")
        value = 16;
      else if (name == "%lanemask_eq")
        value = 1u << lane;
      else if (name == "%lanemask_lt")
        value = (1u << lane) - 1;
      else if (name == "%lanemask_le")
        value = (2u << lane) - 1;
      else if (name == "%lanemask_gt")
        value = ~((2u << lane) - 1);
      else if (name == "%lanemask_ge")
        value = ~((1u << lane) - 1);
      else if (name == "%dynamic_smem_size")
        value = launch.dynamic_shared_bytes;
      else if (name == "%total_smem_size")
        value = static_cast<uint32_t>(block.shared.size());
      values[lane] = value;
    }
  }
}

void StartBlock(Block& block, const Launch& launch, uint64_t id, bool checked) {
  const Program& program = *launch.program;
  block.launch = &launch;
  block.id[0] = static_cast<unsigned>(id % launch.grid.x);
  block.id[1] = static_cast<unsigned>(id / launch.grid.x % launch.grid.y);
  block.id[2] = static_cast<unsigned>(id / launch.grid.x / launch.grid.y);
  block.threads = static_cast<int>(launch.block.Count());
  block.random.seed(Mix(launch.options.seed * 1000003 + id));
  block.exited_warps = 0;
  block.checked = checked;
  block.shared.assign(program.static_shared_bytes + launch.dynamic_shared_bytes, 0xFF);
  const int warps = (block.threads + kLanes - 1) / kLanes;
  if (checked) block.shadow.Reset(block.shared.size(), warps);
  for (Barrier& barrier : block.barriers) {
    barrier = Barrier{};
    barrier.clock.assign(warps, 0);
  }
  const size_t file = (program.registers.size() + 63) / 64 * 64;
  block.register_files.resize(file * warps + 64);
  const uintptr_t raw = reinterpret_cast<uintptr_t>(block.register_files.data());
  uint8_t* files = reinterpret_cast<uint8_t*>((raw + 63) / 64 * 64);
  block.warps.resize(warps);
  for (int w = 0; w < warps; ++w) {
    Warp& warp = block.warps[w];
    warp.block = &block;
    warp.index = w;
    warp.registers = files + file * w;
    std::copy(program.registers.begin(), program.registers.end(), warp.registers);
    const int lanes = std::min(kLanes, block.threads - w * kLanes);
    warp.live = lanes == kLanes ? kAllLanes : (1u << lanes) - 1;
    warp.active = warp.live;
    warp.pc = 0;
    warp.reconvergence = -1;
    warp.frame = false;
    warp.waiting = false;
    warp.barrier = -1;
    warp.carry = 0;
    warp.stack.clear();
    warp.local.assign(program.local_bytes * kLanes, 0xFF);
    warp.copies.clear();
    std::fill_n(warp.copy_group, kLanes, 0u);
    warp.steps = 0;
    warp.clock.assign(warps, 0);
    warp.clock[w] = 1;
    warp.cached[0] = warp.cached[1] = nullptr;
    warp.random.seed(static_cast<uint32_t>(block.random()));
    FillSpecials(block, warp);
  }
  ResetWarpgroups(block);
}

void RunTurn(Warp& warp, int turn) {
  const Instruction* code = warp.block->launch->program->code.data();
  uint8_t* reached = warp.block->launch->program->reached.get();
  for (; turn > 0; --turn) {
    while (warp.pc == warp.reconvergence) warp.Pop();
    const Instruction& instruction = code[warp.pc++];
    uint32_t mask = warp.active;
    if (instruction.guard >= 0) {
      const uint32_t predicate = warp.Pred(instruction.guard);
      mask &= instruction.guard_negated ? ~predicate : predicate;
    }
    ++warp.steps;
    if (mask != 0) {
      __atomic_store_n(reached + (&instruction - code), uint8_t{1}, __ATOMIC_RELAXED);
      instruction.run(warp, instruction, mask);
      if (warp.waiting || warp.live == 0) return;
    }
  }
  if (warp.steps > warp.block->launch->options.max_steps) {
    warp.block->Fail(warp, &code[warp.pc], -1,
                     "the warp has run " + std::to_string(warp.steps) +
                         " instructions: it seems to wait for something that never comes");
  }
}

void CheckExit(Block& block, const Warp& warp) {
  ++block.exited_warps;
  CheckWarpgroupAtExit(warp);
  for (int id = 0; id < kBarriers; ++id) {
    const Barrier& barrier = block.barriers[id];
    if (barrier.arrived > 0 && barrier.whole_block) {
      block.Fail(warp, nullptr, -1,
                 "the warp ends while others wait for it at barrier " + std::to_string(id) +
                     " of PTX line " + std::to_string(barrier.line));
    }
  }
}

void RunBlock(Block& block) {
  std::vector<int> ready;
  std::uniform_int_distribution<int> turns(1, kLongestTurn);
  for (;;) {
    ready.clear();
    const Warp* stuck = nullptr;
    for (const Warp& warp : block.warps) {
      if (warp.live == 0) continue;
      if (warp.waiting) {
        stuck = &warp;
      } else {
        ready.push_back(warp.index);
      }
    }
    if (ready.empty()) {
      if (stuck == nullptr) return;
      std::string who;
      for (const Warp& warp : block.warps) {
        if (warp.live != 0) {
          who += (who.empty() ? "" : ", ") + std::string("warp ") + std::to_string(warp.index) +
                 " at barrier " + std::to_string(warp.barrier) + " of line " +
                 std::to_string(warp.current_line);
        }
      }
      block.Fail(*stuck, nullptr, -1, "deadlock: every warp waits (" + who + ")");
    }
    Warp& warp = block.warps[ready[block.random() % ready.size()]];
    RunTurn(warp, turns(block.random));
    if (warp.live == 0) CheckExit(block, warp);
  }
}

}  // namespace

void Warp::Pop() {
  while (!stack.empty()) {
    const StackEntry entry = stack.back();
    stack.pop_back();
    if (entry.mask == 0) continue;
    pc = entry.pc;
    reconvergence = entry.reconvergence;
    active = entry.mask;
    frame = entry.call_frame;
    return;
  }
  active = 0;
}

void Warp::ExitLanes(uint32_t mask) {
  live &= ~mask;
  active &= ~mask;
  for (StackEntry& entry : stack) entry.mask &= ~mask;
  if (active == 0) Pop();
}

void Block::Fail(const Warp& warp, const Instruction* instruction, int lane,
                 const std::string& what) const {
  std::string text = "kernel " + launch->program->name + ", block " + Triple(id) + ", warp " +
                     std::to_string(warp.index);
  if (lane >= 0) text += ", lane " + std::to_string(lane);
  if (instruction != nullptr) {
    text += ", PTX line " + std::to_string(instruction->line);
    const auto found = launch->program->source.find(instruction->line);
    if (found != launch->program->source.end()) text += " (" + found->second + ")";
  }
  throw Violation(text + ": " + what);
}

void RequireConverged(Warp& warp, const Instruction& instruction, uint32_t mask, bool all_32) {
  const uint32_t wanted = all_32 ? kAllLanes : warp.live;
  if (mask == wanted) return;
  char text[96];
  std::snprintf(text, sizeof(text),
                "must run with all lanes, but runs with the mask 0x%08x of 0x%08x", mask, wanted);
  warp.block->Fail(warp, &instruction, -1, text);
}

LaunchSteps RunLaunch(const Launch& launch) {
  const uint64_t blocks = launch.grid.Count();
  int threads = launch.options.threads;
  if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  threads = static_cast<int>(std::min<uint64_t>(threads, blocks));
  // A walk over the blocks in a seeded order: first + i * step, step prime to the count.
  uint64_t step = Mix(launch.options.seed) % blocks | 1;
  while (std::gcd(step, blocks) != 1) step += 2;
  step %= blocks;
  if (blocks == 1) step = 0;
  const uint64_t first = Mix(launch.options.seed + 1) % blocks;
  std::atomic<uint64_t> next{0};
  std::mutex mutex;
  uint64_t failed_at = blocks;
  std::string failure;
  LaunchSteps steps;
  const auto work = [&] {
    Block block;
    for (;;) {
      const uint64_t i = next.fetch_add(1);
      if (i >= blocks) return;
      {
        std::lock_guard<std::mutex> lock(mutex);
        if (failed_at < i) return;
      }
      const uint64_t id =
          static_cast<uint64_t>((static_cast<unsigned __int128>(i) * step + first) % blocks);
      try {
        StartBlock(block, launch, id, i < static_cast<uint64_t>(launch.options.checked_blocks));
        RunBlock(block);
        LaunchSteps of_block;
        for (const Warp& warp : block.warps) {
          of_block.all += warp.steps;
          of_block.longest = std::max(of_block.longest, warp.steps);
        }
        std::lock_guard<std::mutex> lock(mutex);
        steps.all += of_block.all;
        steps.longest = std::max(steps.longest, of_block.longest);
      } catch (const Violation& violation) {
        std::lock_guard<std::mutex> lock(mutex);
        if (i < failed_at) {
          failed_at = i;
          failure = violation.what();
        }
        return;
      }
    }
  };
  std::vector<std::thread> pool;
  for (int t = 1; t < threads; ++t) pool.emplace_back(work);
  work();
  for (std::thread& thread : pool) thread.join();
  if (failed_at < blocks) throw Violation(failure);
  return steps;
}

}  // namespace nibble::cuda::emulator
