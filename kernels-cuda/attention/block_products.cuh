// SPDX-License-Identifier: Apache-2.0
//
// Q K^T and P V of one block of 16 keys, codes decoded from shared memory in registers: what a
// tile of 16 query rows does where rows are few and the reading of the cache is what counts.
//
//   stage  = | key scales | value scales | keys [16][kStride] | values [16][kStride] |
//
// kStride is a row of kDim elements and, where that is an even number of 16-byte words, one word
// more. Rows then begin at odd multiples of four banks apart: the eight rows that a warp reads at
// once (one word each of 4 lanes, or ldmatrix) lie in different banks, and so do the four pairs
// of rows with 8 words each of the values.
//
// Keys (B of Q K^T: lane's key `group`, elements in pairs or fours): one word a lane and step
// holds 8 (KV4), 4 (KV8) elements that its query fragment has in the same order (query.cuh).
//
// Values (B of P V: lane's dimension `group`, pairs of keys): the words of two keys are brought
// together by prmt before they are decoded, which is the whole transposition. One word a key holds
// 8 (KV4) or 4 (KV8) dimensions, each of which belongs to another mma:
//
//   mma `off` of words w:   column n <-> dimension  words * n + off + 8 words w     words = 8 or 4
//
// so a lane ends with 16 (KV4) or 8 (KV8) neighbouring dimensions of the result. KV16: ldmatrix,
// transposed, columns in their natural order.
//
// Exactness. I4 and I8 codes are exact in F16, I4 also in E4M3; an I4 code times its E4M3 scale
// has at most 4 + 4 significant bits between 2^-9 and 3584: exact in F16. So every product that
// an mma adds up is that of the exact query code with the exact code (times scale); what is
// rounded is sums, in F32 (for E4M3 mma within one instruction to 13 bits below the largest term:
// each step of 32 elements is added in F32 outside), and weights, to F16 or, for KV16, BF16.
#pragma once

#include "kernels-cuda/attention/softmax.cuh"

