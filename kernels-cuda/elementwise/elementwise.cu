// SPDX-License-Identifier: Apache-2.0
//
// Row operators. One block works on one row (the quantizers and RMSNorm) or on a chunk of all
// elements (SwiGLU, add, copy).
//
//   row     | 4 of thread 0 | 4 of thread 1 | ... | 4 of thread T - 1 |    chunk 0: 4 T columns
//           | 4 of thread 0 | ...                                     |    chunk 1
//           | ... up to cols | zeros up to padded_cols |
//
// A thread owns the same columns however they are loaded: 16 bytes at once where the row lies on
// a boundary of 16 bytes, one by one elsewhere and at the end. Four chunks stay in registers
// between the passes (sum of squares, amax, codes); longer rows read the rest again, from the
// caches. Any number of rows and columns from 1 to 2^31 - 1.
//
// Precision. Sum of squares: a thread adds its columns in order (fma), a warp and then the block
// add up by halves: at most cols / T + 10 roundings stand behind any term, all terms are >= 0, so
// the relative error of the mean is below (cols / T + 12) * 2^-24. x^2 overflows where
// |x| > 1.8e19, and the row is then 0, as on the CPU. Division and square root are IEEE's
// (div.rn, sqrt.rn). Quantizers: one IEEE division a value and an exact encoder: the codes of
// QuantizeRowReference, bit for bit, for the row that reaches them. SwiGLU: exp is within 2 ulp,
// then one rounding each for the sum, the quotient and the product: below 2^-21 + 3 * 2^-24.
#include "kernels-cuda/attention/sequence.h"
#include "kernels-cuda/common/encode.cuh"
#include "kernels-cuda/elementwise/block.cuh"
#include "kernels-cuda/elementwise/params.h"

namespace nibble::cuda::elementwise {
namespace {

constexpr int kCachedChunks = 4;  // in 16 registers a thread

struct Float4 {
  float v[4];
};

__device__ __forceinline__ bool On16Bytes(const void* p, int64_t stride) {
  return (reinterpret_cast<uintptr_t>(p) & 15) == 0 && (stride & 3) == 0;
}

// Columns i..i+3 of a row, zeros from cols on.
__device__ __forceinline__ Float4 Load4(const float* row, int64_t i, int64_t cols, bool whole) {
  Float4 x;
  if (whole && i + 4 <= cols) {
    const float4 w = *reinterpret_cast<const float4*>(row + i);
    x.v[0] = w.x;
    x.v[1] = w.y;
    x.v[2] = w.z;
    x.v[3] = w.w;
    return x;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) x.v[k] = i + k < cols ? row[i + k] : 0.0f;
  return x;
}

__device__ __forceinline__ void Store4(float* row, int64_t i, int64_t cols, bool whole,
                                       const Float4& x) {
  if (whole && i + 4 <= cols) {
    *reinterpret_cast<float4*>(row + i) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (i + k < cols) row[i + k] = x.v[k];
  }
}

// exp(-x) becomes infinity below x = -88.7, which makes silu -0 where its value is within 2^-120
// of 0. A NaN survives in the numerator.
__device__ __forceinline__ float Silu(float x) {
  return __fdiv_rn(x, __fadd_rn(1.0f, expf(-x)));
}

// ------------------------------------------------------------------------------ a row's source

// What a row holds before it is rounded: x, x normalized, or silu(gate) * up.
struct RowSource {
  const float* x;       // or gate
  const float* up;      // or null
  const float* weight;  // of the norm, or null
  int64_t cols;
  bool x_whole, up_whole, weight_whole;
  float inverse;  // of the norm's root mean square

  __device__ RowSource(const RowParams& p, int64_t row)
      : x(p.x + row * p.x_stride),
        up(p.up == nullptr ? nullptr : p.up + row * p.up_stride),
        weight(p.norm_weight),
        cols(p.cols),
        x_whole(On16Bytes(p.x, p.x_stride)),
        up_whole(On16Bytes(p.up, p.up_stride)),
        weight_whole(On16Bytes(p.norm_weight, 0)),
        inverse(1) {}

  // Before the norm.
  __device__ __forceinline__ Float4 Raw(int64_t i) const {
    Float4 v = Load4(x, i, cols, x_whole);
    if (up != nullptr) {
      const Float4 u = Load4(up, i, cols, up_whole);
#pragma unroll
      for (int k = 0; k < 4; ++k) v.v[k] = __fmul_rn(Silu(v.v[k]), u.v[k]);
    }
    return v;
  }

