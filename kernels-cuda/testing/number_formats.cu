// SPDX-License-Identifier: Apache-2.0
//
// The functions of common/{ptx,decode,encode}.cuh, each called by a kernel of its own, for
// common/number_formats_test.cc.
#include "kernels-cuda/common/encode.cuh"

using namespace nibble::cuda;

// One word of codes a thread to kWords words: to[i][word].
#define NIBBLE_DECODE_WORDS(name, function, kWords)                                           \
  extern "C" __global__ void name(const uint32_t* codes, int64_t count, uint32_t* to) {       \
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;            \
    if (i >= count) return;                                                                   \
    uint32_t words[kWords];                                                                   \
    function(codes[i], words);                                                                \
    for (int w = 0; w < kWords; ++w) to[i * kWords + w] = words[w];                           \
  }

NIBBLE_DECODE_WORDS(i4x8_to_e4m3, DecodeI4x8ToE4M3, 2)
NIBBLE_DECODE_WORDS(i4x8_to_i8, DecodeI4x8ToI8, 2)
NIBBLE_DECODE_WORDS(i4x8_to_f16, DecodeI4x8ToF16, 4)
NIBBLE_DECODE_WORDS(i4x8_to_bf16, DecodeI4x8ToBF16, 4)
NIBBLE_DECODE_WORDS(e4m3x4_to_f16, DecodeE4M3x4ToF16, 2)
NIBBLE_DECODE_WORDS(e4m3x4_to_bf16, DecodeE4M3x4ToBF16, 2)
NIBBLE_DECODE_WORDS(e5m2x4_to_f16, DecodeE5M2x4ToF16, 2)
NIBBLE_DECODE_WORDS(e5m2x4_to_bf16, DecodeE5M2x4ToBF16, 2)
NIBBLE_DECODE_WORDS(e3m2x4_to_bf16, DecodeE3M2x4ToBF16, 2)
NIBBLE_DECODE_WORDS(e2m3x4_to_bf16, DecodeE2M3x4ToBF16, 2)
NIBBLE_DECODE_WORDS(i8x4_to_bf16, DecodeI8x4ToBF16, 2)

namespace {
__device__ void E3M2ToE4M3(uint32_t codes, uint32_t (&words)[1]) {
  words[0] = DecodeE3M2x4ToE4M3(codes);
}
__device__ void E2M3ToE4M3(uint32_t codes, uint32_t (&words)[1]) {
  words[0] = DecodeE2M3x4ToE4M3(codes);
}
}  // namespace
NIBBLE_DECODE_WORDS(e3m2x4_to_e4m3, E3M2ToE4M3, 1)
NIBBLE_DECODE_WORDS(e2m3x4_to_e4m3, E2M3ToE4M3, 1)

// Bits of every scalar decoder: to[i][8].
extern "C" __global__ void decode_scalars(int64_t count, float* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const auto code = static_cast<uint32_t>(i);
  float* out = to + 8 * i;
  out[0] = DecodeE4M3(code & 0xFF);
  out[1] = DecodeE5M2(code & 0xFF);
  out[2] = DecodeE3M2(code & 0x3F);
  out[3] = DecodeE2M3(code & 0x3F);
  out[4] = DecodeI4(code);
  out[5] = DecodeF16(static_cast<uint16_t>(code));
  out[6] = DecodeBF16(static_cast<uint16_t>(code));
  out[7] = (code & 1) != 0 ? DecodeBF16High(code << 16) : DecodeBF16Low(code);
}

// Every encoder of one value, and of eight neighbours: to[i][12].
extern "C" __global__ void encode_all(const float* values, int64_t count, uint32_t* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float v[8];
  for (int k = 0; k < 8; ++k) v[k] = values[(i + k) % count];
  uint32_t* out = to + 12 * i;
  out[0] = EncodeBF16(v[0]);
  out[1] = EncodeBF16x2(v[0], v[1]);
  out[2] = RoundToBF16x2(v[0], v[1]);
  out[3] = RoundToF16x2(v[0], v[1]);
  out[4] = EncodeE4M3(v[0]);
  out[5] = EncodeE4M3Software(v[0]);
  out[6] = EncodeE4M3x4(v[0], v[1], v[2], v[3]);
  out[7] = EncodeE4M3Scale(v[0]);
  out[8] = static_cast<uint32_t>(EncodeI8(v[0]));
  out[9] = static_cast<uint32_t>(EncodeI4(v[0]));
  out[10] = EncodeI8x4(v[0], v[1], v[2], v[3]);
  out[11] = EncodeI4x8(v);
}

