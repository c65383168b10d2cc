// SPDX-License-Identifier: Apache-2.0
//
// Few tokens (up to 8 a token tile, one or two tiles): bound by reading the weights once.
//
//   block = one tile of 16 output rows (of both matrices of a pair), 8 warps
//
//     step   0   1   2   3   4   5   6   7   8   9  ...        warps take steps in turn, so that
//     warp   0   1   2   3   4   5   6   7   0   1  ...        a block reads 4 KiB in one stretch;
//   pair     0 4 1 5 2 6 3 7 0 4 ...                           4 warps a matrix
//
// Each warp streams its steps through a ring of its own in shared memory: every lane copies the
// 16 bytes that it will decode (cp.async past the L1 cache, one step 512 bytes), the first lanes
// the scales. No warp waits for another before the end; the ring keeps up to 12 KiB a block on
// the way. Tokens are small and read by all blocks: each lane loads its share straight from
// global memory, through the L1 cache, one step ahead.
//
// At the end the warps' sums meet in shared memory and are added in the order of the warps; where
// the steps are also split over blocks (grid y), the sums go to memory and a second kernel adds
// them in the order of the splits. The same bits, then, on every run.
//
// Bank conflicts: none. A lane writes and reads its own 16 bytes of a step; a sum's slot is
// 2 group + 20 token, and 20 words apart the four members of a quarter warp use other banks.
//
// Limits: 1 to 8 * kTokenTiles tokens, any number of rows and steps.
#pragma once

#include "kernels-cuda/gemm_i4f8/finish.cuh"
#include "kernels-cuda/gemm_i4f8/operands.cuh"
#include "kernels-cuda/gemm_i4f8/tile_shapes.h"

namespace nibble::cuda::gemm_i4f8 {

template <class Left, int kUnit, int kTokenTiles>
__device__ __forceinline__ void FewRows(const GemmParams& p) {
  constexpr int kUnits = kStepColumns / kUnit;
  constexpr int kScaleBytes = kUnits * kTileRows * 4;  // of a step, if they are F32
  constexpr int kSumStride = 20;
  __shared__ __align__(16) uint8_t codes[kFewRowsWarps][kFewRowsStages][kStepBytes];
  __shared__ __align__(16) uint8_t scales[kFewRowsWarps][kFewRowsStages][kScaleBytes];
  __shared__ __align__(16) float sums[kFewRowsWarps][8 * kTokenTiles][kSumStride];

  const unsigned thread = threadIdx.x;
  const int warp = thread / 32, lane = thread % 32, group = thread / 4 % 8, member = thread % 4;
  const int matrix = p.pair != 0 ? warp >> 2 : 0;
  const int parts = p.pair != 0 ? kFewRowsWarps / 2 : kFewRowsWarps;
  static_assert(kFewRowsWarps == 8, "the first four warps of a pair have the gate");
  const int64_t tile = blockIdx.x;
  const int split = blockIdx.y;
  // This warp's steps: first, first + parts, ... before end.
  const int first = SplitBegin(p, split) + (warp & (parts - 1)), end = SplitBegin(p, split + 1);

  const uint8_t* tile_codes =
      (matrix == 0 ? p.first.codes : p.second.codes) + tile * p.steps * kStepBytes + lane * 16;
  const uint8_t* tile_scales = (matrix == 0 ? p.first.scales : p.second.scales) +
                               ((tile * p.groups * kTileRows) << p.scale_shift);
  // A unit's 16 scales are 1, 2 or 4 words of 16 bytes: which word of which unit a lane copies.
  const int scale_unit = lane >> p.scale_shift;
  const int scale_word = lane & ((1 << p.scale_shift) - 1);

  const auto load = [&](int step, int stage) {
    if (step < end) {
      CopyAsync16(SharedAddress(codes[warp][stage] + lane * 16),
                  tile_codes + static_cast<int64_t>(step) * kStepBytes);
      if (scale_unit < kUnits) {
        const int64_t g = Divide(step * kUnits + scale_unit, p.units_per_group);
        CopyAsync16(SharedAddress(scales[warp][stage] + scale_unit * 64 + scale_word * 16),
                    tile_scales + ((g * kTileRows) << p.scale_shift) + scale_word * 16);
      }
    }
    CopyAsyncCommit();
  };

  using Raw = typename Left::Raw;
  const uint8_t* left = p.left + group * p.left_stride + member * int{sizeof(Raw)};
  Raw next[kTokenTiles][2];
  const auto load_tokens = [&](int step) {
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        next[j][b] = Raw{};
        if (step < end && 8 * j + group < p.tokens) {
          const int64_t column = static_cast<int64_t>(step) * kStepColumns + 32 * b;
          next[j][b] = __ldg(reinterpret_cast<const Raw*>(left + 8 * j * p.left_stride +
                                                          column * Left::kBytes));
        }
      }
    }
  };

  float total[1][kTokenTiles][4] = {};
#pragma unroll
  for (int i = 0; i < kFewRowsStages - 1; ++i) load(first + i * parts, i);
  load_tokens(first);
  unsigned stage = 0;
  for (int step = first; step < end; step += parts) {
    CopyAsyncWait<kFewRowsStages - 2>();
    // The scales come from other lanes; and all have left the stage that is loaded next.
    __syncwarp();
    load(step + (kFewRowsStages - 1) * parts, (stage + kFewRowsStages - 1) % kFewRowsStages);
    Raw raw[kTokenTiles][2];
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
      raw[j][0] = next[j][0];
      raw[j][1] = next[j][1];
    }
    load_tokens(step + parts);
    const uint4 words[1] = {*reinterpret_cast<const uint4*>(codes[warp][stage] + lane * 16)};
    MultiplyStep<Left, kUnit, 1, kTokenTiles>(
        words,
        [&](int, int unit) {
          return LoadScalePair(p.scale_type, scales[warp][stage] + unit * 64 +
                                                 ((2 * group) << p.scale_shift));
        },
        [&](int j, int b) { return raw[j][b]; }, total);
    stage = (stage + 1) % kFewRowsStages;
  }

#pragma unroll
  for (int j = 0; j < kTokenTiles; ++j) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      *reinterpret_cast<float2*>(&sums[warp][8 * j + 2 * member + c][2 * group]) =
          make_float2(total[0][j][c], total[0][j][2 + c]);
    }
  }
  __syncthreads();
  static_assert(kTileRows * 8 * kTokenTiles <= 32 * kFewRowsWarps, "a result a thread at most");
  const int token = thread / kTileRows, row = thread % kTileRows;
  const int n = static_cast<int>(tile) * kTileRows + row;
  if (token >= min(p.tokens, 8 * kTokenTiles) || n >= p.rows) return;
  float sum[2] = {0, 0};
#pragma unroll
  for (int w = 0; w < kFewRowsWarps; ++w) {
    const float part = sums[w][token][row];
    if (w < parts) {
      sum[0] += part;
    } else {
      sum[1] += part;
    }
  }
  if (p.splits > 1) {
    *Partial(p, split, 0, token, n) = sum[0];
    if (p.pair != 0) *Partial(p, split, 1, token, n) = sum[1];
  } else {
    Store(p, token, n, Result(p, token, n, TokenScale(p, token), sum[0], sum[1]));
  }
}

}  // namespace nibble::cuda::gemm_i4f8
