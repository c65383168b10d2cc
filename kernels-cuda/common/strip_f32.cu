// SPDX-License-Identifier: Apache-2.0
//
// Products with F32 activations on CUDA cores: weights of every code type of the strip layout
// (strip_layout.h), F32 the fast path. F32 tensor-core types (TF32) keep 11 bits and are no match.
//
//   few rows (M <= 8)   a warp owns a strip of 32 output rows and a quarter of K, 16 columns at a
//                       time: each lane multiplies the four rows and four columns that it holds;
//                       members, then warps, add up in order
//   tiles               64 output rows x 64 tokens a block of 128 threads, 4 rows x 8 tokens each,
//                       16 columns a stage, two stages in shared memory:
//                         weights [16 columns][64 rows], tokens [64][16, 4 unused]
//                       A lane writes its weights row (i + member) % 4 in turn i, so that 32 lanes
//                       meet 32 banks; tokens are read four columns at once by broadcast.
//
// Activations may have any stride and alignment, and are read only where they exist.
//
// Precision. F32 FMAs in the order of k (few rows: 16 interleaved sums, then added up): at most K
// roundings and those of strip_finish.cuh; a group's scale multiplies its weights first, one more.
#include "kernels-cuda/common/ptx.cuh"
#include "kernels-cuda/common/strip_finish.cuh"
#include "kernels-cuda/common/strip_quads.cuh"

namespace nibble::cuda {
namespace {

constexpr int kSlice = kSliceCols;

// Where slice `slice` of a strip begins, and its first column in the brick.
struct SlicePlace {
  const uint8_t* brick;
  unsigned column;
};

template <bool kF32>
__device__ __forceinline__ DType CodeOf(const StripArguments& p) {
  return kF32 ? DType::kF32 : static_cast<DType>(p.code_type);
}

template <bool kF32>
__device__ __forceinline__ int BrickShiftOf(const StripArguments& p) {
  return kF32 ? 0 : p.brick_shift;
}

template <bool kF32>
__device__ __forceinline__ SlicePlace Place(const StripArguments& p, int which, int strip,
                                            unsigned slice) {
  const int shift = BrickShiftOf<kF32>(p);
  const int64_t brick = static_cast<int64_t>(strip) * p.bricks + (slice >> shift);
  return {p.matrix[which].codes + brick * BrickBytes(CodeOf<kF32>(p)),
          (slice & ((1u << shift) - 1)) * kSlice};
}

// Columns 4 member .. + 3 of row r of a slice; with their scale where a row has several.
template <bool kF32>
__device__ __forceinline__ void LoadWeights(const StripArguments& p, int which, int strip,
                                            unsigned slice, unsigned r, unsigned member,
                                            float (&w)[4]) {
  const DType code = CodeOf<kF32>(p);
  const SlicePlace place = Place<kF32>(p, which, strip, slice);
  DecodeStripQuad(code, place.brick, r, place.column + 4 * member, w);
  if (!kF32 && p.groups > 1) {
    const unsigned group = slice / p.group_slices;
    const float scale =
        StripScale(p.scale_type, p.matrix[which].scales,
                   (static_cast<int64_t>(strip) * p.groups + group) * kStripRows + r);
#pragma unroll
    for (int c = 0; c < 4; ++c) w[c] *= scale;
  }
}

__device__ __forceinline__ const float* LeftRow(const StripArguments& p, int token) {
  return reinterpret_cast<const float*>(p.left + token * p.left_stride);
}

// The slices of this block's part of K.
struct SliceRange {
  int begin, end;
};
template <bool kF32>
__device__ __forceinline__ SliceRange Slices(const StripArguments& p) {
  const int shift = BrickShiftOf<kF32>(p);
  const int begin = blockIdx.y * p.split_bricks;
  const int slices = static_cast<int>((static_cast<unsigned>(p.cols) + kSlice - 1) / kSlice);
  return {begin << shift, min((begin + p.split_bricks) << shift, slices)};
}

template <bool kF32, Told kPair>
__device__ __forceinline__ void StoreSums(const StripArguments& p, int token, int n, float (&v)[4],
                                          float (&up)[4]) {
  if (token >= p.m || n >= p.n) return;
  if (p.splits == 1) {
    constexpr Told kRowScales = kF32 ? Told::kNever : Told::kByArguments;
    return FinishStripSums<kPair, kRowScales, false>(p, token, n, v, up);
  }
  *reinterpret_cast<float4*>(StripPartial(p, blockIdx.y, 0, token, n)) = {v[0], v[1], v[2], v[3]};
  if (!IsPair<kPair>(p)) return;
  *reinterpret_cast<float4*>(StripPartial(p, blockIdx.y, 1, token, n)) = {up[0], up[1], up[2],
                                                                         up[3]};
}

constexpr int kFewWarps = 4;

template <bool kF32, int kTokens, int kMatrices>
__device__ __forceinline__ void FewRows(const StripArguments& p) {
  __shared__ float sums[kFewWarps][kMatrices][kTokens][kStripRows];
  const int lane = threadIdx.x % kWarpLanes, warp = threadIdx.x / kWarpLanes;
  const int group = lane / 4, member = lane % 4, strip = blockIdx.x;
  const SliceRange slices = Slices<kF32>(p);
  float total[kMatrices][4][kTokens] = {};
  // Between the branches of any code's type no load would move.
#pragma unroll(kF32 && kTokens == 1 ? 4 : 1)
  for (int slice = slices.begin + warp; slice < slices.end; slice += kFewWarps) {
    float x[kTokens][4];
    const int64_t column = static_cast<int64_t>(slice) * kSlice + 4 * member;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float* row = LeftRow(p, min(t, p.m - 1)) + column;
#pragma unroll
      for (int c = 0; c < 4; ++c) x[t][c] = column + c < p.cols ? __ldg(row + c) : 0.0f;
    }
#pragma unroll
    for (int which = 0; which < kMatrices; ++which) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float w[4];
        LoadWeights<kF32>(p, which, strip, slice, 4 * group + i, member, w);
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            total[which][i][t] = fmaf(w[c], x[t][c], total[which][i][t]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int which = 0; which < kMatrices; ++which) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float sum = WarpSum<4>(total[which][i][t]);
        if (member == i) sums[warp][which][t][4 * group + i] = sum;
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kTokens * (kStripRows / 4); i += blockDim.x) {
    const int t = i / (kStripRows / 4), r = i % (kStripRows / 4) * 4;
    float v[4] = {}, up[4] = {};
#pragma unroll
    for (int w = 0; w < kFewWarps; ++w) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        v[j] += sums[w][0][t][r + j];
        if (kMatrices == 2) up[j] += sums[w][kMatrices - 1][t][r + j];
      }
    }
    StoreSums<kF32, kMatrices == 2 ? Told::kAlways : Told::kNever>(
        p, t, strip * kStripRows + r, v, up);
  }
}

