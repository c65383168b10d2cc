// SPDX-License-Identifier: Apache-2.0
//
// What the kernels for many tokens share: which part of the product a block has, how codes and
// scales reach its stages, and how sums leave its registers.
//
//   a warp of rows (0..3) has tiles `slot` = 2 warp and 2 warp + 1 of the block's 8, a lane of it
//   output rows 2 group and 2 group + 1 of each and tokens 2 member and 2 member + 1 of every 8
#pragma once

#include "kernels-cuda/gemm_i4f8/finish.cuh"
#include "kernels-cuda/gemm_i4f8/operands.cuh"
#include "kernels-cuda/gemm_i4f8/tile_shapes.h"

namespace nibble::cuda::gemm_i4f8 {

struct TileBlock {
  __device__ __forceinline__ explicit TileBlock(const GemmParams& params)
      : p(params),
        row_block(static_cast<int>(blockIdx.x / static_cast<unsigned>(p.token_blocks))),
        token_block(static_cast<int>(blockIdx.x % static_cast<unsigned>(p.token_blocks))),
        split(blockIdx.y),
        begin(SplitBegin(params, split)),
        end(SplitBegin(params, split + 1)) {}

  // Which matrix tile `slot` is of, and which of its tiles; that may lie past the last.
  __device__ __forceinline__ const MatrixPointers& matrix(int slot) const {
    return p.pair != 0 && (slot & 1) != 0 ? p.second : p.first;
  }
  __device__ __forceinline__ int tile(int slot) const {
    return p.pair != 0 ? row_block * (kBlockTiles / 2) + (slot >> 1)
                       : row_block * kBlockTiles + slot;
  }

  const GemmParams& p;
  const int row_block, token_block, split;
  const int begin, end;  // steps
};

// One thread's share of copying a step's codes (8 tiles x 512 bytes) and scales (8 tiles x the
// units of a step x 64 bytes, of which narrow scales fill the first part). Tiles past the last
// become zeros.
template <int kThreads, int kUnit>
class WeightCopies {
 public:
  __device__ __forceinline__ explicit WeightCopies(const TileBlock& block) : p_(block.p) {
    const int thread = threadIdx.x, slot = thread / 32;
    tile_ = block.tile(slot);
    codes_ = block.matrix(slot).codes + tile_ * tile_bytes() + thread % 32 * 16;
    // thread = ((slot, unit), word of 16 bytes)
    item_ = thread >> p_.scale_shift;
    word_ = thread & ((1 << p_.scale_shift) - 1);
    const int scale_slot = min(item_ / kUnits, kBlockTiles - 1);
    const int64_t scale_tile = block.tile(scale_slot);
    scales_ = block.matrix(scale_slot).scales +
              ((scale_tile * p_.groups * kTileRows) << p_.scale_shift) + word_ * 16;
    scale_bytes_ = scale_tile < p_.tiles ? 16 : 0;
  }

  // Starts the copies of a step to shared addresses.
  __device__ __forceinline__ void Start(int step, uint32_t codes, uint32_t scales) const {
    const uint8_t* from = codes_ + static_cast<int64_t>(step) * kStepBytes;
#pragma unroll
    for (int c = 0; c < kCopies; ++c) {
      // Copies of a thread are an even number of slots apart: of one matrix, also of a pair.
      const int tiles = p_.pair != 0 ? c * kThreads / 64 : c * kThreads / 32;
      CopyAsync16(codes + (threadIdx.x + c * kThreads) * 16, from + tiles * tile_bytes(),
                  tile_ + tiles < p_.tiles ? 16 : 0);
    }
    if (item_ < kBlockTiles * kUnits) {
      const int64_t g = Divide(step * kUnits + item_ % kUnits, p_.units_per_group);
      CopyAsync16(scales + item_ * 64 + word_ * 16, scales_ + ((g * kTileRows) << p_.scale_shift),
                  scale_bytes_);
    }
  }

 private:
  static constexpr int kUnits = kStepColumns / kUnit;
  static constexpr int kCopies = kBlockTiles * kStepBytes / 16 / kThreads;
  static_assert(kBlockTiles * kUnits * 4 <= kThreads, "one scale word a thread");
  __device__ __forceinline__ int64_t tile_bytes() const {
    return static_cast<int64_t>(p_.steps) * kStepBytes;
  }

  const GemmParams& p_;
  const uint8_t* codes_;   // of copy 0
  const uint8_t* scales_;  // of group 0
  int tile_, item_, word_, scale_bytes_;
};

// The sums of a warp's two tiles and of 8 kTokenTiles tokens from first_token on: finished and
// stored, or left to the merge where steps are split. They pass through shared memory (this warp's
// kStoreFloats), 16 tokens at a time, as [token][32 rows]: a lane then has one row, neighbouring
// lanes write neighbouring results, and the code of the epilogue exists once for 16 tokens instead
// of once for each. Rows are 36 words apart, so that the pairs which half a warp writes at once
// (2 group + 36 * 2 member) are in different banks. No other thread may be using shared.
inline constexpr int kStoreStride = 36, kStoreTokens = 16;
inline constexpr int kStoreFloats = kStoreTokens * kStoreStride;

template <int kTokenTiles>
__device__ __forceinline__ void StoreTiles(const TileBlock& block, int warp_rows, int first_token,
                                           const float (&total)[2][kTokenTiles][4],
                                           float* shared) {
  const GemmParams& p = block.p;
  const unsigned lane = threadIdx.x % 32, group = threadIdx.x / 4 % 8, member = threadIdx.x % 4;
  // Of a pair the first 16 rows are the gate's and the others up's: 16 lanes a token.
  const int lane_row = p.pair != 0 ? lane % 16 : lane, lane_token = p.pair != 0 ? lane / 16 : 0;
  const int tokens_at_once = p.pair != 0 ? 2 : 1;
  const int n = block.tile(2 * warp_rows) * kTileRows + lane_row;
#pragma unroll
  for (int first = 0; first < kTokenTiles; first += 2) {
    if (first > 0) __syncwarp();
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float* to = shared + (8 * j + 2 * member + c) * kStoreStride + r * 16 + 2 * group;
          *reinterpret_cast<float2*>(to) =
              make_float2(total[r][first + j][c], total[r][first + j][2 + c]);
        }
      }
    }
    __syncwarp();
#pragma unroll 1
    for (int i = lane_token; i < kStoreTokens; i += tokens_at_once) {
      const int token = first_token + 8 * first + i;
      if (token >= p.tokens || n >= p.rows) break;
      const float sum = shared[i * kStoreStride + lane_row];
      const float up = p.pair != 0 ? shared[i * kStoreStride + lane_row + 16] : 0.0f;
      if (p.splits > 1) {
        *Partial(p, block.split, 0, token, n) = sum;
        if (p.pair != 0) *Partial(p, block.split, 1, token, n) = up;
      } else {
        Store(p, token, n, Result(p, token, n, TokenScale(p, token), sum, up));
      }
    }
  }
}

}  // namespace nibble::cuda::gemm_i4f8
