// SPDX-License-Identifier: Apache-2.0
//
// Which strip kernel runs, in which grid. The choice depends on the shape and the device alone.
#include <algorithm>

#include "kernels-cuda/common/modules.h"
#include "kernels-cuda/common/strip_matrix.h"
#include "kernels-cuda/common/strip_shapes.h"

namespace nibble::cuda {
namespace {

constexpr int64_t kMaxGridX = 2147483647;
constexpr int kMaxSplits = 64;
// A split has at least this much of K to itself for each of its warps, so that the pipeline fills.
constexpr int64_t kMinBricksPerWarp = 3;
// What S32 accumulators hold for certain.
constexpr int64_t kMaxIntegerCols = 131072;
constexpr unsigned kFinishThreads = 64, kRowThreads = 256;
// Blocks that share a row of weights: enough for the 4096 columns of one token's embedding at once.
constexpr int64_t kMostRowBlocks = 4;
constexpr KernelId kFinishSplits = {"strip_rows", "strip_finish_splits"};
constexpr KernelId kDequantizeRows = {"strip_rows", "strip_dequantize_rows"};

// Whether the image that the device runs multiplies FP8 by mma.sync (ptx.cuh).
bool HasFp8Products(const char* module, int sm) {
  bool cubin;
  const ModuleImage* image = ChooseImage(module, sm, &cubin);
  const int target = image == nullptr ? sm : image->target;
  return target >= 89 && target != 90;
}

struct Plan {
  KernelId kernel;
  unsigned threads, shared_bytes;
  int64_t token_tiles, row_tiles, splits, split_bricks;
};

// Splits K where the grid leaves more than a quarter of the multiprocessors idle, into as many
// parts as fill it twice, of at least min_bricks; each costs a pass over its sums.
void Split(const Device& device, int64_t bricks, int64_t min_bricks, int64_t min_splits,
           Plan* plan) {
  const int64_t tiles = plan->token_tiles * plan->row_tiles;
  const int64_t processors = std::max(1, device.properties().multiprocessors);
  int64_t splits = 1;
  if (4 * tiles < 3 * processors) {
    splits = std::min({DivUp(2 * processors, tiles), int64_t{kMaxSplits}, bricks / min_bricks});
  }
  plan->split_bricks = DivUp(bricks, std::max({splits, min_splits, int64_t{1}}));
  plan->splits = DivUp(bricks, plan->split_bricks);
}

// The kernels of strip_f32.cu.
Plan MakeF32Plan(const Device& device, const WeightFormat& format, int64_t rows, int64_t cols,
                 int64_t m, bool pair) {
  constexpr const char* kFew[2][2][2] = {
      {{"gemm_f32_any_few", "gemm_f32_any_few_pair"},
       {"gemm_f32_any_one", "gemm_f32_any_one_pair"}},
      {{"gemm_f32_f32_few", "gemm_f32_f32_few_pair"},
       {"gemm_f32_f32_one", "gemm_f32_f32_one_pair"}}};
  constexpr int64_t kTile = 64;  // tokens and rows
  const StripLayout layout(format, rows, cols);
  const bool f32 = format.code == DType::kF32, few = m <= 8;
  Plan plan;
  plan.kernel = {"strip_f32", few ? kFew[f32][m == 1][pair]
                              : f32 ? "gemm_f32_f32_tiles"
                                    : "gemm_f32_any_tiles"};
  plan.threads = 128;
  plan.shared_bytes = 0;
  plan.token_tiles = few ? 1 : DivUp(m, kTile);
  plan.row_tiles = few || pair ? layout.strips : DivUp(rows, kTile);
  Split(device, layout.bricks, 16, 1, &plan);
  return plan;
}

Plan MakePlan(const Device& device, const StripKernels& k, const WeightFormat& format,
              int64_t rows, int64_t cols, int64_t m, bool pair) {
  if (k.left == DType::kF32) return MakeF32Plan(device, format, rows, cols, m, pair);
  const StripLayout layout(format, rows, cols);
  const StripProduct product =
      k.product == StripProduct::kFP8 && !HasFp8Products(k.module, device.properties().sm)
          ? StripProduct::k16Bits
          : k.product;
  const int64_t tile_tokens = BlockOf(StripShape::kTiles, product).tokens();
  StripShape shape = StripShape::kTiles;
  if (m <= 8) {
    shape = pair ? StripShape::kDecodePair : StripShape::kDecode;
  } else if (k.wide != nullptr && layout.groups <= 1 && m > tile_tokens) {
    shape = StripShape::kWide;
  }
  const StripBlock block = BlockOf(shape, product);
  Plan plan;
  plan.kernel = {k.module, shape == StripShape::kDecode       ? k.decode
                           : shape == StripShape::kDecodePair ? k.decode_pair
                           : shape == StripShape::kTiles      ? k.tiles
                                                              : k.wide};
  plan.threads = static_cast<unsigned>(block.threads());
  plan.shared_bytes =
      static_cast<unsigned>(block.shared_bytes(k.code, k.left == DType::kBF16 ? 2 : 1));
  plan.token_tiles = DivUp(m, block.tokens());
  plan.row_tiles = DivUp(layout.strips, block.strips(pair));
  const bool integers = shape == StripShape::kWide && k.left == DType::kI8;
  Split(device, layout.bricks, kMinBricksPerWarp * block.warps_k,
        integers ? DivUp(cols, kMaxIntegerCols) : 1, &plan);
  return plan;
}

int64_t PartialBytes(const Plan& plan, int64_t rows, int64_t m, bool pair) {
  return plan.splits == 1 ? 0 : plan.splits * (pair ? 2 : 1) * m * RoundUp(rows, kStripRows) * 4;
}

bool Aligned(DevicePtr memory, int64_t stride, int bytes) {
  return memory % static_cast<uint64_t>(bytes) == 0 && stride % 4 == 0;
}

bool SameFormat(const DeviceWeights& a, const DeviceWeights& b) {
  return a.rows == b.rows && a.cols == b.cols && a.format.code == b.format.code &&
         a.format.scale == b.format.scale && a.format.group_size == b.format.group_size;
}

StripMatrix MatrixOf(const DeviceWeights& weights, DevicePtr bias) {
  const StripLayout layout(weights.format, weights.rows, weights.cols);
  const DevicePtr scales =
      layout.groups == 0 ? 0 : weights.memory + static_cast<DevicePtr>(layout.scales_offset());
  return {reinterpret_cast<const uint8_t*>(weights.memory),
          reinterpret_cast<const uint8_t*>(scales), reinterpret_cast<const float*>(bias)};
}

// The slices that share a scale, as far as one fold takes them.
int FoldSlices(const WeightFormat& format, const StripLayout& layout, int64_t cols) {
  if (layout.groups <= 1) return 0;
  const int64_t group = format.Group(cols);
  return group % BrickCols(format.code) == 0 ? BrickCols(format.code) / kSliceCols
         : group % (2 * kSliceCols) == 0     ? 2
                                             : 1;
}

}  // namespace

Status DescribeStrips(const DeviceWeights& weights, const DeviceWeights* up, const GemmLeft& left,
                      const GemmResult& result, StripArguments* a) {
  if (left.cols != weights.cols) {
    return {NB_INVALID_ARGUMENT, "activations have " + std::to_string(left.cols) +
                                     " columns, but the weights have " +
                                     std::to_string(weights.cols)};
  }
  if (up != nullptr && !SameFormat(weights, *up)) {
    return {NB_INVALID_ARGUMENT, "gate and up differ in shape or format"};
  }
  if (up != nullptr && result.residual != 0) {
    return {NB_INVALID_ARGUMENT, "a SwiGLU pair was given a residual, but takes none"};
  }
  if (left.rows < 1 || left.rows > 2147483647) {
    return {NB_INVALID_ARGUMENT, "activations have " + std::to_string(left.rows) +
                                     " rows, but 1 to 2147483647 were expected"};
  }
  const StripLayout layout(weights.format, weights.rows, weights.cols);
  *a = {};
  a->matrix[0] = MatrixOf(weights, result.bias);
  a->matrix[1] = up == nullptr ? a->matrix[0] : MatrixOf(*up, result.up_bias);
  a->pair = up != nullptr;
  a->code_type = static_cast<int32_t>(weights.format.code);
  a->scale_type = static_cast<int32_t>(weights.format.scale);
  a->brick_shift = BrickShift(weights.format.code);
  a->groups = static_cast<int32_t>(layout.groups);
  a->group_slices = static_cast<int32_t>(
      DivUp(weights.format.Group(weights.cols), kSliceCols));
  a->fold_slices = FoldSlices(weights.format, layout, weights.cols);
  a->m = static_cast<int32_t>(left.rows);
  a->n = static_cast<int32_t>(weights.rows);
  a->strips = static_cast<int32_t>(layout.strips);
  a->bricks = static_cast<int32_t>(layout.bricks);
  a->token_tiles = a->splits = 1;
  a->split_bricks = a->bricks;
  const int left_bytes = left.type == DType::kF32 ? 4 : left.type == DType::kBF16 ? 2 : 1;
  a->left = reinterpret_cast<const uint8_t*>(left.values);
  a->left_stride = left.stride * left_bytes;
  a->left_scales = reinterpret_cast<const float*>(left.scales);
  a->cols = weights.cols;
  a->group_cols = weights.format.Group(weights.cols);
  a->output = reinterpret_cast<void*>(result.values);
  a->output_stride = result.stride;
  a->output_bf16 = result.type == DType::kBF16;
  a->residual = reinterpret_cast<const float*>(result.residual);
  a->residual_stride = result.residual_stride;
  a->vectors = Aligned(result.values, result.stride, a->output_bf16 ? 8 : 16) &&
               (result.residual == 0 || Aligned(result.residual, result.residual_stride, 16));
  return {};
}

int64_t StripScratchBytes(const Device& device, const StripKernels& kernels,
                          const WeightFormat& format, int64_t rows, int64_t cols, int64_t m) {
  int64_t bytes = 0;
  for (const bool pair : {false, true}) {
    // Partial sums grow with the rows until another tile of tokens makes splits fewer, so that
    // only the last row count of each tile matters; beyond a grid that is full there are no more.
    for (int64_t rows_here = std::min<int64_t>(m, 8);; rows_here = std::min(m, rows_here + 8)) {
      const Plan plan = MakePlan(device, kernels, format, rows, cols, rows_here, pair);
      bytes = std::max(bytes, PartialBytes(plan, rows, rows_here, pair));
      const bool full = 4 * plan.token_tiles * plan.row_tiles >=
                        3 * int64_t{std::max(1, device.properties().multiprocessors)};
      if (rows_here == m || (full && rows_here > 64 && plan.splits == 1)) break;
      if (full && rows_here > 64) {  // integers of more columns than S32 sums: at every row count
        bytes = std::max(bytes, PartialBytes(MakePlan(device, kernels, format, rows, cols, m, pair),
                                             rows, m, pair));
        break;
      }
    }
  }
  return bytes;
}

Status RunStrips(Device& device, const StripKernels& kernels, const DeviceWeights& weights,
                 const DeviceWeights* up, const GemmLeft& left, const GemmResult& result,
                 const Scratch& scratch) {
  StripArguments a;
  NIBBLE_CUDA_RETURN_IF_FAILED(DescribeStrips(weights, up, left, result, &a));
  const bool pair = up != nullptr;
  const Plan plan = MakePlan(device, kernels, weights.format, weights.rows, weights.cols,
                             left.rows, pair);
  const int64_t blocks = plan.token_tiles * plan.row_tiles;
  const int64_t row_blocks = DivUp(int64_t{a.strips} * (kStripRows / 4), kFinishThreads);
  if (blocks > kMaxGridX || left.rows * row_blocks > kMaxGridX) {
    return {NB_UNSUPPORTED, std::to_string(left.rows) + " rows by " +
                                std::to_string(weights.rows) + " outputs are too many for one "
                                "launch"};
  }
  const int64_t partial = PartialBytes(plan, weights.rows, left.rows, pair);
  if (partial > scratch.bytes) {
    return {NB_INVALID_ARGUMENT, "scratch has " + std::to_string(scratch.bytes) +
                                     " bytes, but the product needs " + std::to_string(partial)};
  }
  a.token_tiles = static_cast<int32_t>(plan.token_tiles);
  a.splits = static_cast<int32_t>(plan.splits);
  a.split_bricks = static_cast<int32_t>(plan.split_bricks);
  a.partial = reinterpret_cast<float*>(scratch.memory);

  LaunchShape shape;
  shape.grid_x = static_cast<unsigned>(blocks);
  shape.grid_y = static_cast<unsigned>(plan.splits);
  shape.block_x = plan.threads;
  shape.dynamic_shared_bytes = plan.shared_bytes;
  NIBBLE_CUDA_RETURN_IF_FAILED(LaunchKernel(device, plan.kernel, shape, a));
  if (plan.splits == 1) return {};
  LaunchShape finish;
  finish.grid_x = static_cast<unsigned>(left.rows * row_blocks);
  finish.block_x = kFinishThreads;
  return LaunchKernel(device, kFinishSplits, finish, a, static_cast<uint32_t>(row_blocks));
}

Status DequantizeStripRows(Device& device, const DeviceWeights& weights, DevicePtr ids,
                           int64_t first, int64_t count, DevicePtr output,
                           int64_t output_stride) {
  if (count == 0) return {};
  const StripLayout layout(weights.format, weights.rows, weights.cols);
  StripDequantizeArguments a = {};
  a.matrix = MatrixOf(weights, 0);
  a.code_type = static_cast<int32_t>(weights.format.code);
  a.scale_type = static_cast<int32_t>(weights.format.scale);
  a.bricks = static_cast<int32_t>(layout.bricks);
  a.brick_shift = BrickShift(weights.format.code);
  a.groups = static_cast<int32_t>(layout.groups);
  a.cols = static_cast<uint32_t>(weights.cols);
  a.group_cols = static_cast<uint32_t>(
      std::min(weights.format.Group(weights.cols), int64_t{1} << 31));
  a.ids = reinterpret_cast<const int32_t*>(ids);
  a.first = static_cast<uint32_t>(first);
  a.output = reinterpret_cast<float*>(output);
  a.output_stride = output_stride;
  if (count > kMaxGridX) {
    return {NB_UNSUPPORTED, std::to_string(count) + " rows are too many for one launch"};
  }
  LaunchShape shape;
  shape.grid_x = static_cast<unsigned>(count);
  shape.grid_y = static_cast<unsigned>(
      std::min(DivUp(DivUp(weights.cols, 4), kRowThreads), kMostRowBlocks));
  shape.block_x = kRowThreads;
  return LaunchKernel(device, kDequantizeRows, shape, a);
}

}  // namespace nibble::cuda
