// SPDX-License-Identifier: Apache-2.0
//
// Many tokens on Hopper: tiled.cuh's block of 128 output rows x 128 tokens, E4M3 activations, with
// warpgroup products. Hopper's FP8 tensor cores are reached by wgmma alone.
//
//   warps   2 warpgroups of 64 tokens each; warp i of a group has output rows 32 i .. 32 i + 31 in
//           two tiles of 16 (of a pair: one of each matrix). An instruction takes one tile of each
//           of the four warps as its 64 rows: which 64 they are does not matter to it.
//   stage   codes and scales as in tiled.cuh; tokens as wgmma.cuh draws them
//
// Weights go from codes through registers straight into the products; only the tokens are read
// from shared memory by the tensor cores. Their columns must stand there in the order in which
// the weights' fragments have them. A lane's eight neighbouring columns are slots 4 member..+3
// and 16 + 4 member..+3 of the instruction (layout.h), so the 4-byte words of every 32 columns
//
//   0 1 2 3 4 5 6 7   are stored as   0 2 4 6 1 3 5 7
//
// on their way through the registers of the thread that loads them: two steps ahead from memory,
// after the products of a step into its stage. Codes and scales go by cp.async, three steps ahead.
//
// What is rounded: as gemm_i4f8.h says for FP8 tensor cores. Groups are multiples of 32 columns
// or the whole row.
//
// Order. Products run beside the threads, so that four things have to be said: accumulators and
// weights are in their registers before wgmma.fence (HoldRegisters); every thread fences the tokens
// that it has stored before the barrier that hands them over; nobody looks at results before the
// wait; and a stage is filled anew behind a barrier that all warps reach after that wait.
//
// Bank conflicts: none. A thread stores two 16-byte words of half a row; the swizzle puts those of
// the eight threads that meet in a pass into other banks.
#pragma once

#include "kernels-cuda/gemm_i4f8/tile_block.cuh"
#include "kernels-cuda/gemm_i4f8/wgmma.cuh"

