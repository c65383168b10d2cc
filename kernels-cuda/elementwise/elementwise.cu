// SPDX-License-Identifier: Apache-2.0
//
// Row operators. One block works on one row (the quantizers and RMSNorm) or on a chunk of all
// elements (SwiGLU, add, copy).
//
//   row     | 4 of thread 0 | 4 of thread 1 | ... | 4 of thread T - 1 |    chunk 0: 4 T columns
//           | 4 of thread 0 | ...                                     |    chunk 1
//           | ... up to cols | zeros up to padded_cols |
//
// A thread owns the same columns however they are loaded, so that sums do not depend on it. Where the
// columns come in fours and all operands' rows lie on boundaries (the host looks: `whole`), that is
// by 16 bytes at once, and four chunks stay in registers between the passes (sum of squares, amax,
// codes); longer rows read the rest again, from the caches. Other rows are read one by one in every
// pass. Any number of rows and columns from 1 to 2^31 - 1.
//
// Precision. Sum of squares: a thread adds its columns in order (fma), a warp and then the block
// add up by halves: at most cols / T + 10 roundings stand behind any term, all terms are >= 0, so
// the relative error of the mean is below (cols / T + 12) * 2^-24. x^2 overflows where
// |x| > 1.8e19, and the row is then 0, as on the CPU. Division and square root are IEEE's
// (div.rn, sqrt.rn). Quantizers: one IEEE division a value and an exact encoder: the codes of
// QuantizeRowReference, bit for bit, for the row that reaches them. SwiGLU: exp is within 2 ulp,
// then one rounding each for the sum, the quotient and the product: below 2^-21 + 3 * 2^-24.
#include <type_traits>

#include "kernels-cuda/attention/sequence.h"
#include "kernels-cuda/common/encode.cuh"
#include "kernels-cuda/elementwise/block.cuh"
#include "kernels-cuda/elementwise/params.h"

namespace nibble::cuda::elementwise {
namespace {

// A row that is not whole would take as many branches as elements for each.
template <bool kWhole>
constexpr int kCachedChunks = kWhole ? 4 : 0;  // in 16 registers a thread

struct Float4 {
  float v[4];
};

// Columns i..i+3 of a row, zeros from cols on.
template <bool kWhole>
__device__ __forceinline__ Float4 Load4(const float* row, int64_t i, int64_t cols) {
  Float4 x;
  if constexpr (kWhole) {
    const float4 w = *reinterpret_cast<const float4*>(row + i);
    x.v[0] = w.x;
    x.v[1] = w.y;
    x.v[2] = w.z;
    x.v[3] = w.w;
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k) x.v[k] = i + k < cols ? row[i + k] : 0.0f;
  }
  return x;
}

template <bool kWhole>
__device__ __forceinline__ void Store4(float* row, int64_t i, int64_t cols, const Float4& x) {
  if constexpr (kWhole) {
    *reinterpret_cast<float4*>(row + i) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (i + k < cols) row[i + k] = x.v[k];
    }
  }
}

// exp(-x) becomes infinity below x = -88.7, which makes silu -0 where its value is within 2^-120
// of 0. A NaN survives in the numerator.
__device__ __forceinline__ float Silu(float x) {
  return __fdiv_rn(x, __fadd_rn(1.0f, expf(-x)));
}

// ------------------------------------------------------------------------------ a row's source

// What a row holds before it is rounded.
enum class Source {
  kPlain,   // x
  kNormed,  // x normalized
  kGated,   // silu(x) * up
};

template <Source kSource, bool kWhole>
struct RowSource {
  const float* x;
  const float* other;  // kNormed: the norm's weights; kGated: up
  int64_t cols;
  float inverse = 1;  // kNormed: of the root mean square

  __device__ RowSource(const RowParams& p, int64_t row)
      : x(p.x + row * p.x_stride),
        other(kSource == Source::kNormed ? p.norm_weight : p.up + row * p.up_stride),
        cols(p.cols) {}

  // Before the norm.
  __device__ __forceinline__ Float4 Raw(int64_t i) const {
    Float4 v = Load4<kWhole>(x, i, cols);
    if constexpr (kSource == Source::kGated) {
      const Float4 u = Load4<kWhole>(other, i, cols);
#pragma unroll
      for (int k = 0; k < 4; ++k) v.v[k] = __fmul_rn(Silu(v.v[k]), u.v[k]);
    }
    return v;
  }

  __device__ __forceinline__ Float4 Normed(Float4 v, int64_t i) const {
    if constexpr (kSource == Source::kNormed) {
      const Float4 w = Load4<kWhole>(other, i, cols);
#pragma unroll
      for (int k = 0; k < 4; ++k) v.v[k] = __fmul_rn(__fmul_rn(v.v[k], inverse), w.v[k]);
    }
    return v;
  }
};