namespace nibble::cuda {

__device__ __forceinline__ uint32_t MulF16x2(uint32_t a, uint32_t b) {
  return FmaF16x2(a, b, 0x80008000u);
}

// ---- scales of KV4: E4M3 without a sign ----
//
// Bits of a code, moved to where F16 or F32 has them, times a power of two are its value, exactly
// (common/decode.cuh). A scale that is NaN makes its key NaN, of which only that key's scores
// become NaN. A value that is NaN would reach rows that do not see it, as 0 times NaN: there such a
// scale counts as 480, and its key's weight becomes NaN instead, where a row sees the key.
//
// What scales of tokens that do not exist decode to is never looked at, or finite.

inline constexpr uint32_t kNaNScale = 0x7F;
inline constexpr uint32_t k2To8 = 0x5C005C00u;  // as a pair of F16

__device__ __forceinline__ float ScaleToF32(uint32_t code) {
  const float unit = __uint_as_float(code == kNaNScale ? 0x7FC00000u : (127u + 120u) << 23);
  return __uint_as_float(code << 20) * unit;
}

// One code to both F16 of a pair.
__device__ __forceinline__ uint32_t KeyScaleTwice(uint32_t code) {
  return MulF16x2(code * 0x00800080u, code == kNaNScale ? 0x7E007E00u : k2To8);
}
__device__ __forceinline__ uint32_t ValueScaleTwice(uint32_t code) {
  return MulF16x2(code * 0x00800080u, k2To8);
}

// What a weight is multiplied with: 1 as F16 has weights (softmax.cuh), or NaN.
__device__ __forceinline__ float WeightFactor(bool poison) {
  return __uint_as_float(poison ? 0x7FC00000u : (127u + kWeightExponent) << 23);
}

// Four I8 codes to pairs of F16: a byte with its top bit flipped, as the mantissa of 1024, is
// 1024 + 128 + q. Exact.
__device__ __forceinline__ void DecodeI8x4ToF16(uint32_t codes, uint32_t (&f16)[2]) {
  constexpr uint32_t k1024 = 0x64646464u, kOne = 0x3C003C00u, kMinus1152 = 0xE480E480u;
  const uint32_t flipped = codes ^ 0x80808080u;
  f16[0] = FmaF16x2(Permute(flipped, k1024, 0x4140u), kOne, kMinus1152);
  f16[1] = FmaF16x2(Permute(flipped, k1024, 0x4342u), kOne, kMinus1152);
}

// The reciprocal of GroupOf, in such a way that the groups of all steps are worked out where they
// are needed: kept in registers over the loop, they would push out results.
__device__ __forceinline__ uint32_t GroupReciprocal(const KvGeometry& kv) {
  uint32_t reciprocal = kv.group_reciprocal;
  asm volatile("" : "+r"(reciprocal));
  return reciprocal;
}
// The group of 0 where there is one, and the last for what is behind the head.
__device__ __forceinline__ int ScaleGroup(const KvGeometry& kv, int element) {
  return min(GroupOf(element, kv.group_reciprocal), kv.groups - 1);
}

template <class T>
__device__ __forceinline__ T Load(const uint8_t* shared) {
  return *reinterpret_cast<const T*>(shared);
}

#if NIBBLE_FP8_MMA
__device__ __forceinline__ void MmaBytes(float (&c)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2]) {
  MmaE4M3(c, a, b);
}
#else
// Never called: see kKeysAreBytes.
__device__ void MmaBytes(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
#endif

// Whether keys are multiplied by E4M3 mma, and the steps of one dot product.
template <KvKind kKind>
inline constexpr bool kKeysAreBytes = kKind == KvKind::kI4 && NIBBLE_FP8_MMA;
template <KvKind kKind, int kDim>
inline constexpr int kSteps = kKeysAreBytes<kKind> ? kDim / 32 : kDim / 16;

// The dimension of column n of mma `tile` of P V.
template <KvKind kKind>
__device__ __forceinline__ int Dimension(int tile, int n) {
  if constexpr (kKind == KvKind::kI4) return 64 * (tile / 8) + 8 * n + tile % 8;
  if constexpr (kKind == KvKind::kI8) return 32 * (tile / 4) + 4 * n + tile % 4;
  return 8 * tile + n;
}

template <KvKind kKind>
struct BlockOrder {
  using Type = OrderNatural;
};
template <>
struct BlockOrder<KvKind::kI8> {
  using Type = OrderI8;
};
template <>
struct BlockOrder<KvKind::kI4> {
#if NIBBLE_FP8_MMA
  using Type = OrderI4Bytes;
#else
  using Type = OrderI4Halves;
#endif
};

struct LanePlace {
  int lane, group, member;
};

// ---- scores: s = sums of products, not yet scaled but by the scales of small groups ----

// KV4 by E4M3 mma. Scales of several groups multiply the sums of each step, in F32.
template <int kDim, class Query>
__device__ __forceinline__ void ScoreBytes(const KvGeometry& kv, const uint8_t* stage,
                                           const uint8_t* keys, LanePlace at,
                                           const Query& q, float (&s)[2][4]) {
  using Shape = BlockShape<KvKind::kI4, kDim>;
  constexpr int kStepCount = kSteps<KvKind::kI4, kDim>;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const uint8_t* row = keys + (8 * j + at.group) * Shape::kStride + 4 * at.member;
#pragma unroll Query::kUnroll
    for (int step = 0; step < kStepCount; ++step) {
      uint32_t b[2];
      DecodeI4x8ToE4M3(Load<uint32_t>(row + 16 * step), b);
      if (kv.groups == 1) {
        float part[4] = {0, 0, 0, 0};
        MmaBytes(part, q.Get(step).word, b);
#pragma unroll
        for (int e = 0; e < 4; ++e) s[j][e] += part[e];
        continue;
      }
      // Groups are multiples of 16: the 32 elements of a step belong to one, or the first 16
      // (members 0 and 1) and the last 16 to two.
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int element = 32 * step + 16 * half;
        if (element >= kv.head_dim) continue;
        const bool own = at.member / 2 == half;
        const uint32_t part_b[2] = {own ? b[0] : 0, own ? b[1] : 0};
        float part[4] = {0, 0, 0, 0};
        MmaBytes(part, q.Get(step).word, part_b);
        const int group = GroupOf(element, GroupReciprocal(kv));
        const uint8_t* scales = stage + group * kKvBlockRows + 8 * j + 2 * at.member;
        const float scale[2] = {ScaleToF32(scales[0]), ScaleToF32(scales[1])};
#pragma unroll
        for (int e = 0; e < 4; ++e) s[j][e] = __fmaf_rn(part[e], scale[e % 2], s[j][e]);
      }
    }
  }
}

