// SPDX-License-Identifier: Apache-2.0
//
// The tensor-core product of gemm_f6 and gemm_dense: result^T = W * left^T, with the weights, in
// fragment order (strip_layout.h), as the mma's 16-row operand and 8 tokens as its columns.
//
//            K: a stage = one brick of columns                       tokens
//          +--------+--------+--------+                             +------+
//   warp 0 | strip  | strip  |  ...     -> registers -> decode ->   |  C   |
//   warp 1 | strip  | strip  |  ...                       mma       |  C   |
//          +--------+--------+--------+                    ^        +------+
//   left   | tokens | tokens |  ...     -> shared memory --+
//
// Roles. Load: every lane copies by cp.async the very words of weights that it will decode, and
// the block its tokens, kStages - 1 stages ahead. Decode: a lane's words become left fragments in
// registers, a slice of 16 columns (or a fold of slices) at a time, while the tensor cores work on
// the slice before. Multiply. Finish: strip_finish.cuh.
//
// Shared memory of tokens: rows of one brick's columns, 16-byte chunks swizzled so that no load of
// fragments meets a bank twice (an 8-lane phase of ldmatrix, a 16-lane phase of 8-byte loads):
//   16-bit tokens: chunk c of row r stands at c ^ 2 (r % 4) (128-byte rows), c ^ (r & 2) (64)
//    8-bit tokens:                        at c ^ (r / 2) % 4 (64-byte rows), c ^ (r / 4) % 2 (32)
//
// Precision. All operands are exact in the type that the tensor cores multiply. Sums:
//   F16, BF16   in F32 over all of K, or over a fold, whose sum times the scale is added by an FMA
//   E4M3        hardware keeps as few as 13 bits below a sum's leading one, so that no sum is
//               longer than a brick of 64 columns (two instructions); bricks add up in F32
//   I8          exact: a fold of 64 columns is below 2^20. It starts at the bits of 1.5 * 2^23,
//               so that it is read as F32 without a conversion. Over all of K (kWide): in S32,
//               which 131,072 columns cannot leave
// With K terms each value passes through at most K + K/16 + 8 roundings to F32; the bound is
// that of kernels-cpu/gemm/gemm_test.cc with that count in place of K + 6 (and 2^-13 per E4M3
// instruction where the hardware truncates).
//
// Determinism: warps, folds and splits add in an order that the shape alone determines.
//
// An Operands type says how codes become fragments:
//   kCode, kLeftBytes         the weights' codes, bytes of one activation
//   kProduct                  what is multiplied: m16n8k16 (k16Bits) or m16n8k32
//   kDirect                   a sum may run over all of K
//   kParts                    left fragments that stand for one weight (2: high and low part)
//   kUnit                     what the sums are multiplied by, a power of two
//   Sum                       float or int32_t
//   Weights(words, slice, a)  fragments of a slice: a[t][part] has rows h = 0, 1 (of bytes), or
//                             the whole m16n8k16 fragment
//   Left(codes, b)            right fragment of four 8-bit activations (k16Bits only)
//   Multiply(sum, a, b)
#pragma once

#include "kernels-cuda/common/decode.cuh"
#include "kernels-cuda/common/ptx.cuh"
#include "kernels-cuda/common/strip_finish.cuh"
#include "kernels-cuda/common/strip_shapes.h"

