// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/gemm_i4f8/plan.h"

#include <algorithm>

#include "kernels-cuda/gemm_i4f8/kernel_table.h"
#include "kernels-cuda/gemm_i4f8/tile_shapes.h"

namespace nibble::cuda::gemm_i4f8 {
namespace {

// Tokens up to which the kernel that streams weights is taken.
constexpr int64_t kFewTokens = 16;

// Blocks that a grid should have: so many a multiprocessor that all of them work and memory is
// asked for enough at once. Splitting further costs the sums' way through memory.
constexpr int64_t kBlocksPerMultiprocessor = 2;
// Steps that a split keeps at least: two a warp, and enough to fill the ring of a tiled block.
constexpr int64_t kFewestSteps = 16;
constexpr int64_t kMostSplits = 64;

int64_t Blocks(int64_t tiles, int block_tokens, int64_t tokens, bool pair) {
  if (block_tokens <= kFewTokens) return tiles;
  return DivUp(tiles, pair ? kBlockTiles / 2 : kBlockTiles) * DivUp(tokens, block_tokens);
}

}  // namespace

int UnitColumns(const WeightFormat& format) {
  const int64_t g = format.group_size;  // 0: the whole row
  return g % 64 == 0 ? 64 : g % 32 == 0 ? 32 : 16;
}

bool HasKernel(int unit, int block_tokens, int64_t tokens) {
  return FindKernel(DType::kE4M3, unit, block_tokens) != nullptr &&
         (block_tokens > kFewTokens || tokens <= block_tokens);
}

Plan MakePlan(const WeightFormat& format, int64_t rows, int64_t cols, int64_t tokens, bool pair,
              int multiprocessors) {
  const Layout layout(format, rows, cols);
  const int64_t wanted = kBlocksPerMultiprocessor * std::max(1, multiprocessors);
  Plan plan{8, 1};
  if (tokens > 8) plan.block_tokens = 16;
  if (tokens > kFewTokens) plan.block_tokens = 32;
  if (tokens > 32 && UnitColumns(format) != 16) {
    // The larger tile decodes weights for twice the tokens, where it leaves no processor idle.
    plan.block_tokens =
        tokens > 64 && Blocks(layout.tiles, 128, tokens, pair) >= wanted / 2 ? 128 : 64;
  }
  const int64_t blocks = Blocks(layout.tiles, plan.block_tokens, tokens, pair);
  const int64_t most = std::min(kMostSplits, layout.steps / kFewestSteps);
  plan.splits = std::max<int64_t>(1, std::min(wanted / blocks, most));
  return plan;
}

int64_t PlanScratchBytes(const Plan& plan, int64_t rows, int64_t tokens, bool pair) {
  return plan.splits == 1 ? 0 : plan.splits * (pair ? 2 : 1) * rows * tokens * 4;
}

int64_t ScratchBytes(const Device& device, const WeightFormat& format, int64_t rows, int64_t cols,
                     int64_t m) {
  // A plan is the same for all tokens of one block of the smallest tile, and its scratch grows
  // with them; once the largest tile has blocks enough of tokens alone, nothing is split.
  const int multiprocessors = device.properties().multiprocessors;
  const int64_t enough = 128 * kBlocksPerMultiprocessor * std::max(1, multiprocessors);
  int64_t bytes = 0;
  for (const bool pair : {false, true}) {
    const auto add = [&](int64_t tokens) {
      const Plan plan = MakePlan(format, rows, cols, tokens, pair, multiprocessors);
      bytes = std::max(bytes, PlanScratchBytes(plan, rows, tokens, pair));
    };
    add(std::min<int64_t>(m, 8));
    add(std::min<int64_t>(m, 16));
    for (int64_t tokens = 32; tokens < std::min(m, enough) + 32; tokens += 32) {
      add(std::min(m, tokens));
    }
  }
  return bytes;
}

}  // namespace nibble::cuda::gemm_i4f8