// KV4 by F16 mma. Scales of several groups multiply the codes, exactly; NaN ones make them NaN.
template <int kDim, class Query>
__device__ __forceinline__ void ScoreI4Halves(const KvGeometry& kv, const uint8_t* stage,
                                              const uint8_t* keys, LanePlace at,
                                              const Query& q,
                                              float (&s)[2][4]) {
  using Shape = BlockShape<KvKind::kI4, kDim>;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int key = 8 * j + at.group;
    const uint8_t* row = keys + key * Shape::kStride + 4 * at.member;
#pragma unroll Query::kUnroll
    for (int pair = 0; pair < kDim / 32; ++pair) {
      uint32_t f16[4];
      DecodeI4x8ToF16(Load<uint32_t>(row + 16 * pair), f16);
      if (kv.groups > 1) {
        const int group = ScaleGroup(kv, 32 * pair + 8 * at.member);
        const uint32_t scale = KeyScaleTwice(stage[group * kKvBlockRows + key]);
#pragma unroll
        for (int i = 0; i < 4; ++i) f16[i] = MulF16x2(f16[i], scale);
      }
      const uint32_t first[2] = {f16[0], f16[1]}, second[2] = {f16[2], f16[3]};
      MmaF16(s[j], q.Get(2 * pair).word, first);
      MmaF16(s[j], q.Get(2 * pair + 1).word, second);
    }
  }
}

template <int kDim, class Query>
__device__ __forceinline__ void ScoreI8(const uint8_t* keys, LanePlace at,
                                        const Query& q, float (&s)[2][4]) {
  using Shape = BlockShape<KvKind::kI8, kDim>;
  constexpr int kStepCount = kSteps<KvKind::kI8, kDim>;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const uint8_t* row = keys + (8 * j + at.group) * Shape::kStride + 4 * at.member;
#pragma unroll Query::kUnroll
    for (int step = 0; step < kStepCount; ++step) {
      uint32_t b[2];
      DecodeI8x4ToF16(Load<uint32_t>(row + 16 * step), b);
      MmaF16(s[j], q.Get(step).word, b);
    }
  }
}

template <int kDim, class Query>
__device__ __forceinline__ void ScoreBF16(const uint8_t* keys, LanePlace at,
                                          const Query& q, float (&s)[2][4]) {
  using Shape = BlockShape<KvKind::kBF16, kDim>;
  constexpr int kStepCount = kSteps<KvKind::kBF16, kDim>;
  // Matrices: keys 0..7 by elements 0..7, 8..15; keys 8..15 by the same.
  const uint32_t row = SharedAddress(keys) +
                       (at.lane % 8 + at.lane / 16 * 8) * Shape::kStride + at.lane / 8 % 2 * 16;
#pragma unroll Query::kUnroll
  for (int step = 0; step < kStepCount; ++step) {
    uint32_t b[4];
    LoadMatrix4(b, row + 32 * step);
    const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
    const Fragment a = q.Get(step);
    MmaBF16(s[0], a.word, first);
    MmaBF16(s[1], a.word, second);
  }
}