namespace nibble::cuda {

// Four I8 to F16, exact: a byte with its top bit flipped, in the mantissa of 1024, is
// 1024 + 128 + q.
__device__ __forceinline__ void DecodeI8x4ToF16(uint32_t codes, uint32_t (&f16)[2]) {
  constexpr uint32_t k1024 = 0x64646464u, kOne = 0x3C003C00u, kMinus1152 = 0xE480E480u;
  const uint32_t flipped = codes ^ 0x80808080u;
  f16[0] = FmaF16x2(Permute(flipped, k1024, 0x4140u), kOne, kMinus1152);
  f16[1] = FmaF16x2(Permute(flipped, k1024, 0x4342u), kOne, kMinus1152);
}

// A sum of one fold, as float.
struct FloatFold {
  __device__ __forceinline__ void Start() { c[0] = c[1] = c[2] = c[3] = 0; }
  __device__ __forceinline__ float Value(int i) const { return c[i]; }
  float c[4];
};

struct IntegerFold {
  __device__ __forceinline__ void Start() { c[0] = c[1] = c[2] = c[3] = 0x4B400000; }
  __device__ __forceinline__ float Value(int i) const {
    return __int_as_float(c[i]) - 12582912.0f;
  }
  int32_t c[4];
};

template <class Sum>
struct FoldOf {
  using Type = FloatFold;
};
template <>
struct FoldOf<int32_t> {
  using Type = IntegerFold;
};

template <class Sum, bool kWide>
struct TotalOf {
  using Type = float;
};
template <>
struct TotalOf<int32_t, true> {
  using Type = int32_t;
};

template <class O, StripShape kShape>
struct StripGemm {
  static constexpr bool kEightBit = O::kProduct != StripProduct::k16Bits;
  static constexpr StripBlock kBlock = BlockOf(kShape, O::kProduct);
  static constexpr bool kWide = kShape == StripShape::kWide;
  static constexpr Told kPair = kShape == StripShape::kDecode       ? Told::kNever
                                : kShape == StripShape::kDecodePair ? Told::kAlways
                                                                    : Told::kByArguments;
  static constexpr Told kRowScales = IsUnquantized(O::kCode) ? Told::kNever
                                     : kWide                 ? Told::kAlways
                                                             : Told::kByArguments;
  static constexpr bool kTokenScales = O::kLeftBytes == 1;
  static constexpr int kUnits = kBlock.units, kTokenTiles = kBlock.token_tiles;
  static constexpr int kWarpsN = kBlock.warps_n, kWarpsK = kBlock.warps_k;
  static constexpr int kStages = kBlock.stages;
  static constexpr int kWords = BrickWords(O::kCode), kBrickBytes = BrickBytes(O::kCode);
  static constexpr int kSlices = BrickCols(O::kCode) / kSliceCols;
  static constexpr int kRowBytes = BrickCols(O::kCode) * O::kLeftBytes;  // of a token
  static constexpr int kWeightBytes = kBlock.weight_bytes(O::kCode);
  static constexpr int kStageBytes = kBlock.stage_bytes(O::kCode, O::kLeftBytes);
  static constexpr int kTokenBytes = 8 * kTokenTiles * kRowBytes;  // of one warp along K
  static constexpr int kFragment = kEightBit ? 2 : 4;  // registers of a slice
  static constexpr bool kFolds = !IsUnquantized(O::kCode) && !kWide;

  static_assert(kBlock.shared_bytes(O::kCode, O::kLeftBytes) <= 99 * 1024,
                "what a block may have on sm_89 and sm_120");

  using Fold = typename FoldOf<typename O::Sum>::Type;
  using Total = typename TotalOf<typename O::Sum, kWide>::Type;

  const StripArguments& p;
  uint8_t* const shared;
  const int lane, warp_n, warp_k;
  int token0, begin, end;
  int strip[kUnits];
  const uint8_t* codes[kUnits];
  Total total[kUnits][2][kTokenTiles][4];

  __device__ __forceinline__ StripGemm(const StripArguments& arguments, uint8_t* memory)
      : p(arguments),
        shared(memory),
        lane(threadIdx.x % kWarpLanes),
        warp_n(kWarpsN == 1 ? 0 : threadIdx.x / kWarpLanes),
        warp_k(kWarpsK == 1 ? 0 : threadIdx.x / kWarpLanes) {
    static_assert(kWarpsN == 1 || kWarpsK == 1, "warps share the rows or K");
    token0 = static_cast<int>(blockIdx.x % p.token_tiles) * 8 * kTokenTiles;
    const int row = static_cast<int>(blockIdx.x / p.token_tiles) * kWarpsN + warp_n;
    begin = blockIdx.y * p.split_bricks;
    end = min(begin + p.split_bricks, p.bricks);
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      strip[u] = IsPair<kPair>(p) ? row : row * kUnits + u;
      // Beyond the last strip the last is computed once more and not stored.
      codes[u] = p.matrix[u].codes +
                 static_cast<int64_t>(min(strip[u], p.strips - 1)) * p.bricks * kBrickBytes +
                 lane * 16;
#pragma unroll
      for (int i = 0; i < 8 * kTokenTiles; ++i) total[u][i / 4 % 2][i / 8][i % 4] = 0;
    }
  }

  static __device__ __forceinline__ int Swizzle(int row) {
    if (O::kLeftBytes == 2) return kRowBytes == 128 ? (row % 4) * 2 : row & 2;
    return kRowBytes == 64 ? row / 2 % 4 : row / 4 % 2;
  }

