// SPDX-License-Identifier: Apache-2.0
//
// How the blocks of the strip kernels (strip_gemm.cuh) are shaped; host and device both see it.
//
//   kDecode      8 tokens x 32 rows; four warps share K brick by brick and add up in order, so
//                that even a small matrix keeps many loads under way
//   kDecodePair  the same for a pair: 32 rows of gate and of up
//   kTiles       32 tokens (FP8 products: 48) x 256 rows, four warps side by
//                side with 64 rows each (a pair: 32 of either); scales applied as K goes on
//   kWide        64 tokens x 256 rows, sums over all of K in the tensor cores' accumulators:
//                one scale a row only. 128 accumulators a thread
//
// A stage of the pipeline is one brick of columns: words of weights, tokens and, where a row has
// several scales, those of the brick. A block keeps within the 99 KiB that sm_89 and sm_120 have;
// two of most fit the multiprocessors of sm_80 and sm_90.
#pragma once

#include "kernels-cuda/common/strip_layout.h"

namespace nibble::cuda {

enum class StripShape { kDecode, kDecodePair, kTiles, kWide };

// What the tensor cores multiply.
enum class StripProduct { k16Bits, kFP8, kI8 };

struct StripBlock {
  int token_tiles;  // of 8 tokens
  int units;        // strips of a warp
  int warps_n;      // side by side along the rows
  int warps_k;      // that share K
  int stages;
  bool row_scales_only;

  constexpr int threads() const { return 32 * warps_n * warps_k; }
  constexpr int tokens() const { return 8 * token_tiles; }
  // Strips of a block; of a pair, of each matrix.
  constexpr int strips(bool pair) const { return pair ? warps_n : warps_n * units; }
  constexpr int weight_bytes(DType code) const {
    return warps_n * warps_k * units * BrickBytes(code);
  }
  constexpr int left_bytes(DType code, int left_bytes) const {
    return warps_k * tokens() * BrickCols(code) * left_bytes;
  }
  // The scales of a brick's groups: up to four of 32 F32 for each strip.
  constexpr int scale_bytes(DType code) const {
    return IsUnquantized(code) || row_scales_only ? 0 : warps_n * warps_k * units * kScaleBytes;
  }
  constexpr int stage_bytes(DType code, int left) const {
    return weight_bytes(code) + left_bytes(code, left) + scale_bytes(code);
  }
  constexpr int shared_bytes(DType code, int left) const {
    return stages * stage_bytes(code, left);
  }

  static constexpr int kScaleBytes = 4 * kStripRows * 4;
};

constexpr StripBlock BlockOf(StripShape shape, StripProduct product) {
  const int tile = product == StripProduct::kFP8 ? 6 : 4;
  return shape == StripShape::kDecode       ? StripBlock{1, 1, 1, 4, 4, false}
         : shape == StripShape::kDecodePair ? StripBlock{1, 2, 1, 4, 4, false}
         : shape == StripShape::kTiles      ? StripBlock{tile, 2, 4, 1, 3, false}
                                            : StripBlock{8, 2, 4, 1, 3, true};
}

}  // namespace nibble::cuda