// ---- values: acc += weights * values; a: the weights as the A operand ----

// Scales of KV4 that a lane needs: of each word's group, those of keys 2 member, + 1, + 8, + 9.
template <int kDim>
struct ValueScales {
  uint32_t codes[kDim / 64];

  __device__ __forceinline__ ValueScales(const KvGeometry& kv, const uint8_t* scales,
                                         LanePlace at) {
#pragma unroll
    for (int w = 0; w < kDim / 64; ++w) {
      const uint8_t* from = scales + ScaleGroup(kv, 64 * w + 8 * at.group) * kKvBlockRows;
      const uint32_t low = Load<uint16_t>(from + 2 * at.member);
      codes[w] = Permute(low, Load<uint16_t>(from + 2 * at.member + 8), 0x5410u);
    }
  }

  // Of half of the keys, as F16.
  __device__ __forceinline__ uint32_t Pair(int w, int half) const {
    const uint32_t apart = Permute(codes[w], 0, half == 0 ? 0x4140u : 0x4342u);
    return MulF16x2((apart & 0x007F007Fu) << 7, k2To8);
  }

  // What weights of the keys are multiplied with: for keys 8 j + 2 member + e at [8 j + e]. The
  // lanes of other groups have the same keys' scales of the other groups of the head.
  __device__ __forceinline__ void Factors(float (&factors)[10]) const {
    uint32_t bad = 0;  // the top bit of each byte
#pragma unroll
    for (int w = 0; w < kDim / 64; ++w) bad |= (codes[w] & 0x7F7F7F7Fu) + 0x01010101u;
#pragma unroll
    for (int offset = 4; offset < kWarpLanes; offset *= 2) {
      bad |= __shfl_xor_sync(kAllLanes, bad, offset);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      factors[8 * (i / 2) + i % 2] = WeightFactor((bad & 0x80u << 8 * i) != 0);
    }
  }
};

template <int kDim>
__device__ __forceinline__ void AddValuesI4(const ValueScales<kDim>& scales,
                                            const uint8_t* values, LanePlace at,
                                            const uint32_t (&a)[4], float (&acc)[kDim / 8][4]) {
  using Shape = BlockShape<KvKind::kI4, kDim>;
  const uint8_t* row = values + 2 * at.member * Shape::kStride + 4 * at.group;
#pragma unroll
  for (int w = 0; w < kDim / 64; ++w) {
    uint32_t even[2][4], odd[2][4];  // [keys 2 member.., + 8..][dimensions 0, 2, 4, 6; 1, 3, 5, 7]
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint8_t* from = row + 8 * half * Shape::kStride + 32 * w;
      const uint32_t w0 = Load<uint32_t>(from), w1 = Load<uint32_t>(from + Shape::kStride);
      DecodeI4x8ToF16(Permute(w0, w1, 0x5410u), even[half]);
      DecodeI4x8ToF16(Permute(w0, w1, 0x7632u), odd[half]);
      const uint32_t scale = scales.Pair(w, half);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        even[half][i] = MulF16x2(even[half][i], scale);
        odd[half][i] = MulF16x2(odd[half][i], scale);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t b0[2] = {even[0][i], even[1][i]}, b1[2] = {odd[0][i], odd[1][i]};
      MmaF16(acc[8 * w + 2 * i], a, b0);
      MmaF16(acc[8 * w + 2 * i + 1], a, b1);
    }
  }
}

