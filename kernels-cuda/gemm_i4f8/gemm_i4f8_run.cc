// SPDX-License-Identifier: Apache-2.0
//
// Launches: parameters from operands, one kernel or two (where steps are split).
#include <algorithm>

#include "kernels-cuda/gemm_i4f8/kernel_table.h"
#include "kernels-cuda/gemm_i4f8/params.h"
#include "kernels-cuda/gemm_i4f8/plan.h"
#include "kernels-cuda/gemm_i4f8/tile_shapes.h"

namespace nibble::cuda::gemm_i4f8 {
namespace {

template <class T>
T* Pointer(DevicePtr memory) {
  return reinterpret_cast<T*>(memory);
}

MatrixPointers Pointers(const DeviceWeights& weights, const Layout& layout, DevicePtr bias) {
  const auto* base = Pointer<const uint8_t>(weights.memory);
  return {base, base + layout.scales_offset(),
          layout.factors_bytes == 0
              ? nullptr
              : reinterpret_cast<const float*>(base + layout.factors_offset()),
          Pointer<const float>(bias)};
}

int32_t ScaleShift(const Layout& layout) {
  return layout.scale_bytes == 1 ? 0 : layout.scale_bytes == 2 ? 1 : 2;
}

int LeftBytes(DType activation) { return activation == DType::kBF16 ? 2 : 1; }

bool SameFormat(const WeightFormat& a, const WeightFormat& b) {
  return a.code == b.code && a.scale == b.scale && a.group_size == b.group_size;
}

Status Invalid(const std::string& message) { return Status(NB_INVALID_ARGUMENT, message); }

// What the kernels take for granted.
Status Check(const Device& device, const Plan& plan, const DeviceWeights& weights,
             const DeviceWeights* up, const GemmLeft& left, const GemmResult& result,
             const Scratch& scratch) {
  const std::string reason = Unsupported(weights.format, weights.rows, weights.cols, left.type,
                                         device.properties().sm);
  if (!reason.empty()) return Status(NB_UNSUPPORTED, reason);
  if (up != nullptr && (!SameFormat(up->format, weights.format) || up->rows != weights.rows ||
                        up->cols != weights.cols)) {
    return Invalid("gate and up: one shape and format was expected");
  }
  if (left.cols != weights.cols || left.rows < 1 || left.rows > INT32_MAX) {
    return Invalid("activations of shape [" + std::to_string(left.rows) + ", " +
                   std::to_string(left.cols) + "], but weights of " +
                   std::to_string(weights.cols) + " columns");
  }
  const int64_t bytes = LeftBytes(left.type), padded = RoundUp(left.cols, kStepColumns);
  if (left.values % 16 != 0 || left.stride * bytes % 16 != 0 ||
      (left.rows > 1 && left.stride < padded)) {
    return Invalid("activations with a stride of " + std::to_string(left.stride) +
                   " elements: rows on boundaries of 16 bytes, padded to " +
                   std::to_string(padded) + " columns, were expected");
  }
  if (!HasKernel(UnitColumns(weights.format), plan.block_tokens, left.rows) || plan.splits < 1 ||
      plan.splits > 65535) {
    return Invalid("a plan that no kernel has");
  }
  if (plan.warpgroup && (device.properties().sm != 90 || left.type != DType::kE4M3 ||
                         plan.block_tokens != 128)) {
    return Invalid("a plan with warpgroup products: E4M3 activations on sm_90 in blocks of 128 "
                   "tokens were expected");
  }
  if (result.type != DType::kF32 && result.type != DType::kBF16) {
    return Status(NB_UNSUPPORTED, "results of INT4 products are F32 or BF16");
  }
  if (up != nullptr && result.residual != 0) return Invalid("a SwiGLU pair takes no residual");
  const int64_t need = PlanScratchBytes(plan, weights.rows, left.rows, up != nullptr);
  if (scratch.bytes < need) {
    return Invalid("scratch of " + std::to_string(scratch.bytes) + " bytes, but " +
                   std::to_string(need) + " are needed");
  }
  return Status();
}

GemmParams MakeParams(const Plan& plan, const DeviceWeights& weights, const DeviceWeights* up,
                      const GemmLeft& left, const GemmResult& result, const Scratch& scratch) {
  const Layout layout(weights.format, weights.rows, weights.cols);
  const int unit = UnitColumns(weights.format);
  GemmParams p{};
  p.first = Pointers(weights, layout, result.bias);
  p.second = up != nullptr ? Pointers(*up, layout, result.up_bias) : p.first;
  p.pair = up != nullptr;
  p.rows = static_cast<int32_t>(weights.rows);
  p.tiles = static_cast<int32_t>(layout.tiles);
  p.steps = static_cast<int32_t>(layout.steps);
  p.groups = static_cast<int32_t>(layout.groups);
  p.scale_type = static_cast<int32_t>(weights.format.scale);
  p.scale_shift = ScaleShift(layout);
  p.row_factors = weights.format.HasRowFactors();
  // One group for all: a divisor above every unit's index.
  constexpr int64_t kMostUnits = int64_t{1} << 31;
  const int64_t group = weights.format.group_size;
  p.units_per_group = FastDivide(
      static_cast<uint32_t>(group == 0 ? kMostUnits : std::min(group / unit, kMostUnits)));
  p.left = Pointer<const uint8_t>(left.values);
  p.left_scales = Pointer<const float>(left.scales);
  p.left_stride = left.stride * LeftBytes(left.type);
  p.tokens = static_cast<int32_t>(left.rows);
  p.splits = static_cast<int32_t>(plan.splits);
  p.split_steps = static_cast<int32_t>(layout.steps / plan.splits);
  p.split_rest = static_cast<int32_t>(layout.steps % plan.splits);
  p.partial = Pointer<float>(scratch.memory);
  p.sum_scale = left.type == DType::kI8 ? 1.0f / 16 : 1.0f;  // its codes are decoded to 16 q
  p.result_bf16 = result.type == DType::kBF16;
  p.result = Pointer<void>(result.values);
  p.result_stride = result.stride;
  p.residual = Pointer<const float>(result.residual);
  p.residual_stride = result.residual_stride;
  return p;
}

// The same, from token `first` on.
GemmParams FromToken(GemmParams p, int64_t first, int64_t tokens) {
  p.left += first * p.left_stride;
  if (p.left_scales != nullptr) p.left_scales += first;
  p.result = static_cast<uint8_t*>(p.result) + first * p.result_stride * (p.result_bf16 ? 2 : 4);
  if (p.residual != nullptr) p.residual += first * p.residual_stride;
  p.tokens = static_cast<int32_t>(tokens);
  return p;
}

Status LaunchProduct(Device& device, const Plan& plan, DType activation, int unit,
                     const GemmParams& p) {
  const KernelId kernel = plan.warpgroup ? WarpgroupKernel(unit)
                                         : FindKernel(activation, unit, plan.block_tokens)->id;
  LaunchShape shape;
  shape.grid_y = static_cast<unsigned>(p.splits);
  if (plan.block_tokens <= 16) {
    shape.grid_x = static_cast<unsigned>(p.tiles);
    shape.block_x = 32 * kFewRowsWarps;
  } else {
    const int64_t block_tiles = p.pair ? kBlockTiles / 2 : kBlockTiles;
    shape.grid_x = static_cast<unsigned>(DivUp(p.tiles, block_tiles) * p.token_blocks);
    shape.block_x = static_cast<unsigned>(TiledThreads(plan.block_tokens));
    shape.dynamic_shared_bytes =
        static_cast<unsigned>(TiledSharedBytes(plan.block_tokens, LeftBytes(activation), unit));
  }
  NIBBLE_CUDA_RETURN_IF_FAILED(LaunchKernel(device, kernel, shape, p));
  if (p.splits == 1) return Status();
  LaunchShape merge;
  merge.block_x = 256;
  const auto row_blocks = static_cast<uint32_t>(DivUp(p.rows, 256));
  merge.grid_x = static_cast<unsigned>(p.tokens) * row_blocks;
  return LaunchKernel(device, KernelId{"gemm_i4f8_finish", "gemm_i4f8_merge"}, merge, p,
                      row_blocks);
}

Plan PlanFor(Device& device, const DeviceWeights& weights, const GemmLeft& left, bool pair) {
  Plan plan = MakePlan(weights.format, weights.rows, weights.cols, left.rows, pair,
                       device.properties().multiprocessors);
  plan.warpgroup = plan.block_tokens == 128 && left.type == DType::kE4M3 &&
                   UsesWarpgroups(device, UnitColumns(weights.format));
  return plan;
}

}  // namespace

Status RunPlanned(Device& device, const Plan& plan, const DeviceWeights& weights,
                  const DeviceWeights* up, const GemmLeft& left, const GemmResult& result,
                  const Scratch& scratch) {
  NIBBLE_CUDA_RETURN_IF_FAILED(Check(device, plan, weights, up, left, result, scratch));
  const int unit = UnitColumns(weights.format);
  GemmParams p = MakeParams(plan, weights, up, left, result, scratch);
  if (plan.block_tokens <= 16) return LaunchProduct(device, plan, left.type, unit, p);

  // So many tokens at a time that the blocks of a launch, and those of the merge, can be counted.
  const int64_t row_blocks = DivUp(p.tiles, p.pair ? kBlockTiles / 2 : kBlockTiles);
  const int64_t most_blocks = std::max<int64_t>(1, INT32_MAX / (row_blocks * plan.block_tokens));
  const int64_t most = most_blocks * plan.block_tokens;
  for (int64_t first = 0; first < left.rows; first += most) {
    GemmParams some = FromToken(p, first, std::min(most, left.rows - first));
    some.token_blocks = static_cast<int32_t>(DivUp(some.tokens, plan.block_tokens));
    NIBBLE_CUDA_RETURN_IF_FAILED(LaunchProduct(device, plan, left.type, unit, some));
  }
  return Status();
}

Status Run(Device& device, const DeviceWeights& weights, const GemmLeft& left,
           const GemmResult& result, const Scratch& scratch) {
  const Plan plan = PlanFor(device, weights, left, false);
  return RunPlanned(device, plan, weights, nullptr, left, result, scratch);
}

Status RunSwiGlu(Device& device, const DeviceWeights& gate, const DeviceWeights& up,
                 const GemmLeft& left, const GemmResult& result, const Scratch& scratch) {
  const Plan plan = PlanFor(device, gate, left, true);
  return RunPlanned(device, plan, gate, &up, left, result, scratch);
}

Status DequantizeRows(Device& device, const DeviceWeights& weights, DevicePtr ids, int64_t first,
                      int64_t count, DevicePtr output, int64_t output_stride) {
  if (count == 0) return Status();
  const Layout layout(weights.format, weights.rows, weights.cols);
  if (count < 0 || count > INT32_MAX ||
      (ids == 0 && (first < 0 || first > weights.rows - count))) {
    return Invalid("rows " + std::to_string(first) + " to " + std::to_string(first + count - 1) +
                   " of " + std::to_string(weights.rows));
  }
  DequantizeParams p{};
  p.matrix = Pointers(weights, layout, 0);
  p.cols = static_cast<uint32_t>(weights.cols);
  p.steps = static_cast<int32_t>(layout.steps);
  p.groups = static_cast<int32_t>(layout.groups);
  p.scale_type = static_cast<int32_t>(weights.format.scale);
  p.scale_shift = ScaleShift(layout);
  p.row_factors = weights.format.HasRowFactors();
  p.group_size = static_cast<uint32_t>(
      std::min(weights.format.Group(weights.cols), int64_t{1} << 31));
  p.ids = Pointer<const int32_t>(ids);
  p.first = static_cast<uint32_t>(first);
  p.output = Pointer<float>(output);
  p.output_stride = output_stride;
  LaunchShape shape;
  shape.grid_x = static_cast<unsigned>(count);
  shape.block_x = 128;
  return LaunchKernel(device, KernelId{"gemm_i4f8_finish", "gemm_i4f8_dequantize"}, shape, p);
}

}  // namespace nibble::cuda::gemm_i4f8