  // The stage's first byte, and this warp's part of it.
  __device__ __forceinline__ uint8_t* Stage(int slot) const { return shared + slot * kStageBytes; }
  __device__ __forceinline__ uint8_t* WarpWords(int slot) const {
    return Stage(slot) + (warp_k * kWarpsN + warp_n) * kUnits * kBrickBytes + lane * 16;
  }
  __device__ __forceinline__ uint8_t* WarpTokens(int slot) const {
    return Stage(slot) + kWeightBytes + warp_k * kTokenBytes;
  }
  __device__ __forceinline__ uint8_t* WarpScales(int slot) const {
    return Stage(slot) + kWeightBytes + kWarpsK * kTokenBytes +
           (warp_k * kWarpsN + warp_n) * kUnits * StripBlock::kScaleBytes;
  }

  // ----------------------------------------------------------------------------------- load

  // The group of a slice; the padding of the last brick counts to the last group.
  __device__ __forceinline__ int GroupOf(int slice) const {
    return min(slice / p.group_slices, p.groups - 1);
  }

  // The scales of all groups of a brick, which stand in a row: up to 512 bytes a strip.
  __device__ __forceinline__ void LoadScales(int brick, int slot) const {
    const int first = GroupOf(brick * kSlices);
    const int group_bytes = kStripRows * StripScaleBytes(p.scale_type);
    const int bytes = (GroupOf(brick * kSlices + kSlices - 1) - first + 1) * group_bytes;
    const uint32_t to = SharedAddress(WarpScales(slot)) + lane * 16;
    if (lane * 16 >= bytes) return;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int64_t group = static_cast<int64_t>(min(strip[u], p.strips - 1)) * p.groups + first;
      CopyAsync16(to + u * StripBlock::kScaleBytes,
                  p.matrix[u].scales + group * group_bytes + lane * 16);
    }
  }

  __device__ __forceinline__ void Load(int brick, int slot) const {
    if (brick >= end) return;
    const uint32_t to = SharedAddress(WarpWords(slot));
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const uint8_t* from = codes[u] + static_cast<int64_t>(brick) * kBrickBytes;
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        CopyAsync16(to + u * kBrickBytes + w * kWordBytes, from + w * kWordBytes);
      }
    }
    if (kFolds && p.fold_slices != 0) LoadScales(brick, slot);
    constexpr int kChunks = kRowBytes / 16, kThreads = kWarpLanes * kWarpsN;
    constexpr int kCopies = 8 * kTokenTiles * kChunks;
    const uint32_t tokens = SharedAddress(WarpTokens(slot));
    const int thread = kWarpsN == 1 ? lane : threadIdx.x;
