// SPDX-License-Identifier: Apache-2.0
//
// Rotary embedding (RoPE, arXiv 2104.09864, rotate-half) of queries in place, and of keys on
// their way into the KV cache; keys and values quantized as kernels-cpu/attention/kv_cache.h
// defines it. One warp takes one head of one token:
//
//   warp      | q head 0 .. Hq-1 | k head 0 .. Hkv-1 | v head 0 .. Hkv-1 |   of row 0, row 1, ...
//   head      | a 0 .. a h-1     | b 0 .. b h-1     |           h = head_dim / 2 <= 128
//   rotated   | a cos - b sin    | b cos + a sin    |
//
// Lane l rotates elements l, l + 32, ... of each half (coalesced), puts them into shared memory,
// and takes elements 8 l .. 8 l + 7 back: one word of KV4, 8 bytes of KV8, 16 of KV16, 32 of F32.
// The words of a row behind head_dim are written as zeros. A token's bytes belong to it alone, so
// no two warps write the same byte.
//
// Precision: bit for bit the CPU's. The rotation is a rounded product and a fused multiply-add,
// in its order; scales and codes come from true divisions; largest magnitudes are found as
// integers. A group with a NaN or an infinity gets codes 0 and a NaN scale.
//
// Shapes: head_dim even, 16..256; any number of heads, rows and sequences.
#include "kernels-cuda/attention/shapes.h"
#include "kernels-cuda/common/encode.cuh"