constexpr int kTileRows = 64, kTileTokens = 64, kTileThreads = 128;
constexpr int kTokenStride = kSlice + 4;
constexpr int kThreadTokens = 8;

template <bool kF32>
struct Tiles {
  const StripArguments& p;
  int strips[2];
  int token0;
  SliceRange slices;

  // The quads of weights that this thread brings, one from each strip of the block.
  struct Staged {
    float w[2][4];
  };
  __device__ __forceinline__ unsigned Row(unsigned i) const {
    return threadIdx.x % kWarpLanes / 4 * 4 + (i + threadIdx.x) % 4;
  }
  // Thread: warp w brings row (w + member) % 4 of each group.
  __device__ __forceinline__ void Load(int slice, Staged& staged) const {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      // Beyond the last strip the last is computed once more and not stored.
      LoadWeights<kF32>(p, u, min(strips[u], p.strips - 1), slice,
                        Row(threadIdx.x / kWarpLanes), threadIdx.x % 4, staged.w[u]);
    }
  }
  __device__ __forceinline__ void Store(const Staged& staged, float* weights) const {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        weights[(4 * (threadIdx.x % 4) + c) * kTileRows + u * kStripRows +
                Row(threadIdx.x / kWarpLanes)] = staged.w[u][c];
      }
    }
  }
  __device__ __forceinline__ void CopyTokens(int slice, float* tokens) const {
    const int c = threadIdx.x % kSlice;
    const int64_t column = static_cast<int64_t>(slice) * kSlice + c;
#pragma unroll
    for (int i = 0; i < kTileTokens / (kTileThreads / kSlice); ++i) {
      const int t = i * (kTileThreads / kSlice) + threadIdx.x / kSlice;
      const bool read = token0 + t < p.m && column < p.cols;
      CopyAsync4(SharedAddress(tokens + t * kTokenStride + c),
                 read ? LeftRow(p, token0 + t) + column : LeftRow(p, token0), read ? 4 : 0);
    }
    CopyAsyncCommit();
  }

  __device__ __forceinline__ void Run() {
    __shared__ __align__(16) float weights[2][kSlice * kTileRows];
    __shared__ __align__(16) float tokens[2][kTileTokens * kTokenStride];
    const int rows = threadIdx.x % 16, column = threadIdx.x / 16;  // of quads, of 8 tokens
    float total[kThreadTokens][4] = {};
    Staged staged;
    Load(slices.begin, staged);
    CopyTokens(slices.begin, tokens[0]);
    Store(staged, weights[0]);
    for (int slice = slices.begin; slice < slices.end; ++slice) {
      const int now = (slice - slices.begin) % 2;
      CopyAsyncWait<0>();
      __syncthreads();  // this stage is complete, and the other one is read to its end
      const bool more = slice + 1 < slices.end;
      if (more) {
        Load(slice + 1, staged);
        CopyTokens(slice + 1, tokens[1 - now]);
      }
#pragma unroll
      for (int k = 0; k < kSlice; k += 4) {
        float4 w[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          w[c] = *reinterpret_cast<const float4*>(weights[now] + (k + c) * kTileRows + 4 * rows);
        }
#pragma unroll
        for (int t = 0; t < kThreadTokens; ++t) {
          const float4 x = *reinterpret_cast<const float4*>(
              tokens[now] + (column * kThreadTokens + t) * kTokenStride + k);
          const float four[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            total[t][0] = fmaf(w[c].x, four[c], total[t][0]);
            total[t][1] = fmaf(w[c].y, four[c], total[t][1]);
            total[t][2] = fmaf(w[c].z, four[c], total[t][2]);
            total[t][3] = fmaf(w[c].w, four[c], total[t][3]);
          }
        }
      }
      if (more) Store(staged, weights[1 - now]);
    }
    // Rows 0..31 of the tile are the first strip's, 32..63, eight lanes on, the second's.
    const int strip = rows < 8 ? strips[0] : strips[1];
    const int n = strip * kStripRows + 4 * (rows % 8);
#pragma unroll
    for (int t = 0; t < kThreadTokens; ++t) {
      const int token = token0 + column * kThreadTokens + t;
      float up[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) up[i] = __shfl_xor_sync(kAllLanes, total[t][i], 8);
      if (rows < 8 || p.pair == 0) StoreSums<kF32, Told::kByArguments>(p, token, n, total[t], up);
    }
  }
};

