// SPDX-License-Identifier: Apache-2.0
//
// bar, barrier and bar.warp.

#include <algorithm>

#include "kernels-cuda/emulator/decoder.h"
#include "kernels-cuda/emulator/lanes.h"

namespace nibble::cuda::emulator {

namespace {

enum Action : uint8_t { kSync, kArrive, kReducePopulation, kReduceAnd, kReduceOr };

// The value of a register that all lanes of a barrier must agree on.
uint32_t Agreed(Warp& warp, const Instruction& instruction, uint32_t mask, int32_t offset,
                const char* what) {
  const uint32_t* values = warp.Reg<uint32_t>(offset);
  const uint32_t value = values[__builtin_ctz(mask)];
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) != 0 && values[l] != value) {
      warp.block->Fail(warp, &instruction, l,
                       std::string("the lanes disagree about the barrier's ") + what);
    }
  }
  return value;
}

void Complete(Block& block, int id) {
  Barrier& barrier = block.barriers[id];
  for (int w : barrier.waiting) {
    Warp& warp = block.warps[w];
    for (size_t i = 0; i < warp.clock.size(); ++i)
      warp.clock[i] = std::max(warp.clock[i], barrier.clock[i]);
    warp.waiting = false;
    warp.barrier = -1;
  }
  const size_t warps = block.warps.size();
  barrier = Barrier{};
  barrier.clock.assign(warps, 0);
}

void RunBarrier(Warp& warp, const Instruction& instruction, uint32_t mask) {
  Block& block = *warp.block;
  RequireConverged(warp, instruction, mask, false);
  const uint32_t id = Agreed(warp, instruction, mask, instruction.a, "number");
  if (id >= kBarriers)
    block.Fail(warp, &instruction, -1, "barrier " + std::to_string(id) + " of 16");
  const int warps = static_cast<int>(block.warps.size());
  const bool whole = instruction.b < 0;
  const int expected =
      whole ? warps * kLanes
            : static_cast<int>(Agreed(warp, instruction, mask, instruction.b, "thread count"));
  if (expected <= 0 || expected % kLanes != 0 || expected > warps * kLanes) {
    block.Fail(warp, &instruction, -1,
               "a barrier of " + std::to_string(expected) + " threads in a block of " +
                   std::to_string(block.threads));
  }
  Barrier& barrier = block.barriers[id];
  if (whole && block.exited_warps > 0) {
    block.Fail(warp, &instruction, -1,
               "barrier " + std::to_string(id) + " of the whole block, but " +
                   std::to_string(block.exited_warps) + " of its warps have ended");
  }
  if (barrier.arrived > 0 && barrier.expected != expected) {
    block.Fail(warp, &instruction, -1,
               "barrier " + std::to_string(id) + " for " + std::to_string(expected) +
                   " threads, but the arrival at PTX line " + std::to_string(barrier.line) +
                   " was for " + std::to_string(barrier.expected));
  }
  barrier.expected = expected;
  barrier.whole_block = whole;
  barrier.line = instruction.line;
  barrier.arrived += kLanes;
  if (barrier.clock.empty()) barrier.clock.assign(warps, 0);
  for (int i = 0; i < warps; ++i) barrier.clock[i] = std::max(barrier.clock[i], warp.clock[i]);
  ++warp.clock[warp.index];
  warp.current_line = instruction.line;
  if (instruction.option != kArrive) {
    warp.waiting = true;
    warp.barrier = static_cast<int>(id);
    barrier.waiting.push_back(warp.index);
  }
  if (instruction.option >= kReducePopulation) {
    uint32_t p = warp.Pred(instruction.c);
    if (instruction.mode != 0) p = ~p;
    barrier.reduction += static_cast<uint32_t>(__builtin_popcount(p & mask));
    barrier.reducers.push_back({warp.index, &instruction, mask});
  }
  if (barrier.arrived < barrier.expected) return;
  for (const Barrier::Reducer& reducer : barrier.reducers) {
    Warp& other = block.warps[reducer.warp];
    const Instruction& its = *reducer.instruction;
    const uint32_t count = barrier.reduction;
    if (its.option == kReducePopulation) {
      uint32_t* d = other.Reg<uint32_t>(its.d);
      for (int l = 0; l < kLanes; ++l) {
        if ((reducer.mask >> l & 1) != 0) d[l] = count;
      }
    } else {
      const bool yes =
          its.option == kReduceAnd
              ? count == static_cast<uint32_t>(std::min(barrier.expected, block.threads))
              : count != 0;
      uint32_t& d = other.Pred(its.d);
      d = yes ? d | reducer.mask : d & ~reducer.mask;
    }
  }
  Complete(block, static_cast<int>(id));
}

// bar.warp.sync: orders the shared memory accesses of the warp's lanes.
void RunWarpBarrier(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const uint32_t* members = warp.Reg<uint32_t>(instruction.a);
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) != 0 && members[l] != mask) {
      char text[112];
      std::snprintf(text, sizeof(text), "the membermask is 0x%08x, but the lanes here are 0x%08x",
                    members[l], mask);
      warp.block->Fail(warp, &instruction, l, text);
    }
  }
  ++warp.clock[warp.index];
}

}  // namespace

bool DecodeBarrier(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  const std::string& name = statement.opcode[0];
  if (name != "bar" && name != "barrier") return false;
  Modifiers modifiers(statement);
  if (modifiers.Take("warp")) {
    if (!modifiers.Take("sync")) modifiers.Unknown();
    modifiers.Finish();
    instruction->a = decoder.Source(0, 32);
    instruction->run = RunWarpBarrier;
    return true;
  }
  if (modifiers.Take("cluster")) modifiers.Unknown("clusters");
  modifiers.Take("cta");
  modifiers.Take("aligned");
  const std::string action = modifiers.TakeOf({"sync", "arrive", "red"});
  if (action.empty()) modifiers.Unknown();
  size_t i = 0;
  if (action == "red") {
    const std::string operation = modifiers.TakeOf({"popc", "and", "or"});
    if (operation.empty()) modifiers.Unknown();
    modifiers.TakeType();
    instruction->option = operation == "popc"  ? kReducePopulation
                          : operation == "and" ? kReduceAnd
                                               : kReduceOr;
    instruction->d = decoder.Destination(i++, operation == "popc" ? 32 : 1);
  } else {
    instruction->option = action == "sync" ? kSync : kArrive;
  }
  modifiers.Finish();
  instruction->a = decoder.Source(i++, 32);
  const size_t counts = decoder.count() - i - (action == "red" ? 1 : 0);
  if (counts > 0) instruction->b = decoder.Source(i++, 32);
  if (action == "red") {
    bool negated = false;
    instruction->c = decoder.SourcePredicate(decoder.operand(i), &negated);
    instruction->mode = negated;
  }
  instruction->run = RunBarrier;
  return true;
}

}  // namespace nibble::cuda::emulator
