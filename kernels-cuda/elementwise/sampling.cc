// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels-cuda/elementwise/elementwise.h"
#include "kernels-cuda/elementwise/params.h"

namespace nibble::cuda::elementwise {
namespace {

constexpr char kModule[] = "sampling";
constexpr int64_t kMostRowBlocks = 64;  // that share a row's weights

LaunchShape Blocks(int64_t blocks, int threads) {
  LaunchShape shape;
  shape.grid_x = static_cast<unsigned>(blocks);
  shape.block_x = static_cast<unsigned>(threads);
  return shape;
}

}  // namespace

Status Argmax(Device& device, Rows logits, int64_t rows, int64_t cols, DevicePtr ids) {
  if (rows == 0) return Status();
  return LaunchKernel(device, {kModule, "argmax"}, Blocks(rows, kTokenThreads), logits.values,
                      logits.stride, cols, ids);
}

// A weight and a candidate's key a token.
int64_t SampleScratchBytes(int64_t rows, int64_t cols) { return rows * cols * 16; }

Status Sample(Device& device, Rows logits, int64_t rows, int64_t cols,
              const SampleOptions& options, DevicePtr uniforms, DevicePtr ids,
              const Scratch& scratch) {
  NIBBLE_CUDA_RETURN_IF_FAILED(Argmax(device, logits, rows, cols, ids));
  if (rows == 0 || options.temperature == 0) return Status();
  if (scratch.bytes < SampleScratchBytes(rows, cols)) {
    return Status(NB_INTERNAL, "sampling has " + std::to_string(scratch.bytes) +
                                   " bytes of scratch, but needs " +
                                   std::to_string(SampleScratchBytes(rows, cols)));
  }
  const int64_t row_blocks = std::min(DivUp(cols, kPairThreads), kMostRowBlocks);
  NIBBLE_CUDA_RETURN_IF_FAILED(LaunchKernel(
      device, {kModule, "sample_weights"}, Blocks(rows * row_blocks, kPairThreads), logits.values,
      logits.stride, cols, row_blocks, options.temperature, ids, scratch.memory));

  SelectParams p = {};
  p.logits = reinterpret_cast<const float*>(logits.values);
  p.stride = logits.stride;
  p.cols = cols;
  p.weights = reinterpret_cast<const uint64_t*>(scratch.memory);
  p.candidates = reinterpret_cast<uint64_t*>(scratch.memory + rows * cols * 8);
  p.uniforms = reinterpret_cast<const double*>(uniforms);
  p.ids = reinterpret_cast<int32_t*>(ids);
  p.top_k = options.top_k < cols ? options.top_k : 0;
  p.top_p = options.top_p;
  p.least_weight =
      static_cast<uint64_t>(std::ceil(static_cast<double>(options.min_p) * 0x1p40));
  return LaunchKernel(device, {kModule, "sample_select"}, Blocks(rows, kTokenThreads), p);
}

Status Penalize(Device& device, DevicePtr logits, int64_t cols, DevicePtr tokens, int64_t count,
                float penalty) {
  if (count == 0) return Status();
  return LaunchKernel(device, {kModule, "penalize"}, Blocks(DivUp(count, kPairThreads), kPairThreads),
                      logits, cols, tokens, count, penalty);
}

}  // namespace nibble::cuda::elementwise