  __device__ __forceinline__ Float4 Normed(Float4 v, int64_t i) const {
    if (weight != nullptr) {
      const Float4 w = Load4(weight, i, cols, weight_whole);
#pragma unroll
      for (int k = 0; k < 4; ++k) v.v[k] = __fmul_rn(__fmul_rn(v.v[k], inverse), w.v[k]);
    }
    return v;
  }
};

// The row's chunks: visit(first column, value) in order, from registers as far as they reach.
class RowChunks {
 public:
  __device__ RowChunks(const RowParams& p, int64_t row, float* partial) : source_(p, row) {
    const int64_t step = 4 * blockDim.x;
    float sum = 0;
#pragma unroll
    for (int c = 0; c < kCachedChunks; ++c) {
      const int64_t i = c * step + 4 * threadIdx.x;
      if (i < source_.cols) cached_[c] = source_.Raw(i);
    }
    if (source_.weight == nullptr) return;
#pragma unroll
    for (int c = 0; c < kCachedChunks; ++c) {
      if (c * step + 4 * threadIdx.x < source_.cols) AddSquares(cached_[c], &sum);
    }
    for (int64_t i = kCachedChunks * step + 4 * threadIdx.x; i < source_.cols; i += step) {
      AddSquares(source_.Raw(i), &sum);
    }
    sum = BlockReduce(sum, 0.0f, partial, [](float x) { return WarpSum(x); });
    const float mean = __fdiv_rn(sum, static_cast<float>(source_.cols));
    source_.inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, p.norm_epsilon)));
#pragma unroll
    for (int c = 0; c < kCachedChunks; ++c) {
      const int64_t i = c * step + 4 * threadIdx.x;
      if (i < source_.cols) cached_[c] = source_.Normed(cached_[c], i);
    }
  }

  template <class Visit>
  __device__ __forceinline__ void ForEach(const Visit& visit) const {
    const int64_t step = 4 * blockDim.x;
#pragma unroll
    for (int c = 0; c < kCachedChunks; ++c) {
      const int64_t i = c * step + 4 * threadIdx.x;
      if (i < source_.cols) visit(i, cached_[c]);
    }
    for (int64_t i = kCachedChunks * step + 4 * threadIdx.x; i < source_.cols; i += step) {
      visit(i, source_.Normed(source_.Raw(i), i));
    }
  }

 private:
  static __device__ __forceinline__ void AddSquares(const Float4& v, float* sum) {
#pragma unroll
    for (int k = 0; k < 4; ++k) *sum = __fmaf_rn(v.v[k], v.v[k], *sum);
  }

  RowSource source_;
  Float4 cached_[kCachedChunks];
};

// ----------------------------------------------------------------------------- a row's target

// Writes bytes of codes (kBytes of them hold four columns) from column i on, up to `cols` columns.
template <int kBytesPerColumn>
__device__ __forceinline__ void StoreCodes(uint8_t* row, int64_t i, int64_t cols, bool whole,
                                           uint64_t codes) {
  uint8_t* to = row + i * kBytesPerColumn;
  if (whole && i + 4 <= cols) {
    if constexpr (kBytesPerColumn == 1) {
      *reinterpret_cast<uint32_t*>(to) = static_cast<uint32_t>(codes);
    } else {
      *reinterpret_cast<uint64_t*>(to) = codes;
    }
    return;
  }
  for (int64_t k = 0; k < 4 && i + k < cols; ++k) {
#pragma unroll
    for (int b = 0; b < kBytesPerColumn; ++b) {
      to[k * kBytesPerColumn + b] =
          static_cast<uint8_t>(codes >> (8 * (k * kBytesPerColumn + b)));
    }
  }
}

// Zeros from cols to padded_cols; the codes of the row's last four columns are written before.
template <int kBytesPerColumn>
__device__ __forceinline__ void StorePadding(uint8_t* row, int64_t cols, int64_t padded_cols) {
  const int64_t end = padded_cols * kBytesPerColumn;
  for (int64_t b = cols * kBytesPerColumn + threadIdx.x; b < end; b += blockDim.x) row[b] = 0;
}