#pragma unroll
    for (int first = 0; first < kCopies; first += kThreads) {
      const int i = first + thread;
      if (first + kThreads > kCopies && i >= kCopies) break;
      const int row = i / kChunks, chunk = i % kChunks;
      const bool read = token0 + row < p.m;
      const uint8_t* from = p.left + (read ? token0 + row : token0) * p.left_stride +
                            static_cast<int64_t>(brick) * kRowBytes + chunk * 16;
      CopyAsync16(tokens + row * kRowBytes + (chunk ^ Swizzle(row)) * 16, from, read ? 16 : 0);
    }
  }

  // --------------------------------------------------------------------------------- decode

  using Words = uint32_t[kWords][4];

  // The lane's words of unit u. What is not used is not read.
  __device__ __forceinline__ void ReadWords(int slot, int u, Words& words) const {
    const uint8_t* from = WarpWords(slot) + u * kBrickBytes;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      const uint4 v = *reinterpret_cast<const uint4*>(from + w * kWordBytes);
      words[w][0] = v.x;
      words[w][1] = v.y;
      words[w][2] = v.z;
      words[w][3] = v.w;
    }
  }

  // Right fragments of kCount slices for tile t of 8 tokens. 8-bit products take two slices.
  template <int kCount>
  static __device__ __forceinline__ void ReadTokens(const uint8_t* tile, int t, int slice,
                                                    uint32_t (&b)[kCount][2]) {
    const int row = 8 * t + threadIdx.x / 4 % 8, member = threadIdx.x % 4;
    if constexpr (O::kLeftBytes == 2) {
#pragma unroll
      for (int s = 0; s < kCount; ++s) {
        const int chunk = (2 * (slice + s) + member / 2) ^ Swizzle(row);
        const uint2 v = *reinterpret_cast<const uint2*>(tile + row * kRowBytes + chunk * 16 +
                                                        member % 2 * 8);
        b[s][0] = v.x;
        b[s][1] = v.y;
      }
    } else {
      uint32_t r[kCount];
      if constexpr (kCount == 4) {
        // This lane's row of the matrix that it has to address.
        const int from = 8 * t + threadIdx.x % 8, matrix = threadIdx.x / 8 % 4;
        LoadMatrix4(r, SharedAddress(tile + from * kRowBytes + (matrix ^ Swizzle(from)) * 16));
      } else {
#pragma unroll
        for (int s = 0; s < kCount; ++s) {
          r[s] = *reinterpret_cast<const uint32_t*>(
              tile + row * kRowBytes + ((slice + s) ^ Swizzle(row)) * 16 + member * 4);
        }
      }
#pragma unroll
      for (int s = 0; s < kCount; ++s) {
        if constexpr (kEightBit) {
          b[s / 2][s % 2] = r[s];
          if (kCount == 1) b[0][1] = 0;
        } else {
          O::Left(r[s], b[s]);
        }
      }
    }
  }

  // One product of the slices that b holds from s on; returns through sum.
  template <int kCount, class Sums>
  static __device__ __forceinline__ void MultiplyStep(
      Sums& c, const uint32_t (&a)[kCount][2][O::kParts][kFragment], int s, int t,
      const uint32_t (&b)[kCount][2]) {
#pragma unroll
    for (int part = 0; part < O::kParts; ++part) {
      if constexpr (kEightBit) {
        const bool two = kCount > 1;
        const int next = two ? s + 1 : s;
        const uint32_t fragment[4] = {a[s][t][part][0], a[s][t][part][1],
                                      two ? a[next][t][part][0] : 0,
                                      two ? a[next][t][part][1] : 0};
        O::Multiply(c, fragment, b[s / 2]);
      } else {
        O::Multiply(c, a[s][t][part], b[s]);
      }
    }
  }

  static constexpr int kStep = kEightBit ? 2 : 1;  // slices of an instruction

  // ------------------------------------------------------------------------------- multiply

  // total += the brick, in folds of kCount slices, each times its scale; kPlain: no scales.
  template <int kCount, bool kPlain, class Scales>
  __device__ __forceinline__ void AddFolds(int slot, const Scales& scales) {
    const uint8_t* tokens = WarpTokens(slot);
#pragma unroll
    for (int first = 0; first < kSlices; first += kCount) {
      uint32_t a[kUnits][kCount][2][O::kParts][kFragment];
      float4 scale[kUnits];
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        Words words;
        ReadWords(slot, u, words);
#pragma unroll
        for (int s = 0; s < kCount; ++s) O::Weights(words, first + s, a[u][s]);
        if (!kPlain) scale[u] = scales(u, first);
      }
#pragma unroll
      for (int j = 0; j < kTokenTiles; ++j) {
        uint32_t b[kCount][2];
        ReadTokens<kCount>(tokens, j, first, b);
#pragma unroll
        for (int u = 0; u < kUnits; ++u) {
#pragma unroll
          for (int t = 0; t < 2; ++t) {
            Fold fold;
            fold.Start();
#pragma unroll
            for (int s = 0; s < kCount; s += kStep) MultiplyStep(fold.c, a[u], s, t, b);
            const float s0 = t == 0 ? scale[u].x : scale[u].z;
            const float s1 = t == 0 ? scale[u].y : scale[u].w;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              Total& sum = total[u][t][j][i];
              sum = kPlain ? sum + fold.Value(i) : fmaf(fold.Value(i), i < 2 ? s0 : s1, sum);
            }
          }
        }
      }
    }
  }

  // total += the brick, unscaled, slice by slice (8-bit products: at once): the fragments of the
  // next slice are decoded before the products of this one are issued.
  __device__ __forceinline__ void AddDirect(int slot) {
    constexpr int kCount = kEightBit ? kSlices : 1;
    const uint8_t* tokens = WarpTokens(slot);
    Words words[kUnits];
    uint32_t a[2][kUnits][kCount][2][O::kParts][kFragment];
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      ReadWords(slot, u, words[u]);
#pragma unroll
      for (int s = 0; s < kCount; ++s) O::Weights(words[u], s, a[0][u][s]);
    }
