// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/emulator/warpgroup.h"

#include "kernels-cuda/emulator/machine.h"

namespace nibble::cuda::emulator {

namespace {

const std::string& NameOf(const Warp& warp, int32_t fragment) {
  return warp.block->launch->program->fragment_names[fragment];
}

std::string AtLine(const Instruction& instruction) {
  return "the wgmma of PTX line " + std::to_string(instruction.line);
}

}  // namespace

void Agree(Warp& warp, const Instruction& instruction, uint64_t a, uint64_t b, bool accumulate) {
  Block& block = *warp.block;
  const int first_warp = warp.index / kWarpgroupWarps * kWarpgroupWarps;
  if (first_warp + kWarpgroupWarps > static_cast<int>(block.warps.size())) {
    block.Fail(warp, &instruction, -1,
               "the block has " + std::to_string(block.warps.size()) +
                   " warps: this one is in no whole warpgroup");
  }
  WarpgroupLog& log = block.warpgroups[warp.index / kWarpgroupWarps];
  const uint64_t at = log.issued[warp.index % kWarpgroupWarps]++ - log.first;
  if (at == log.entries.size()) {
    for (int w = first_warp; w < first_warp + kWarpgroupWarps; ++w) {
      if (block.warps[w].live == 0) {
        block.Fail(warp, &instruction, -1,
                   "warp " + std::to_string(w) + " of the warpgroup has ended without this");
      }
    }
    log.entries.push_back({&instruction, a, b, accumulate, warp.index});
  } else {
    const WarpgroupLog::Entry& entry = log.entries[at];
    const char* what = entry.instruction != &instruction ? "instruction"
                       : entry.a != a || entry.b != b    ? "matrix descriptor"
                       : entry.accumulate != accumulate  ? "scale-d"
                                                         : nullptr;
    if (what != nullptr) {
      block.Fail(warp, &instruction, -1,
                 "the warps of the warpgroup disagree about the " + std::string(what) + ": warp " +
                     std::to_string(entry.warp) + " issued " + AtLine(*entry.instruction));
    }
  }
  while (!log.entries.empty()) {
    for (const uint64_t issued : log.issued) {
      if (issued <= log.first) return;
    }
    log.entries.pop_front();
    ++log.first;
  }
}

void CheckOrder(Warp& warp, const Instruction& instruction, int32_t fragment,
                FragmentUse::Role role) {
  const FragmentUse& use = warp.fragments[fragment];
  const std::string what = "register " + NameOf(warp, fragment) +
                           (role == FragmentUse::Role::kAccumulator ? " (the accumulator's)"
                                                                    : " (the left operand's)");
  if (!use.ordered) {
    warp.block->Fail(warp, &instruction, -1,
                     what + (use.access_line == 0
                                 ? ": no wgmma.fence comes before the first product"
                                 : " was accessed at PTX line " + std::to_string(use.access_line) +
                                       ": no wgmma.fence has come since"));
  }
  if (use.role == FragmentUse::Role::kNone) return;
  if (use.role != role || (role == FragmentUse::Role::kAccumulator &&
                           ShapeOf(*use.product).name != ShapeOf(instruction).name)) {
    warp.block->Fail(warp, &instruction, -1,
                     what + " is another operand, or one of another shape, of " +
                         AtLine(*use.product) + (use.under_way > 0
                                                     ? ", which nothing has waited for"
                                                     : ": no wgmma.fence has come since"));
  }
}

void RunWatched(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const Program& program = *warp.block->launch->program;
  const Watch& watch = program.watches[&instruction - program.code.data()];
  for (const int32_t f : watch.fragments) {
    FragmentUse& use = warp.fragments[f];
    if (use.under_way > 0) {
      warp.block->Fail(warp, &instruction, -1,
                       "register " + NameOf(warp, f) + " belongs to " + AtLine(*use.product) +
                           ", which nothing has waited for");
    }
    use.ordered = false;
    use.access_line = instruction.line;
  }
  watch.run(warp, instruction, mask);
}

void RunProxyFence(Warp& warp, const Instruction&, uint32_t mask) {
  warp.proxy_fences.push_back({warp.clock[warp.index], mask});
}

void ResetWarpgroups(Block& block) {
  const size_t fragments = block.launch->program->fragment_names.size();
  for (Warp& warp : block.warps) {
    warp.fragments.assign(fragments, FragmentUse());
    warp.products.clear();
    warp.product_group = 0;
    warp.proxy_fences.clear();
  }
  const size_t groups = (block.warps.size() + kWarpgroupWarps - 1) / kWarpgroupWarps;
  block.warpgroups.assign(groups, WarpgroupLog());
}

void CheckWarpgroupAtExit(const Warp& warp) {
  const Block& block = *warp.block;
  if (!warp.products.empty()) {
    block.Fail(warp, nullptr, -1,
               "the warp ends, but nothing has waited for " +
                   AtLine(*warp.products.front().instruction));
  }
  const WarpgroupLog& log = block.warpgroups[warp.index / kWarpgroupWarps];
  const uint64_t at = log.issued[warp.index % kWarpgroupWarps] - log.first;
  if (at < log.entries.size()) {
    block.Fail(warp, nullptr, -1,
               "the warp ends without " + AtLine(*log.entries[at].instruction) +
                   ", which warp " + std::to_string(log.entries[at].warp) +
                   " of its warpgroup has issued");
  }
}

}  // namespace nibble::cuda::emulator
