// SPDX-License-Identifier: Apache-2.0
//
// Many tokens: a block computes 128 output rows x kBlockTokens tokens (of a pair: 64 rows of
// each matrix, tiles in turn).
//
//   warps   4 of 32 output rows (two tiles of 16; of a pair: one of each matrix, so that gate and
//           up meet in one thread) x kBlockTokens / 64, but at least 1, of up to 64 tokens
//   stage   codes    8 tiles x 512 bytes, as they lie in memory: a lane reads its own 16 bytes
//           tokens   kBlockTokens rows of 64 columns, 64 or 128 bytes each, the two blocks of 32
//                    columns of some rows swapped (below)
//           scales   8 tiles x the units of a step x 64 bytes
//
// A ring of kStages stages is filled by cp.async, 16 bytes a copy; one barrier a step: when all
// warps have passed it, the step has arrived and the stage of the step before is free.
//
// Bank conflicts: none. Of tokens, lanes read 8 (16) bytes at row * 64 + block * 32 + member * 8
// (twice that for BF16); the four (two) rows that meet in one pass of 128 bytes would use the same
// banks, unless rows 2 and 3 of four (every second row) have their blocks swapped.
//
// Registers: 64 sums a thread, codes decoded once a step for all tokens of a warp, and a unit's
// own accumulators only for one token tile at a time.
//
// Limits: any number of rows, steps and tokens. Tiles and tokens past the last are zeros, and are
// not stored.
#pragma once

#include "kernels-cuda/gemm_i4f8/tile_block.cuh"

namespace nibble::cuda::gemm_i4f8 {

template <class Left, int kUnit, int kBlockTokens>
__device__ __forceinline__ void Tiled(const GemmParams& p) {
  constexpr int kStages = TiledStages(kBlockTokens, Left::kBytes);
  constexpr int kUnits = kStepColumns / kUnit;
  constexpr int kThreads = TiledThreads(kBlockTokens);
  constexpr int kTokenTiles = (kBlockTokens > 64 ? 64 : kBlockTokens) / 8;
  constexpr int kTokenBytes = kStepColumns * Left::kBytes;  // of one row in a stage
  constexpr int kTokenWords = kTokenBytes / 16;
  constexpr int kTokensOffset = kBlockTiles * kStepBytes;
  constexpr int kScalesOffset = kTokensOffset + kBlockTokens * kTokenBytes;
  constexpr int kStageBytes = kScalesOffset + kBlockTiles * kUnits * 64;
  static_assert(kStages * kStageBytes == TiledSharedBytes(kBlockTokens, Left::kBytes, kUnit),
                "host and device agree");
  extern __shared__ __align__(128) uint8_t stages[];
  const uint32_t shared = SharedAddress(stages);
  const unsigned thread = threadIdx.x;
  const TileBlock block(p);

  // ---- producer: what this thread copies in every step ----
  const WeightCopies<kThreads, kUnit> weights(block);
  constexpr int kTokenCopies = kBlockTokens * kTokenWords / kThreads;
  static_assert(kBlockTokens * kTokenWords % kThreads == 0, "every thread copies as many words");
  // A thread's copies are kRowsApart rows apart, a multiple of four: the same blocks are swapped.
  constexpr int kRowsApart = kThreads / kTokenWords;
  const unsigned token_row = thread / kTokenWords, token_word = thread % kTokenWords;
  const int token = block.token_block * kBlockTokens + static_cast<int>(token_row);
  const uint8_t* token_source = p.left + token * p.left_stride + token_word * 16;
  const unsigned swap = Left::kBytes == 1 ? token_row / 2 % 2 : token_row % 2;
  const uint32_t token_target = kTokensOffset + token_row * kTokenBytes +
                                (token_word ^ (swap * (kTokenWords / 2))) * 16;
  const auto load = [&](int step, int stage) {
    if (step < block.end) {
      const uint32_t to = shared + stage * kStageBytes;
      weights.Start(step, to, to + kScalesOffset);
      const uint8_t* from = token_source + static_cast<int64_t>(step) * kTokenBytes;
#pragma unroll
      for (int c = 0; c < kTokenCopies; ++c) {
        CopyAsync16(to + token_target + c * kRowsApart * kTokenBytes,
                    from + c * kRowsApart * p.left_stride,
                    token + c * kRowsApart < p.tokens ? 16 : 0);
      }
    }
    CopyAsyncCommit();
  };

  // ---- consumer ----
  const int lane = thread % 32, group = thread / 4 % 8, member = thread % 4;
  const int warp_rows = thread / 32 % 4, warp_tokens = kThreads > 128 ? thread / 128 * 64 : 0;
  const int swapped = Left::kBytes == 1 ? thread / 8 % 2 : thread / 4 % 2;
  float total[2][kTokenTiles][4] = {};
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) load(block.begin + i, i);
  int stage = 0, free_stage = kStages - 1;
  for (int step = block.begin; step < block.end; ++step) {
    CopyAsyncWait<kStages - 2>();
    __syncthreads();
    load(step + kStages - 1, free_stage);
    const uint8_t* from = stages + stage * kStageBytes;
    uint4 words[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      words[r] =
          *reinterpret_cast<const uint4*>(from + (2 * warp_rows + r) * kStepBytes + lane * 16);
    }
    using Raw = typename Left::Raw;
    const uint8_t* tokens =
        from + kTokensOffset + (warp_tokens + group) * kTokenBytes + member * sizeof(Raw);
    MultiplyStep<Left, kUnit, 2, kTokenTiles>(
        words,
        [&](int r, int unit) {
          return LoadScalePair(p.scale_type, from + kScalesOffset +
                                                 ((2 * warp_rows + r) * kUnits + unit) * 64 +
                                                 ((2 * group) << p.scale_shift));
        },
        [&](int j, int b) {
          return *reinterpret_cast<const Raw*>(tokens + 8 * j * kTokenBytes +
                                               (b ^ swapped) * (kTokenBytes / 2));
        },
        total);
    free_stage = stage;
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }
  // The ring serves once more, when all warps have left it.
  static_assert(kStages * kStageBytes >= kThreads / 32 * kStoreFloats * 4, "room for every warp");
  __syncthreads();
  StoreTiles<kTokenTiles>(block, warp_rows, block.token_block * kBlockTokens + warp_tokens, total,
                          reinterpret_cast<float*>(stages) + thread / 32 * kStoreFloats);
}

}  // namespace nibble::cuda::gemm_i4f8