#pragma unroll
    for (int first = 0; first < kSlices; first += kCount) {
      const int now = first / kCount % 2;
      if (first + kCount < kSlices) {
#pragma unroll
        for (int u = 0; u < kUnits; ++u) {
          O::Weights(words[u], first + kCount, a[1 - now][u][0]);
        }
      }
#pragma unroll
      for (int j = 0; j < kTokenTiles; ++j) {
        uint32_t b[kCount][2];
        ReadTokens<kCount>(tokens, j, first, b);
#pragma unroll
        for (int u = 0; u < kUnits; ++u) {
#pragma unroll
          for (int t = 0; t < 2; ++t) {
#pragma unroll
            for (int s = 0; s < kCount; s += kStep) {
              MultiplyStep(total[u][t][j], a[now][u], s, t, b);
            }
          }
        }
      }
    }
  }

  __device__ __forceinline__ void AddBrick(int slot, int brick) {
    if constexpr (!kFolds) {
      AddDirect(slot);
    } else {
      const auto scales = [&](int u, int slice) {
        const int first = brick * kSlices;
        const int group = slice == 0 ? 0 : GroupOf(first + slice) - GroupOf(first);
        return LoadStripScales<false>(p.scale_type,
                                      WarpScales(slot) + u * StripBlock::kScaleBytes +
                                          (group * kStripRows + lane / 4 * 4) *
                                              StripScaleBytes(p.scale_type));
      };
      if (p.fold_slices == 0) {
        if constexpr (O::kDirect) {
          AddDirect(slot);
        } else {
          AddFolds<kSlices, true>(slot, scales);
        }
      } else if (p.fold_slices == kSlices) {
        AddFolds<kSlices, false>(slot, scales);
      } else if (p.fold_slices == 2) {
        AddFolds<2, false>(slot, scales);
      } else {
        AddFolds<1, false>(slot, scales);
      }
    }
  }

  __device__ __forceinline__ void Barrier() const {
    if constexpr (kWarpsN == 1) {
      __syncwarp();  // a warp reads nothing that another has loaded
    } else {
      __syncthreads();
    }
  }

  __device__ __forceinline__ void Multiply() {
    const int iterations = (end - begin + kWarpsK - 1) / kWarpsK;
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) {
      Load(begin + i * kWarpsK + warp_k, i);
      CopyAsyncCommit();
    }
    int slot = 0;
    for (int i = 0; i < iterations; ++i) {
      const int brick = begin + i * kWarpsK + warp_k;
      CopyAsyncWait<kStages - 2>();
      Barrier();  // the stage is here, and the one before it is read to its end
      const int free = slot == 0 ? kStages - 1 : slot - 1;
      Load(brick + (kStages - 1) * kWarpsK, free);
      CopyAsyncCommit();
      if (kWarpsK == 1 || brick < end) AddBrick(slot, brick);
      slot = slot + 1 == kStages ? 0 : slot + 1;
    }
    // No copy is under way: what was committed last are empty groups, for bricks past the end.
  }

  // --------------------------------------------------------------------------------- finish

  // Adds up the warps along K, in order, in warp 0's total.
  __device__ __forceinline__ void AddWarps() {
    constexpr int kSums = kUnits * 2 * kTokenTiles * 4;
    float* memory = reinterpret_cast<float*>(shared) + threadIdx.x % kWarpLanes;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      if (warp_k > 0) {
        memory[((warp_k - 1) * kSums + i) * kWarpLanes] =
            total[i / (8 * kTokenTiles)][i / 4 % 2][i / 8 % kTokenTiles][i % 4];
      }
    }
    __syncthreads();
    if (warp_k > 0) return;
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
#pragma unroll
      for (int w = 0; w < kWarpsK - 1; ++w) {
        total[i / (8 * kTokenTiles)][i / 4 % 2][i / 8 % kTokenTiles][i % 4] +=
            memory[(w * kSums + i) * kWarpLanes];
      }
    }
  }

  __device__ __forceinline__ void Values(int u, int j, int token, float (&v)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[i] = static_cast<float>(total[u][i / 2][j][i % 2 * 2 + token]) * O::kUnit;
    }
  }

  __device__ __forceinline__ void Store(int token, int n, int which, const float (&v)[4]) const {
    *reinterpret_cast<float4*>(StripPartial(p, blockIdx.y, which, token, n)) = {v[0], v[1], v[2],
                                                                               v[3]};
  }

  // The end of four output rows of one token, from units' sums.
  __device__ __forceinline__ void FinishToken(int token, float (&v)[kUnits][4]) const {
    if (token >= p.m) return;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int n = strip[u] * kStripRows + lane / 4 * 4;
      if (n >= p.n) continue;
      if (p.splits > 1) {
        Store(token, n, IsPair<kPair>(p) ? u : 0, v[u]);
      } else if (u == 0 || !IsPair<kPair>(p)) {
        FinishStripSums<kPair, kRowScales, kTokenScales>(p, token, n, v[u], v[kUnits - 1]);
      }
    }
  }

  // Sums pass through the lane's own part of the shared memory, so that the code of the end stands
  // once, or twice where a part of the registers is all that fits, and not for every register.
  __device__ __forceinline__ void Finish() {
    constexpr int kPasses = kTokenTiles > 4 ? 2 : 1, kTiles = kTokenTiles / kPasses;
    static_assert(kWarpsN * kTiles * 2 * kUnits * kWordBytes <=
                      kBlock.shared_bytes(O::kCode, O::kLeftBytes),
                  "the pipeline's memory holds the sums");
    float4* memory = reinterpret_cast<float4*>(shared) +
                     warp_n * kTiles * 2 * kUnits * kWarpLanes + lane;
    __syncthreads();  // other warps may still read the last stage
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
#pragma unroll
      for (int i = 0; i < kTiles * 2 * kUnits; ++i) {
        float v[4];
        Values(i % kUnits, pass * kTiles + i / (2 * kUnits), i / kUnits % 2, v);
        memory[i * kWarpLanes] = {v[0], v[1], v[2], v[3]};
      }
#pragma unroll 1
      for (int i = 0; i < kTiles * 2; ++i) {
        float v[kUnits][4];
#pragma unroll
        for (int u = 0; u < kUnits; ++u) {
          const float4 four = memory[(i * kUnits + u) * kWarpLanes];
          v[u][0] = four.x;
          v[u][1] = four.y;
          v[u][2] = four.z;
          v[u][3] = four.w;
        }
        FinishToken(token0 + 8 * (pass * kTiles + i / 2) + lane % 4 * 2 + i % 2, v);
      }
    }
  }

  // The same for the few sums of a warp that finishes alone.
  __device__ __forceinline__ void FinishFew() {
#pragma unroll
    for (int i = 0; i < 2 * kTokenTiles; ++i) {
      float v[kUnits][4];
#pragma unroll
      for (int u = 0; u < kUnits; ++u) Values(u, i / 2, i % 2, v[u]);
      FinishToken(token0 + 8 * (i / 2) + lane % 4 * 2 + i % 2, v);
    }
  }

  __device__ __forceinline__ void Run() {
    Multiply();
    if constexpr (kWarpsK > 1) {
      AddWarps();
      if (warp_k > 0) return;
      FinishFew();
    } else {
      Finish();
    }
  }
};

extern __shared__ __align__(128) uint8_t strip_shared_memory[];

template <class O, StripShape kShape>
__device__ __forceinline__ void RunStripGemm(const StripArguments& p) {
  StripGemm<O, kShape>(p, strip_shared_memory).Run();
}

// What __launch_bounds__ asks for: one block a multiprocessor keeps ptxas from spilling to fit more
// (the pipeline's shared memory allows two or three anyway). The tiles of FP8 fare better unasked.
constexpr int MinBlocks(StripShape shape, StripProduct product) {
  return shape == StripShape::kTiles && product == StripProduct::kFP8 ? 0 : 1;
}

// A kernel for one pair of operands and one shape.
#define NIBBLE_STRIP_KERNEL(name, operands, shape)                                             \
  extern "C" __global__ void __launch_bounds__(                                                \
      nibble::cuda::BlockOf(nibble::cuda::StripShape::shape, operands::kProduct).threads(),    \
      nibble::cuda::MinBlocks(nibble::cuda::StripShape::shape, operands::kProduct))            \
      name(const __grid_constant__ nibble::cuda::StripArguments p) {                           \
    nibble::cuda::RunStripGemm<operands, nibble::cuda::StripShape::shape>(p);                  \
  }

}  // namespace nibble::cuda