namespace nibble::cuda {
namespace {

// Of a block of threads; they have nothing to do with each other.
constexpr int kWarps = kRopeThreads / kWarpLanes;
constexpr int kMaxHeadDim = 256;
constexpr int kLaneElements = kMaxHeadDim / kWarpLanes;

// The last sequence that begins at or before the row: the row's, if it is any's.
__device__ int FindSequence(const DeviceSequence* sequences, int count, int row) {
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (sequences[middle].first_row <= row) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// Puts a head, rotated where angles is not null, into to[0..dim).
__device__ void StageHead(const float* x, const float* angles, int dim, int lane, float* to) {
  const int half = dim / 2;
#pragma unroll 1
  for (int i = lane; i < half; i += kWarpLanes) {
    float a = x[i], b = x[half + i];
    if (angles != nullptr) {
      const float cosine = angles[i], sine = angles[half + i];
      const float rotated = __fmaf_rn(-b, sine, __fmul_rn(a, cosine));
      b = __fmaf_rn(a, sine, __fmul_rn(b, cosine));
      a = rotated;
    }
    to[i] = a;
    to[half + i] = b;
  }
  __syncwarp();
}

__device__ __forceinline__ uint32_t LargestBits(const float (&x)[kLaneElements]) {
  float largest = 0;
#pragma unroll
  for (int i = 0; i < kLaneElements; ++i) largest = LargerMagnitude(largest, x[i]);
  return __float_as_uint(largest);  // as integers, NaN is above infinity
}

// Quantizes a head in groups and stores its codes and scales. scales: of the token's block and
// slot, kKvBlockRows bytes from group to group.
__device__ void StoreI4(const KvGeometry& kv, const float (&x)[kLaneElements], float factor,
                        int lane, uint8_t* row, uint8_t* scales) {
  const uint32_t own = LargestBits(x);
  const int group = lane * kLaneElements / kv.group_dim;
  uint32_t bits = 0;
#pragma unroll 1
  for (int g = 0; g < kv.groups; ++g) {
    // A group that is not the whole head is a multiple of 16: no lane belongs to two.
    const uint32_t largest = WarpMax(group == g || kv.groups == 1 ? own : 0u);
    if (group == g || kv.groups == 1) bits = largest;
  }
  uint32_t scale_code = 0, word = 0;
  if (bits >= 0x7F800000u) {
    scale_code = 0x7F;
  } else if (bits != 0) {
    const float ideal = __fdiv_rn(__fdiv_rn(__uint_as_float(bits), 7.0f), factor);
    scale_code = max(EncodeE4M3(ideal), 1u);
    // The code of a finite positive number (common/decode.cuh).
    const float scale =
        __fmul_rn(__uint_as_float(scale_code << 20) * 0x1p120f, factor);
#pragma unroll
    for (int i = 0; i < kLaneElements; ++i) {
      const float q = fmaxf(fminf(__fdiv_rn(x[i], scale), 7.0f), -8.0f);
      const uint32_t code = static_cast<uint32_t>(__float2int_rn(q)) & 15u;
      word |= code << (4 * (i / 2 + i % 2 * 4));
    }
  }
  if (lane * 4 < kv.row_bytes) reinterpret_cast<uint32_t*>(row)[lane] = word;
  const bool first_of_group = kv.groups == 1 ? lane == 0 : lane * kLaneElements % kv.group_dim == 0;
  if (first_of_group && group < kv.groups) {
    scales[group * kKvBlockRows] = static_cast<uint8_t>(scale_code);
  }
}

__device__ void StoreI8(const KvGeometry& kv, const float (&x)[kLaneElements], int lane,
                        uint8_t* row, float* scale) {
  const uint32_t bits = WarpMax(LargestBits(x));
  float divisor = 0;
  uint32_t words[2] = {0, 0};
  if (bits >= 0x7F800000u) {
    divisor = __uint_as_float(0x7FC00000u);
  } else if (bits != 0) {
    divisor = fmaxf(__fdiv_rn(__uint_as_float(bits), 127.0f), 0x1p-126f);
#pragma unroll
    for (int i = 0; i < kLaneElements; ++i) {
      const uint32_t code = static_cast<uint32_t>(__float2int_rn(__fdiv_rn(x[i], divisor)));
      words[i / 4] |= (code & 0xFFu) << (8 * (i % 4));
    }
  }
  if (lane * 8 < kv.row_bytes) {
    reinterpret_cast<uint2*>(row)[lane] = make_uint2(words[0], words[1]);
  }
  if (lane == 0) *scale = divisor;
}

__device__ void StoreBF16(const KvGeometry& kv, const float (&x)[kLaneElements], int lane,
                          uint8_t* row) {
  if (lane * 16 >= kv.row_bytes) return;
  reinterpret_cast<uint4*>(row)[lane] =
      make_uint4(EncodeBF16x2(x[0], x[1]), EncodeBF16x2(x[2], x[3]), EncodeBF16x2(x[4], x[5]),
                 EncodeBF16x2(x[6], x[7]));
}

__device__ void StoreF32(const KvGeometry& kv, const float (&x)[kLaneElements], int lane,
                         uint8_t* row) {
  float4* to = reinterpret_cast<float4*>(row) + 2 * lane;
  if (lane * 32 < kv.row_bytes) to[0] = make_float4(x[0], x[1], x[2], x[3]);
  if (lane * 32 + 16 < kv.row_bytes) to[1] = make_float4(x[4], x[5], x[6], x[7]);
}

enum class Stored { kI4, kI8, kBF16, kF32 };

template <Stored kStored>
__device__ void Append(const RopeParameters& p, const DeviceSequence& s, int row, int head,
                       bool is_key, const float* staged, int lane) {
  float x[kLaneElements];
  const float4* from = reinterpret_cast<const float4*>(staged) + 2 * lane;
  *reinterpret_cast<float4*>(x) = from[0];
  *reinterpret_cast<float4*>(x + 4) = from[1];
  const KvGeometry& kv = p.kv;
  const unsigned token = static_cast<unsigned>(s.start + row - s.first_row);
  const int slot = static_cast<int>(token % kKvBlockRows);
  uint8_t* block = reinterpret_cast<uint8_t*>(HeadAddress(kv, s, head)) +
                   int64_t{token / kKvBlockRows} * kv.block_bytes;
  uint8_t* scales = block + (is_key ? 0 : kv.scale_bytes);
  uint8_t* codes = block + 2 * kv.scale_bytes +
                   (slot + (is_key ? 0 : kKvBlockRows)) * kv.row_bytes;
  if constexpr (kStored == Stored::kI4) {
    const float* factors = reinterpret_cast<const float*>(FactorAddress(kv, s));
    StoreI4(kv, x, factors[is_key ? 0 : 1], lane, codes, scales + slot);
  } else if constexpr (kStored == Stored::kI8) {
    StoreI8(kv, x, lane, codes, reinterpret_cast<float*>(scales) + slot);
  } else if constexpr (kStored == Stored::kBF16) {
    StoreBF16(kv, x, lane, codes);
  } else {
    StoreF32(kv, x, lane, codes);
  }
}

template <Stored kStored>
__device__ void RopeAppend(const RopeParameters& p) {
  __shared__ __align__(16) float staged[kWarps][kMaxHeadDim];
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int heads = p.q_heads + 2 * p.kv.kv_heads;
  const int item = static_cast<int>(blockIdx.x) * kWarps + warp;
  const int row = item / heads;
  if (row >= p.rows) return;
  const DeviceSequence* sequences = reinterpret_cast<const DeviceSequence*>(p.sequences);
  const DeviceSequence s = sequences[FindSequence(sequences, p.count, row)];
  if (row - s.first_row >= s.rows) return;  // the bound exceeds the rows that there are
  const int dim = p.kv.head_dim;
  const float* angles = nullptr;
  if (p.angles != 0) angles = reinterpret_cast<const float*>(p.angles) + row * p.angles_stride;
  int head = item % heads;
  if (head < p.q_heads) {
    if (angles == nullptr) return;
    float* q = reinterpret_cast<float*>(p.q) + row * p.q_stride + head * dim;
    StageHead(q, angles, dim, lane, staged[warp]);
#pragma unroll 1
    for (int i = lane; i < dim; i += kWarpLanes) q[i] = staged[warp][i];
    return;
  }
  head -= p.q_heads;
  const bool is_key = head < p.kv.kv_heads;
  if (!is_key) head -= p.kv.kv_heads;
  const float* x = is_key ? reinterpret_cast<const float*>(p.k) + row * p.k_stride
                          : reinterpret_cast<const float*>(p.v) + row * p.v_stride;
#pragma unroll 1
  for (int i = dim + lane; i < kMaxHeadDim; i += kWarpLanes) staged[warp][i] = 0;
  StageHead(x + head * dim, is_key ? angles : nullptr, dim, lane, staged[warp]);
  Append<kStored>(p, s, row, head, is_key, staged[warp], lane);
}

}  // namespace

extern "C" {

__global__ void __launch_bounds__(kWarps * kWarpLanes) rope_append_i4(const RopeParameters p) {
  RopeAppend<Stored::kI4>(p);
}
__global__ void __launch_bounds__(kWarps * kWarpLanes) rope_append_i8(const RopeParameters p) {
  RopeAppend<Stored::kI8>(p);
}
__global__ void __launch_bounds__(kWarps * kWarpLanes) rope_append_bf16(const RopeParameters p) {
  RopeAppend<Stored::kBF16>(p);
}
__global__ void __launch_bounds__(kWarps * kWarpLanes) rope_append_f32(const RopeParameters p) {
  RopeAppend<Stored::kF32>(p);
}

}  // extern "C"
}  // namespace nibble::cuda