// The row's chunks: visit(first column, value) in order, from registers as far as they reach.
template <Source kSource, bool kWhole>
class RowChunks {
 public:
  __device__ RowChunks(const RowParams& p, int64_t row) : source_(p, row) {
    const int64_t step = 4 * blockDim.x;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int64_t i = c * step + 4 * threadIdx.x;
      if (i < source_.cols) cached_[c] = source_.Raw(i);
    }
    if constexpr (kSource == Source::kNormed) Normalize(p.norm_epsilon);
  }

  template <class Visit>
  __device__ __forceinline__ void ForEach(const Visit& visit) const {
    const int64_t step = 4 * blockDim.x;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int64_t i = c * step + 4 * threadIdx.x;
      if (i < source_.cols) visit(i, cached_[c]);
    }
#pragma unroll 1
    for (int64_t i = kChunks * step + 4 * threadIdx.x; i < source_.cols; i += step) {
      visit(i, source_.Normed(source_.Raw(i), i));
    }
  }

 private:
  static constexpr int kChunks = kCachedChunks<kWhole>;

  static __device__ __forceinline__ void AddSquares(const Float4& v, float* sum) {
#pragma unroll
    for (int k = 0; k < 4; ++k) *sum = __fmaf_rn(v.v[k], v.v[k], *sum);
  }

  __device__ __forceinline__ void Normalize(float epsilon) {
    __shared__ float partial[kWarpLanes];
    const int64_t step = 4 * blockDim.x;
    float sum = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (c * step + 4 * threadIdx.x < source_.cols) AddSquares(cached_[c], &sum);
    }
#pragma unroll 1
    for (int64_t i = kChunks * step + 4 * threadIdx.x; i < source_.cols; i += step) {
      AddSquares(source_.Raw(i), &sum);
    }
    sum = BlockReduce(sum, 0.0f, partial, [](float x) { return WarpSum(x); });
    const float mean = __fdiv_rn(sum, static_cast<float>(source_.cols));
    source_.inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, epsilon)));
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int64_t i = c * step + 4 * threadIdx.x;
      if (i < source_.cols) cached_[c] = source_.Normed(cached_[c], i);
    }
  }

  RowSource<kSource, kWhole> source_;
  Float4 cached_[kChunks == 0 ? 1 : kChunks];
};

// ----------------------------------------------------------------------------- a row's target

// Writes the codes of four columns, kBytes bytes each, from column i on, up to `cols` columns.
template <int kBytes, bool kWhole>
__device__ __forceinline__ void StoreCodes(uint8_t* row, int64_t i, int64_t cols, uint64_t codes) {
  using Code = std::conditional_t<kBytes == 1, uint8_t, uint16_t>;
  using Codes = std::conditional_t<kBytes == 1, uint32_t, uint64_t>;
  if constexpr (kWhole) {
    *reinterpret_cast<Codes*>(row + i * kBytes) = static_cast<Codes>(codes);
  } else {
    auto* to = reinterpret_cast<Code*>(row) + i;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (i + k < cols) to[k] = static_cast<Code>(codes >> (8 * kBytes * k));
    }
  }
}

// Zeros from cols to padded_cols; the codes of the row's last four columns are written before.
template <int kBytesPerColumn>
__device__ __forceinline__ void StorePadding(uint8_t* row, int64_t cols, int64_t padded_cols) {
  const int64_t end = padded_cols * kBytesPerColumn;
#pragma unroll 1
  for (int64_t b = cols * kBytesPerColumn + threadIdx.x; b < end; b += blockDim.x) row[b] = 0;
}

template <Source kSource, bool kWhole, class Encode>
__device__ __forceinline__ void QuantizeRow(const RowParams& p, float max_code,
                                            const Encode& encode) {
  __shared__ uint32_t maxima[kWarpLanes];
  const int64_t row = blockIdx.x;
  const RowChunks<kSource, kWhole> chunks(p, row);

  float own = 0;
  chunks.ForEach([&](int64_t, const Float4& v) {
#pragma unroll
    for (int k = 0; k < 4; ++k) own = LargerMagnitude(own, v.v[k]);
  });
  // As integers finite magnitudes order like their floats, infinity and NaN above all of them.
  const uint32_t largest =
      BlockReduce(__float_as_uint(own), 0u, maxima, [](uint32_t x) { return WarpMax(x); });

  // The smallest normal F32 is the least scale: a subnormal one has too few bits to divide by.
  const bool none = largest == 0 || largest >= 0x7F800000u;
  const float scale = fmaxf(__fdiv_rn(__uint_as_float(largest), max_code), 0x1p-126f);
  if (threadIdx.x == 0) {
    p.scales[row] = !none ? scale : largest == 0 ? 0.0f : __uint_as_float(0x7FC00000u);
  }
  auto* codes = static_cast<uint8_t*>(p.y) + row * p.y_stride;
  chunks.ForEach([&](int64_t i, const Float4& v) {
    const uint32_t word =
        none ? 0
             : encode(__fdiv_rn(v.v[0], scale), __fdiv_rn(v.v[1], scale),
                      __fdiv_rn(v.v[2], scale), __fdiv_rn(v.v[3], scale));
    StoreCodes<1, kWhole>(codes, i, p.cols, word);
  });
  StorePadding<1>(codes, p.cols, p.padded_cols);
}

