// SPDX-License-Identifier: Apache-2.0
//
// From a lane's share of codes and activations to fragments, and a unit of products (layout.h).
// An operand type says for its activations
//   Raw         8 columns of one token, as they lie in memory: member's of a block of 32
//   kBytes      bytes of one activation
//   Weights     the left fragments of a block of 16 rows x 32 columns
//   Tokens      the right fragments of a block of 32 columns x 8 tokens
//   Sum         the accumulators of a unit, which Start() zeroes and Value() reads
//
// All decoding is exact: I4 codes are integers of magnitude 8 at most, E4M3 codes have four
// significant bits and exponents from -9 to 8, which F16 holds as normal numbers.
#pragma once

#include "kernels-cuda/common/decode.cuh"
#include "kernels-cuda/common/ptx.cuh"
#include "kernels-cuda/gemm_i4f8/params.h"

namespace nibble::cuda::gemm_i4f8 {

// Both 16-bit decoders pair element i with element i + 4; the activations follow.
inline constexpr uint32_t kPairs04 = 0x5140, kPairs26 = 0x7362;  // bytes 0 4 1 5 and 2 6 3 7
inline constexpr uint32_t kLowHalves = 0x5410, kHighHalves = 0x7632;

struct FloatSum {
  __device__ __forceinline__ void Start() { c[0] = c[1] = c[2] = c[3] = 0; }
  __device__ __forceinline__ float Value(int i) const { return c[i]; }
  float c[4];
};

// Sums of integers. Conversion to F32 is slow where it is an instruction of its own (16 a cycle
// and multiprocessor), so a sum starts at the bits of 1.5 * 2^23: while it stays below 2^22, the
// accumulator's bits are that float plus the sum. Weights come 16 times too large (below), so a
// unit of 64 products is at most 64 * 128 * 128 = 2^20.
struct IntegerSum {
  static constexpr int32_t kBits = 0x4B400000;
  __device__ __forceinline__ void Start() { c[0] = c[1] = c[2] = c[3] = kBits; }
  __device__ __forceinline__ float Value(int i) const {
    return __int_as_float(c[i]) - 12582912.0f;
  }
  int32_t c[4];
};

#if NIBBLE_FP8_MMA
// E4M3 activations on FP8 tensor cores.
struct LeftE4M3 {
  using Raw = uint2;
  using Sum = FloatSum;
  static constexpr int kBytes = 1;
  struct Weights {
    uint32_t a[1][4];
  };
  struct Tokens {
    uint32_t b[1][2];
  };
  static __device__ __forceinline__ Weights DecodeWeights(uint32_t even, uint32_t odd) {
    uint32_t e[2], o[2];
    DecodeI4x8ToE4M3(even, e);
    DecodeI4x8ToE4M3(odd, o);
    return {{{e[0], o[0], e[1], o[1]}}};
  }
  static __device__ __forceinline__ Tokens DecodeTokens(Raw raw) { return {{{raw.x, raw.y}}}; }
  static __device__ __forceinline__ void Multiply(Sum& sum, const Weights& w, const Tokens& t) {
    MmaE4M3(sum.c, w.a[0], t.b[0]);
  }
};
#else
// E4M3 activations where there are no FP8 tensor cores in reach of mma.sync: through F16.
struct LeftE4M3 {
  using Raw = uint2;
  using Sum = FloatSum;
  static constexpr int kBytes = 1;
  struct Weights {
    uint32_t a[2][4];
  };
  struct Tokens {
    uint32_t b[2][2];
  };
  static __device__ __forceinline__ Weights DecodeWeights(uint32_t even, uint32_t odd) {
    uint32_t e[4], o[4];
    DecodeI4x8ToF16(even, e);
    DecodeI4x8ToF16(odd, o);
    return {{{e[0], o[0], e[1], o[1]}, {e[2], o[2], e[3], o[3]}}};
  }
  static __device__ __forceinline__ Tokens DecodeTokens(Raw raw) {
    Tokens t;
    DecodeE4M3x4ToF16(Permute(raw.x, raw.y, kPairs04), t.b[0]);
    DecodeE4M3x4ToF16(Permute(raw.x, raw.y, kPairs26), t.b[1]);
    return t;
  }
  static __device__ __forceinline__ void Multiply(Sum& sum, const Weights& w, const Tokens& t) {
    MmaF16(sum.c, w.a[0], t.b[0]);
    MmaF16(sum.c, w.a[1], t.b[1]);
  }
};
#endif

// I8 activations. A code in the upper half of its byte is 16 q, exactly, without sign extension.
struct LeftI8 {
  using Raw = uint2;
  using Sum = IntegerSum;
  static constexpr int kBytes = 1;
  struct Weights {
    uint32_t a[1][4];
  };
  struct Tokens {
    uint32_t b[1][2];
  };
  static __device__ __forceinline__ void Decode(uint32_t codes, uint32_t& low, uint32_t& high) {
    const uint32_t even = (codes << 4) & 0xF0F0F0F0u, odd = codes & 0xF0F0F0F0u;
    low = Permute(even, odd, 0x5140u);
    high = Permute(even, odd, 0x7362u);
  }
  static __device__ __forceinline__ Weights DecodeWeights(uint32_t even, uint32_t odd) {
    Weights w;
    Decode(even, w.a[0][0], w.a[0][2]);
    Decode(odd, w.a[0][1], w.a[0][3]);
    return w;
  }
  static __device__ __forceinline__ Tokens DecodeTokens(Raw raw) { return {{{raw.x, raw.y}}}; }
  static __device__ __forceinline__ void Multiply(Sum& sum, const Weights& w, const Tokens& t) {
    MmaI8(sum.c, w.a[0], t.b[0]);
  }
};

// BF16 activations.
struct LeftBF16 {
  using Raw = uint4;
  using Sum = FloatSum;
  static constexpr int kBytes = 2;
  struct Weights {
    uint32_t a[2][4];
  };
  struct Tokens {
    uint32_t b[2][2];
  };
  static __device__ __forceinline__ Weights DecodeWeights(uint32_t even, uint32_t odd) {
    uint32_t e[4], o[4];
    DecodeI4x8ToBF16(even, e);
    DecodeI4x8ToBF16(odd, o);
    return {{{e[0], o[0], e[1], o[1]}, {e[2], o[2], e[3], o[3]}}};
  }
  static __device__ __forceinline__ Tokens DecodeTokens(Raw raw) {
    return {{{Permute(raw.x, raw.z, kLowHalves), Permute(raw.x, raw.z, kHighHalves)},
             {Permute(raw.y, raw.w, kLowHalves), Permute(raw.y, raw.w, kHighHalves)}}};
  }
  static __device__ __forceinline__ void Multiply(Sum& sum, const Weights& w, const Tokens& t) {
    MmaBF16(sum.c, w.a[0], t.b[0]);
    MmaBF16(sum.c, w.a[1], t.b[1]);
  }
};

// ------------------------------------------------------------------------------------ scales

__device__ __forceinline__ uint32_t Divide(uint32_t n, FastDivide by) {
  return (__umulhi(n, by.multiplier) + n) >> by.shift;
}

// Two neighbouring scales of any type that Unsupported (gemm_i4f8.h) lets through; the branch is
// the same for all threads. E4M3 scales have no NaN (they were refused when the matrix was packed).
__device__ __forceinline__ float2 LoadScalePair(int scale_type, const uint8_t* pair) {
  switch (static_cast<DType>(scale_type)) {
    case DType::kE4M3: {
      const uint32_t two = *reinterpret_cast<const uint16_t*>(pair);
      return {__uint_as_float((two & 0x7Fu) << 20) * 0x1p120f,
              __uint_as_float((two & 0x7F00u) << 12) * 0x1p120f};
    }
    case DType::kPow2: {
      const char2 two = *reinterpret_cast<const char2*>(pair);
      return {DecodePow2(two.x), DecodePow2(two.y)};
    }
    case DType::kF16: {
      const uint32_t two = *reinterpret_cast<const uint32_t*>(pair);
      return {DecodeF16(static_cast<uint16_t>(two)), DecodeF16(static_cast<uint16_t>(two >> 16))};
    }
    case DType::kBF16: {
      const uint32_t two = *reinterpret_cast<const uint32_t*>(pair);
      return {DecodeBF16Low(two), DecodeBF16High(two)};
    }
    case DType::kF32: return *reinterpret_cast<const float2*>(pair);
    default: __builtin_unreachable();
  }
}

// -------------------------------------------------------------------------------------- a step
//
// One step of 64 columns for kRowTiles tiles of 16 rows and kTokenTiles tiles of 8 tokens:
// unit by unit of kUnit columns, total[r][j] += scale * (the unit's sum).
//   words[r]           the lane's 16 bytes of tile r
//   scales(r, unit)    the scales of its rows 2 group and 2 group + 1, as a float2
//   tokens(j, block)   its Raw of 32 columns of token 8 j + group
// A unit of 16 columns is half a block: the other half's weights are zeroed (members 0 and 1 hold
// the first 16 columns), which costs a second product, but is right for any group.
template <class Left, int kUnit, int kRowTiles, int kTokenTiles, class Scales, class Tokens>
__device__ __forceinline__ void MultiplyStep(const uint4 (&words)[kRowTiles], const Scales& scales,
                                             const Tokens& tokens,
                                             float (&total)[kRowTiles][kTokenTiles][4]) {
  static_assert(kUnit == 64 || kUnit == 32 || kUnit == 16, "what layout.h allows");
  constexpr int kBlocks = kUnit == 64 ? 2 : 1;
#pragma unroll
  for (int unit = 0; unit < 64 / kUnit; ++unit) {
    const int first = unit * kUnit / 32;
    typename Left::Weights w[kRowTiles][kBlocks];
    float2 scale[kRowTiles];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      scale[r] = scales(r, unit);
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        uint32_t even = first + b == 0 ? words[r].x : words[r].z;
        uint32_t odd = first + b == 0 ? words[r].y : words[r].w;
        if (kUnit == 16 && (threadIdx.x % 4) / 2 != unit % 2) even = odd = 0;
        w[r][b] = Left::DecodeWeights(even, odd);
      }
    }
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
      typename Left::Tokens t[kBlocks];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) t[b] = Left::DecodeTokens(tokens(j, first + b));
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        typename Left::Sum sum;
        sum.Start();
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) Left::Multiply(sum, w[r][b], t[b]);
        total[r][j][0] = fmaf(scale[r].x, sum.Value(0), total[r][j][0]);
        total[r][j][1] = fmaf(scale[r].x, sum.Value(1), total[r][j][1]);
        total[r][j][2] = fmaf(scale[r].y, sum.Value(2), total[r][j][2]);
        total[r][j][3] = fmaf(scale[r].y, sum.Value(3), total[r][j][3]);
      }
    }
  }
}

}  // namespace nibble::cuda::gemm_i4f8