template <class Encode>
__device__ __forceinline__ void QuantizeRow(const RowParams& p, float max_code,
                                            const Encode& encode) {
  __shared__ float sums[kWarpLanes];
  __shared__ uint32_t maxima[kWarpLanes];
  const int64_t row = blockIdx.x;
  const RowChunks chunks(p, row, sums);

  uint32_t largest = 0;
  chunks.ForEach([&](int64_t, const Float4& v) {
#pragma unroll
    for (int k = 0; k < 4; ++k) largest = max(largest, MagnitudeBits(v.v[k]));
  });
  largest = BlockReduce(largest, 0u, maxima, [](uint32_t x) { return WarpMax(x); });

  // The smallest normal F32 is the least scale: a subnormal one has too few bits to divide by.
  const bool none = largest == 0 || largest >= 0x7F800000u;
  const float scale = fmaxf(__fdiv_rn(__uint_as_float(largest), max_code), 0x1p-126f);
  if (threadIdx.x == 0) {
    p.scales[row] = !none ? scale : largest == 0 ? 0.0f : __uint_as_float(0x7FC00000u);
  }
  auto* codes = static_cast<uint8_t*>(p.y) + row * p.y_stride;
  const bool whole = (reinterpret_cast<uintptr_t>(p.y) & 3) == 0 && (p.y_stride & 3) == 0;
  chunks.ForEach([&](int64_t i, const Float4& v) {
    const uint32_t word =
        none ? 0
             : encode(__fdiv_rn(v.v[0], scale), __fdiv_rn(v.v[1], scale),
                      __fdiv_rn(v.v[2], scale), __fdiv_rn(v.v[3], scale));
    StoreCodes<1>(codes, i, p.cols, whole, word);
  });
  StorePadding<1>(codes, p.cols, p.padded_cols);
}

}  // namespace
}  // namespace nibble::cuda::elementwise

using namespace nibble::cuda;
using namespace nibble::cuda::elementwise;

// ------------------------------------------------------------------------------------- kernels

// Blocks: one a row, of BlockThreads(cols).
extern "C" __global__ void __launch_bounds__(kMaxRowThreads) rows_to_e4m3(const RowParams p) {
  QuantizeRow(p, 448.0f, [](float a, float b, float c, float d) {
    return EncodeE4M3x4(a, b, c, d);
  });
}

extern "C" __global__ void __launch_bounds__(kMaxRowThreads) rows_to_i8(const RowParams p) {
  // |x / scale| <= 127 (1 + 2^-23): no code can be -128.
  QuantizeRow(p, 127.0f, [](float a, float b, float c, float d) {
    return EncodeI8x4(a, b, c, d);
  });
}

extern "C" __global__ void __launch_bounds__(kMaxRowThreads) rows_to_bf16(const RowParams p) {
  __shared__ float sums[kWarpLanes];
  const RowChunks chunks(p, blockIdx.x, sums);
  uint8_t* codes = static_cast<uint8_t*>(p.y) + static_cast<int64_t>(blockIdx.x) * p.y_stride * 2;
  const bool whole = (reinterpret_cast<uintptr_t>(p.y) & 7) == 0 && (p.y_stride & 3) == 0;
  chunks.ForEach([&](int64_t i, const Float4& v) {
    const uint32_t low = EncodeBF16x2(v.v[0], v.v[1]), high = EncodeBF16x2(v.v[2], v.v[3]);
    StoreCodes<2>(codes, i, p.cols, whole, low | static_cast<uint64_t>(high) << 32);
  });
  StorePadding<2>(codes, p.cols, p.padded_cols);
}

extern "C" __global__ void __launch_bounds__(kMaxRowThreads) rows_to_f32(const RowParams p) {
  __shared__ float sums[kWarpLanes];
  const RowChunks chunks(p, blockIdx.x, sums);
  float* y = static_cast<float*>(p.y) + static_cast<int64_t>(blockIdx.x) * p.y_stride;
  const bool whole = On16Bytes(p.y, p.y_stride);
  // In place is safe: a thread writes only columns that it alone reads.
  chunks.ForEach([&](int64_t i, const Float4& v) { Store4(y, i, p.cols, whole, v); });
}