template <Source kSource, bool kWhole>
__device__ __forceinline__ void RowToE4M3(const RowParams& p) {
  QuantizeRow<kSource, kWhole>(p, 448.0f, [](float a, float b, float c, float d) {
    return EncodeE4M3x4(a, b, c, d);
  });
}

template <Source kSource, bool kWhole>
__device__ __forceinline__ void RowToI8(const RowParams& p) {
  // |x / scale| <= 127 (1 + 2^-23): no code can be -128.
  QuantizeRow<kSource, kWhole>(p, 127.0f, [](float a, float b, float c, float d) {
    return EncodeI8x4(a, b, c, d);
  });
}

template <Source kSource, bool kWhole>
__device__ __forceinline__ void RowToBF16(const RowParams& p) {
  const RowChunks<kSource, kWhole> chunks(p, blockIdx.x);
  uint8_t* codes = static_cast<uint8_t*>(p.y) + static_cast<int64_t>(blockIdx.x) * p.y_stride * 2;
  chunks.ForEach([&](int64_t i, const Float4& v) {
    const uint32_t low = EncodeBF16x2(v.v[0], v.v[1]), high = EncodeBF16x2(v.v[2], v.v[3]);
    StoreCodes<2, kWhole>(codes, i, p.cols, low | static_cast<uint64_t>(high) << 32);
  });
  StorePadding<2>(codes, p.cols, p.padded_cols);
}

template <Source kSource, bool kWhole>
__device__ __forceinline__ void RowToF32(const RowParams& p) {
  const RowChunks<kSource, kWhole> chunks(p, blockIdx.x);
  float* y = static_cast<float*>(p.y) + static_cast<int64_t>(blockIdx.x) * p.y_stride;
  // In place is safe: a thread writes only columns that it alone reads.
  chunks.ForEach([&](int64_t i, const Float4& v) { Store4<kWhole>(y, i, p.cols, v); });
}

}  // namespace
}  // namespace nibble::cuda::elementwise

using namespace nibble::cuda;
using namespace nibble::cuda::elementwise;

// ------------------------------------------------------------------------------------- kernels

// Blocks: one a row, of RowThreads(cols).
#define NIBBLE_ROW_KERNELS(type, Row)                                         \
  extern "C" __global__ void __launch_bounds__(kMaxRowThreads)                \
      rows_to_##type(const RowParams p) {                                     \
    if (p.whole != 0) {                                                       \
      Row<Source::kPlain, true>(p);                                           \
    } else {                                                                  \
      Row<Source::kPlain, false>(p);                                          \
    }                                                                         \
  }                                                                           \
  extern "C" __global__ void __launch_bounds__(kMaxRowThreads)                \
      normed_rows_to_##type(const RowParams p) {                              \
    if (p.whole != 0) {                                                       \
      Row<Source::kNormed, true>(p);                                          \
    } else {                                                                  \
      Row<Source::kNormed, false>(p);                                         \
    }                                                                         \
  }                                                                           \
  extern "C" __global__ void __launch_bounds__(kMaxRowThreads)                \
      gated_rows_to_##type(const RowParams p) {                               \
    if (p.whole != 0) {                                                       \
      Row<Source::kGated, true>(p);                                           \
    } else {                                                                  \
      Row<Source::kGated, false>(p);                                          \
    }                                                                         \
  }
NIBBLE_ROW_KERNELS(e4m3, RowToE4M3)
NIBBLE_ROW_KERNELS(i8, RowToI8)
NIBBLE_ROW_KERNELS(bf16, RowToBF16)
NIBBLE_ROW_KERNELS(f32, RowToF32)

namespace {

// combine(a, b) over all elements, four a step where all rows are whole, else one; the steps of all
// rows shared out to all threads.
template <class Combine>
__device__ __forceinline__ void ForEachPair(const PairParams& p, const Combine& combine) {
  const int width = p.whole != 0 ? 4 : 1;
  const int64_t row_steps = p.cols / width, steps = p.rows * row_steps;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
#pragma unroll 1
  for (int64_t s = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; s < steps;
       s += threads) {
    const int64_t row = s / row_steps, i = (s - row * row_steps) * width;
    const float *a = p.a + row * p.a_stride, *b = p.b + row * p.b_stride;
    float* y = p.y + row * p.y_stride;
    if (width == 1) {
      y[i] = combine(a[i], b[i]);
    } else {
      Float4 sum = Load4<true>(a, i, p.cols);
      const Float4 other = Load4<true>(b, i, p.cols);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum.v[k] = combine(sum.v[k], other.v[k]);
      Store4<true>(y, i, p.cols, sum);
    }
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
#pragma unroll 1
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