namespace nibble::cuda::gemm_i4f8 {

template <int kUnit>
__device__ __forceinline__ void TiledWarpgroup(const GemmParams& p) {
  constexpr int kBlockTokens = 128, kThreads = 256;
  constexpr int kStages = TiledStages(kBlockTokens, 1);
  constexpr int kUnits = kStepColumns / kUnit, kBlocks = kUnit / 32;
  constexpr int kTokensOffset = kBlockTiles * kStepBytes;
  constexpr int kScalesOffset = kTokensOffset + kBlockTokens * kStepColumns;
  constexpr int kStageBytes = kScalesOffset + kBlockTiles * kUnits * 64;
  static_assert(kStages * kStageBytes == TiledSharedBytes(kBlockTokens, 1, kUnit) &&
                    kThreads == TiledThreads(kBlockTokens), "host and device agree");
  static_assert(kTokensOffset % 512 == 0 && kStageBytes % 512 == 0, "swizzled tiles");
  extern __shared__ __align__(1024) uint8_t stages[];
  const uint32_t shared = SharedAddress(stages);
  const unsigned thread = threadIdx.x;
  const TileBlock block(p);

  // ---- producer: weights, and half a row of tokens ----
  const WeightCopies<kThreads, kUnit> weights(block);
  const unsigned token_row = thread / 2, half = thread % 2;
  const int64_t token =
      min(block.token_block * kBlockTokens + static_cast<int>(token_row), p.tokens - 1);
  const uint8_t* token_source = p.left + token * p.left_stride + half * 32;
  const unsigned token_swizzle = token_row / 2 % 4;
  const unsigned token_row_offset = kTokensOffset + token_row * kStepColumns;

  const auto load_weights = [&](int i, int stage) {
    if (block.begin + i < block.end) {
      const uint32_t to = shared + stage * kStageBytes;
      weights.Start(block.begin + i, to, to + kScalesOffset);
    }
    CopyAsyncCommit();
  };
  uint4 tokens[2];
  const auto load_tokens = [&](int i) {
    if (block.begin + i < block.end) {
      const auto* from = reinterpret_cast<const uint4*>(
          token_source + static_cast<int64_t>(block.begin + i) * kStepColumns);
      tokens[0] = __ldg(from);
      tokens[1] = __ldg(from + 1);
    }
  };
  const auto store_tokens = [&](int i, int stage) {
    if (block.begin + i < block.end) {
      uint8_t* row = stages + stage * kStageBytes + token_row_offset;
      *reinterpret_cast<uint4*>(row + ((2 * half) ^ token_swizzle) * 16) =
          make_uint4(tokens[0].x, tokens[0].z, tokens[1].x, tokens[1].z);
      *reinterpret_cast<uint4*>(row + ((2 * half + 1) ^ token_swizzle) * 16) =
          make_uint4(tokens[0].y, tokens[0].w, tokens[1].y, tokens[1].w);
    }
  };

  // ---- consumer ----
  const int lane = thread % 32, group = thread / 4 % 8;
  const int warp_rows = thread / 32 % 4, warp_tokens = thread / 128 * 64;
  float total[2][8][4] = {};
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) load_weights(i, i);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    load_tokens(i);
    store_tokens(i, i);
  }
  FenceSharedForWarpgroup();
  const int count = block.end - block.begin;
  for (int i = 0; i < count; ++i) {
    const int stage = i % kStages;
    CopyAsyncWait<kStages - 2>();
    __syncthreads();
    load_weights(i + kStages - 1, (i + kStages - 1) % kStages);
    load_tokens(i + 2);
    const uint8_t* from = stages + stage * kStageBytes;
    uint4 words[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      words[r] =
          *reinterpret_cast<const uint4*>(from + (2 * warp_rows + r) * kStepBytes + lane * 16);
    }
    const uint64_t b =
        DescribeB(shared + stage * kStageBytes + kTokensOffset + warp_tokens * kStepColumns);
#pragma unroll
    for (int unit = 0; unit < kUnits; ++unit) {
      uint32_t a[2][kBlocks][4];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int k = 0; k < kBlocks; ++k) {
          uint32_t even[2], odd[2];
          DecodeI4x8ToE4M3(unit * kBlocks + k == 0 ? words[r].x : words[r].z, even);
          DecodeI4x8ToE4M3(unit * kBlocks + k == 0 ? words[r].y : words[r].w, odd);
          a[r][k][0] = even[0];
          a[r][k][1] = odd[0];
          a[r][k][2] = even[1];
          a[r][k][3] = odd[1];
        }
      }
      float sum[2][32];
#pragma unroll
      for (int e = 0; e < 32; ++e) sum[0][e] = sum[1][e] = 0;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        HoldRegisters(sum[r]);
#pragma unroll
        for (int k = 0; k < kBlocks; ++k) HoldRegisters(a[r][k]);
      }
      WarpgroupFence();
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int k = 0; k < kBlocks; ++k) {
          // 32 columns further: two words of 16 bytes in every row.
          WarpgroupMultiply(sum[r], a[r][k], b + 2 * (unit * kBlocks + k), k != 0);
        }
      }
      WarpgroupCommit();
      WarpgroupWait(sum[0], sum[1]);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float2 scale = LoadScalePair(
            p.scale_type, from + kScalesOffset + ((2 * warp_rows + r) * kUnits + unit) * 64 +
                              ((2 * group) << p.scale_shift));
#pragma unroll
        for (int j = 0; j < 8; ++j) {
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            total[r][j][c] = fmaf(c < 2 ? scale.x : scale.y, sum[r][4 * j + c], total[r][j][c]);
          }
        }
      }
    }
    store_tokens(i + 2, (i + 2) % kStages);
    FenceSharedForWarpgroup();
  }
  // The ring serves once more, when all warps have left it.
  __syncthreads();
  StoreTiles<8>(block, warp_rows, block.token_block * kBlockTokens + warp_tokens, total,
                reinterpret_cast<float*>(stages) + thread / 32 * kStoreFloats);
}

}  // namespace nibble::cuda::gemm_i4f8