namespace {

// combine(a, b) over all elements, four a step, the steps of all rows shared out to all threads.
template <class Combine>
__device__ __forceinline__ void ForEachPair(const PairParams& p, const Combine& combine) {
  const bool a_whole = On16Bytes(p.a, p.a_stride), b_whole = On16Bytes(p.b, p.b_stride);
  const bool y_whole = On16Bytes(p.y, p.y_stride);
  const int64_t row_steps = (p.cols + 3) / 4, steps = p.rows * row_steps;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t s = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; s < steps;
       s += threads) {
    const int64_t row = s / row_steps, i = (s - row * row_steps) * 4;
    Float4 a = Load4(p.a + row * p.a_stride, i, p.cols, a_whole);
    const Float4 b = Load4(p.b + row * p.b_stride, i, p.cols, b_whole);
#pragma unroll
    for (int k = 0; k < 4; ++k) a.v[k] = combine(a.v[k], b.v[k]);
    Store4(p.y + row * p.y_stride, i, p.cols, y_whole, a);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kPairThreads) swiglu_f32(const PairParams p) {
  ForEachPair(p, [](float gate, float up) { return __fmul_rn(Silu(gate), up); });
}

extern "C" __global__ void __launch_bounds__(kPairThreads) add_f32(const PairParams p) {
  ForEachPair(p, [](float a, float b) { return __fadd_rn(a, b); });
}

// 16 bytes a thread and step.
extern "C" __global__ void __launch_bounds__(kPairThreads)
    copy_words(uint4* to, const uint4* from, int64_t words) {
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < words;
       i += threads) {
    to[i] = from[i];
  }
}

namespace {

// Cosine and sine of |x| <= 2^44, an F32, within 2^-50. The multiple n of pi/2 is taken off in two
// exact-product steps: after the first, what remains of pi/2 is below 2^-53, so that n < 2^45 of
// it are below 2^-8 and their error below 2^-60. On [-pi/4, pi/4] the Taylor polynomials leave out
// less than 2^-58.
__device__ __forceinline__ void CosineSine(double x, double* cosine, double* sine) {
  const double n = rint(__dmul_rn(x, 0x1.45f306dc9c883p-1));  // 2/pi
  double r = __fma_rn(-n, 0x1.921fb54442d18p+0, x);
  r = __fma_rn(-n, 0x1.1a62633145c07p-54, r);
  const double r2 = __dmul_rn(r, r);
  double s = 1.0 / 355687428096000;  // 17!
  s = __fma_rn(s, r2, -1.0 / 1307674368000);
  s = __fma_rn(s, r2, 1.0 / 6227020800);
  s = __fma_rn(s, r2, -1.0 / 39916800);
  s = __fma_rn(s, r2, 1.0 / 362880);
  s = __fma_rn(s, r2, -1.0 / 5040);
  s = __fma_rn(s, r2, 1.0 / 120);
  s = __fma_rn(s, r2, -1.0 / 6);
  s = __fma_rn(__dmul_rn(s, r2), r, r);
  double c = 1.0 / 20922789888000;  // 16!
  c = __fma_rn(c, r2, -1.0 / 87178291200);
  c = __fma_rn(c, r2, 1.0 / 479001600);
  c = __fma_rn(c, r2, -1.0 / 3628800);
  c = __fma_rn(c, r2, 1.0 / 40320);
  c = __fma_rn(c, r2, -1.0 / 720);
  c = __fma_rn(c, r2, 1.0 / 24);
  c = __fma_rn(c, r2, -0.5);
  c = __fma_rn(c, r2, 1.0);
  const int quarter = static_cast<int>(__double2ll_rn(n) & 3);
  const bool swap = (quarter & 1) != 0;
  const double a = swap ? s : c, b = swap ? c : s;
  *cosine = quarter == 1 || quarter == 2 ? -a : a;
  *sine = quarter >= 2 ? -b : b;
}

}  // namespace

// One block a token. The token's sequence is the last one whose first row is at most its own.
extern "C" __global__ void __launch_bounds__(kAngleThreads)
    rope_angles(const float* inverse_frequencies, int64_t half, const DeviceSequence* sequences,
                int64_t count, float* angles, int64_t stride) {
  const int64_t row = blockIdx.x;
  int64_t low = 0, high = count;  // the first sequence with first_row > row
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (sequences[middle].first_row <= row) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return;
  const DeviceSequence s = sequences[low - 1];
  if (row >= s.first_row + s.rows) return;
  const float position = static_cast<float>(s.start + row - s.first_row);
  float* out = angles + row * stride;
  for (int64_t i = threadIdx.x; i < half; i += blockDim.x) {
    const float angle = __fmul_rn(position, inverse_frequencies[i]);
    float cosine = __uint_as_float(0x7FC00000u), sine = cosine;
    if (fabsf(angle) <= 0x1p44f) {
      double c, s2;
      CosineSine(angle, &c, &s2);
      cosine = __double2float_rn(c);
      sine = __double2float_rn(s2);
    }
    out[i] = cosine;
    out[half + i] = sine;
  }
}