template <bool kF32>
__device__ __forceinline__ void RunTiles(const StripArguments& p) {
  const int row = static_cast<int>(blockIdx.x / p.token_tiles);
  const int strip1 = p.pair != 0 ? row : 2 * row + 1;
  const int strip0 = p.pair != 0 ? row : 2 * row;
  Tiles<kF32> tiles{p,
                    {strip0, strip1},
                    static_cast<int>(blockIdx.x % p.token_tiles) * kTileTokens,
                    Slices<kF32>(p)};
  tiles.Run();
}

}  // namespace

// One block a multiprocessor at least, lest ptxas spill to fit more.
#define NIBBLE_FEW_KERNEL(name, f32, tokens, matrices)                        \
  extern "C" __global__ void __launch_bounds__(128, 1)                        \
      name(const __grid_constant__ StripArguments p) {                        \
    FewRows<f32, tokens, matrices>(p);                                        \
  }
NIBBLE_FEW_KERNEL(gemm_f32_f32_one, true, 1, 1)
NIBBLE_FEW_KERNEL(gemm_f32_f32_few, true, 8, 1)
NIBBLE_FEW_KERNEL(gemm_f32_f32_one_pair, true, 1, 2)
NIBBLE_FEW_KERNEL(gemm_f32_f32_few_pair, true, 8, 2)
NIBBLE_FEW_KERNEL(gemm_f32_any_one, false, 1, 1)
NIBBLE_FEW_KERNEL(gemm_f32_any_few, false, 8, 1)
NIBBLE_FEW_KERNEL(gemm_f32_any_one_pair, false, 1, 2)
NIBBLE_FEW_KERNEL(gemm_f32_any_few_pair, false, 8, 2)

extern "C" __global__ void __launch_bounds__(128, 1)
    gemm_f32_f32_tiles(const __grid_constant__ StripArguments p) {
  RunTiles<true>(p);
}
extern "C" __global__ void __launch_bounds__(128, 1)
    gemm_f32_any_tiles(const __grid_constant__ StripArguments p) {
  RunTiles<false>(p);
}

}  // namespace nibble::cuda
