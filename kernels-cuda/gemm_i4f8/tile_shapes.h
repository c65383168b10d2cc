// SPDX-License-Identifier: Apache-2.0
//
// The sizes of the kernels' blocks, for the device and for those who launch them.
#pragma once

#include "kernels-cuda/gemm_i4f8/layout.h"

namespace nibble::cuda::gemm_i4f8 {

// ---- few_rows.cuh ----

inline constexpr int kFewRowsWarps = 8;
// Steps of a ring: three on the way while one is used. Two blocks a multiprocessor then have
// 24 KiB on the way, about what a memory of 3 TB/s needs over its latency.
inline constexpr int kFewRowsStages = 4;

// ---- tiled.cuh ----

// Tiles of 16 output rows of a block.
inline constexpr int kBlockTiles = 8;

inline constexpr int TiledThreads(int block_tokens) { return block_tokens > 64 ? 256 : 128; }

// Blocks of a multiprocessor that registers must leave room for: 8 warps of up to 255 where a
// thread has 64 sums, else 12 of 168. More would not fit without spills.
inline constexpr int TiledBlocks(int block_tokens) {
  return block_tokens > 64 ? 1 : block_tokens > 32 ? 2 : 3;
}

// Stages of a ring. 128 tokens in BF16 take 16 KiB a stage: with four, 99 KiB would not suffice
// for the widest scales.
inline constexpr int TiledStages(int block_tokens, int left_bytes) {
  return block_tokens * left_bytes > 128 ? 3 : 4;
}

// Dynamic shared memory of a block.
inline constexpr int TiledSharedBytes(int block_tokens, int left_bytes, int unit) {
  return TiledStages(block_tokens, left_bytes) *
         (kBlockTiles * kStepBytes + block_tokens * kStepColumns * left_bytes +
          kBlockTiles * (kStepColumns / unit) * 64);
}

}  // namespace nibble::cuda::gemm_i4f8