namespace {

// Fragments from row-major memory, as the comment of ptx.cuh draws them. a: 16 rows of `bytes`
// bytes, b: 8 rows (n) of the same.
__device__ void LoadFragments(const uint8_t* a, const uint8_t* b, uint32_t (&fa)[4],
                              uint32_t (&fb)[2]) {
  const int group = threadIdx.x / 4, member = threadIdx.x % 4;
  constexpr int kRowBytes = 32;  // of either shape
  for (int i = 0; i < 4; ++i) {
    const int row = group + 8 * (i % 2), column = 4 * member + 16 * (i / 2);
    fa[i] = *reinterpret_cast<const uint32_t*>(a + row * kRowBytes + column);
  }
  for (int i = 0; i < 2; ++i) {
    fb[i] = *reinterpret_cast<const uint32_t*>(b + group * kRowBytes + 4 * member + 16 * i);
  }
}

template <class T>
__device__ void StoreResult(const T (&c)[4], T* to) {
  const int group = threadIdx.x / 4, member = threadIdx.x % 4;
  for (int i = 0; i < 4; ++i) {
    to[(group + 8 * (i / 2)) * 8 + 2 * member + i % 2] = c[i];
  }
}

}  // namespace

// One warp: to[16][8] = 0.5 (1 for integers) + a * b^T.
#define NIBBLE_MMA(name, function, Type, initial)                                          \
  extern "C" __global__ void name(const uint8_t* a, const uint8_t* b, Type* to) {          \
    uint32_t fa[4], fb[2];                                                                 \
    LoadFragments(a, b, fa, fb);                                                           \
    Type c[4] = {initial, initial, initial, initial};                                      \
    function(c, fa, fb);                                                                   \
    StoreResult(c, to);                                                                    \
  }

NIBBLE_MMA(mma_f16, MmaF16, float, 0.5f)
NIBBLE_MMA(mma_bf16, MmaBF16, float, 0.5f)
NIBBLE_MMA(mma_i8, MmaI8, int32_t, 1)
#if NIBBLE_FP8_MMA
NIBBLE_MMA(mma_e4m3, MmaE4M3, float, 0.5f)
#endif
#if NIBBLE_F8F6F4_MMA
NIBBLE_MMA(mma_e3m2_e4m3, MmaE3M2E4M3, float, 0.5f)
NIBBLE_MMA(mma_e4m3_e3m2, MmaE4M3E3M2, float, 0.5f)
NIBBLE_MMA(mma_e2m3_e4m3, MmaE2M3E4M3, float, 0.5f)
NIBBLE_MMA(mma_e4m3_e2m3, MmaE4M3E2M3, float, 0.5f)
NIBBLE_MMA(mma_e4m3_e4m3, MmaE4M3E4M3, float, 0.5f)
#endif

// One warp. Four 8 x 8 matrices of 16 bits, one after the other, to shared memory by every width
// of copy (`valid` bytes of each 16 are read), then to registers by every ldmatrix:
// to[lane][14]: x1, x2, x4, and the same transposed.
extern "C" __global__ void move_matrices(const uint8_t* from, int valid, uint32_t* to) {
  __shared__ alignas(16) uint8_t matrices[512];
  const int lane = threadIdx.x;
  const uint32_t shared = SharedAddress(matrices);
  const auto left = [valid](int offset, int width) {
    return min(width, max(0, valid - offset));
  };
  const int offset = 16 * lane;
  if (lane < 16) {
    CopyAsync16(shared + offset, from + offset, left(0, 16));
    CopyAsyncCommit();
  } else {
    CopyAsync8(shared + offset, from + offset, left(0, 8));
    CopyAsyncCommit();
    for (int word = 8; word < 16; word += 4) {
      CopyAsync4(shared + offset + word, from + offset + word, left(word, 4));
    }
  }
  CopyAsyncWait<0>();
  CopyAsyncWaitAll();
  __syncwarp();
  uint32_t r[14], two[2], four[4];
  const uint32_t address = shared + offset;
  LoadMatrix1(r[0], address);
  LoadMatrix2(two, address);
  r[1] = two[0];
  r[2] = two[1];
  LoadMatrix4(four, address);
  for (int i = 0; i < 4; ++i) r[3 + i] = four[i];
  LoadMatrixTransposed1(r[7], address);
  LoadMatrixTransposed2(two, address);
  r[8] = two[0];
  r[9] = two[1];
  LoadMatrixTransposed4(four, address);
  for (int i = 0; i < 4; ++i) r[10 + i] = four[i];
  for (int i = 0; i < 14; ++i) to[14 * lane + i] = r[i];
}

// One warp: to[lane][7].
extern "C" __global__ void warp_reductions(const float* values, float* to) {
  const float x = values[threadIdx.x];
  float* out = to + 7 * threadIdx.x;
  out[0] = WarpSum(x);
  out[1] = WarpSum<4>(x);
  out[2] = WarpMax(x);
  out[3] = WarpMax<8>(x);
  out[4] = static_cast<float>(WarpSum(static_cast<int32_t>(x)));
  out[5] = __uint_as_float(WarpMax(MagnitudeBits(x)));
  out[6] = Exp2Approximate(x);
}