template <int kDim>
__device__ __forceinline__ void AddValuesI8(const uint8_t* values, LanePlace at,
                                            const uint32_t (&a)[4], float (&acc)[kDim / 8][4]) {
  using Shape = BlockShape<KvKind::kI8, kDim>;
  const uint8_t* row = values + 2 * at.member * Shape::kStride + 4 * at.group;
#pragma unroll
  for (int w = 0; w < kDim / 32; ++w) {
    uint32_t f16[2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint8_t* from = row + 8 * half * Shape::kStride + 32 * w;
      const uint32_t w0 = Load<uint32_t>(from), w1 = Load<uint32_t>(from + Shape::kStride);
      uint32_t low[2], high[2];
      DecodeI8x4ToF16(Permute(w0, w1, 0x5140u), low);
      DecodeI8x4ToF16(Permute(w0, w1, 0x7362u), high);
      f16[half][0] = low[0];
      f16[half][1] = low[1];
      f16[half][2] = high[0];
      f16[half][3] = high[1];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t b[2] = {f16[0][i], f16[1][i]};
      MmaF16(acc[4 * w + i], a, b);
    }
  }
}

// Whether any of the BF16 in `bits`' operands is infinite or NaN: the exponent carries into the
// sign.
__device__ __forceinline__ uint32_t NonFiniteBits(uint4 v) {
  const uint32_t word[4] = {v.x, v.y, v.z, v.w};
  uint32_t bits = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) bits |= (word[i] & 0x7F807F80u) + 0x00800080u;
  return bits;
}
__device__ __forceinline__ bool HasNonFinite(uint32_t bits) { return (bits & 0x80008000u) != 0; }

// acc += weights * values of two mma of 8 dimensions: b[0], b[1] and b[2], b[3].
template <bool kBF16>
__device__ __forceinline__ void AddPair(const uint32_t (&a)[4], const uint32_t (&b)[4],
                                        float (&acc0)[4], float (&acc1)[4]) {
  const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
  if constexpr (kBF16) {
    MmaBF16(acc0, a, first);
    MmaBF16(acc1, a, second);
  } else {
    MmaF16(acc0, a, first);
    MmaF16(acc1, a, second);
  }
}

// acc += weights * values where some values of KV16 are not finite, and some rows do not see them:
// 0 times such a value would make those rows NaN. One key after the other, on CUDA cores; a row
// that does not see it adds nothing. pair(key, tile): the lane's two values of 8 dimensions.
template <int kTiles, class Pair>
__device__ __forceinline__ void AddValuesByKey(const uint32_t (&a)[4], const int (&visible)[2],
                                               LanePlace at, const Pair& pair,
                                               float (&acc)[kTiles][4]) {
#pragma unroll 1
  for (int key = 0; key < kKvBlockRows; ++key) {
    float weight[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t both = __shfl_sync(kAllLanes, key < 8 ? a[r] : a[r + 2],
                                        4 * at.group + key % 8 / 2);
      weight[r] = DecodeBF16Low(both >> 16 * (key % 2));
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const uint32_t values = pair(key, i);
      const float value[2] = {DecodeBF16Low(values), DecodeBF16High(values)};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (key < visible[e / 2]) acc[i][e] = __fmaf_rn(weight[e / 2], value[e % 2], acc[i][e]);
      }
    }
  }
}

// by_key: AddValuesByKey.
template <int kDim>
__device__ __forceinline__ void AddValuesBF16(const uint8_t* values, LanePlace at,
                                              const uint32_t (&a)[4], const int (&visible)[2],
                                              bool by_key, float (&acc)[kDim / 8][4]) {
  constexpr int kStride = BlockShape<KvKind::kBF16, kDim>::kStride;
  if (by_key) {
    const uint8_t* own = values + 4 * at.member;
    return AddValuesByKey(
        a, visible, at,
        [&](int key, int tile) { return Load<uint32_t>(own + key * kStride + 16 * tile); }, acc);
  }
  // Matrices: keys 0..7, 8..15 by dimensions 0..7; the same by dimensions 8..15.
  const uint32_t row = SharedAddress(values) + at.lane % 16 * kStride + at.lane / 16 * 16;
#pragma unroll
  for (int pair = 0; pair < kDim / 16; ++pair) {
    uint32_t b[4];
    LoadMatrixTransposed4(b, row + 32 * pair);
    AddPair<true>(a, b, acc[2 * pair], acc[2 * pair + 1]);
  }
}

}  // namespace nibble::cuda
