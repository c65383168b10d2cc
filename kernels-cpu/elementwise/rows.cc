// SPDX-License-Identifier: Apache-2.0
//
// The row kernels of elementwise.h: one contiguous row of F32, any length, any alignment.
//
//   x   | v0 | v1 | v2 | v3 | v0 | ...  | tail |     v = one SIMD vector of F32
//
// The sum of squares runs in four independent accumulators, to hide the latency of the
// addition, merged in one fixed order: the result depends on n and the SIMD target, never
// on alignment or threads. The tail is read and written with LoadN and StoreN, which never
// touch memory behind the row.
//
// Precision. Sum of squares: all terms are >= 0 and no accumulator lane adds more than
// n/16 + 1 of them, so the relative error of the mean is at most (n/16 + 8) * 2^-24. It
// overflows to infinity only if x^2 does (|x| > 1.8e19); the row is then 0, as it is in
// PyTorch. Quantizers: the division is IEEE F32 and the rounding is done on its exact
// bits, so the codes are those of EncodeE4M3 and EncodeI8 for every input.
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels-cpu/elementwise/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/elementwise/rows.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "hwy/contrib/math/math-inl.h"
#include "kernels-cpu/elementwise/row_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

float SumOfSquares(const float* x, int64_t n) {
  const RowF d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  RowV s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const RowV v0 = hn::LoadU(d, x + i), v1 = hn::LoadU(d, x + i + lanes);
    const RowV v2 = hn::LoadU(d, x + i + 2 * lanes), v3 = hn::LoadU(d, x + i + 3 * lanes);
    s0 = hn::MulAdd(v0, v0, s0);
    s1 = hn::MulAdd(v1, v1, s1);
    s2 = hn::MulAdd(v2, v2, s2);
    s3 = hn::MulAdd(v3, v3, s3);
  }
  ForEachVector(n - i, [&](int64_t k, int64_t count) HWY_ATTR {
    const RowV v = LoadUpTo(x + i + k, count);
    s0 = hn::MulAdd(v, v, s0);
  });
  return hn::ReduceSum(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

void RmsNormRow(const float* x, const float* weight, float epsilon, int64_t n, float* y) {
  if (n <= 0) return;
  const RowF d;
  const float variance = SumOfSquares(x, n) / static_cast<float>(n);
  const RowV inverse = hn::Set(d, 1.0f / std::sqrt(variance + epsilon));
  ForEachVector(n, [&](int64_t i, int64_t count) HWY_ATTR {
    const RowV normed = hn::Mul(LoadUpTo(x + i, count), inverse);
    StoreUpTo(d, hn::Mul(normed, LoadUpTo(weight + i, count)), y + i, count);
  });
}

// E4M3 codes (sign included) of v, which is finite.
HWY_INLINE hn::Vec<RowI> EncodeE4M3Lanes(RowV v) {
  const RowF d;
  const RowI di;
  const auto bits = hn::BitCast(di, v);
  const auto sign = hn::ShiftRight<24>(hn::BitCast(hn::RebindToUnsigned<RowF>(), bits));
  const RowV magnitude = hn::Min(hn::Abs(v), hn::Set(d, 448.0f));  // saturates
  const auto m = hn::BitCast(di, magnitude);
  // Normal codes: keep 3 of 23 mantissa bits. Half a step minus one plus the lowest kept
  // bit rounds to nearest even; a carry moves into the exponent, as it should. Then the
  // exponent bias goes from 127 to 7.
  const auto lowest = hn::And(hn::ShiftRight<20>(m), hn::Set(di, 1));
  const auto rounded = hn::Add(hn::Add(m, hn::Set(di, 0x7FFFF)), lowest);
  const auto normal = hn::Sub(hn::ShiftRight<20>(rounded), hn::Set(di, (127 - 7) << 3));
  // Subnormal codes are multiples of 2^-9, which is the last bit of a float near 2^14:
  // the addition itself rounds, to nearest even.
  const RowV magic = hn::Set(d, 16384.0f);
  const auto subnormal =
      hn::Sub(hn::BitCast(di, hn::Add(magnitude, magic)), hn::BitCast(di, magic));
  const auto is_normal = hn::Ge(m, hn::Set(di, (127 - 6) << 23));
  const auto code = hn::IfThenElse(is_normal, normal, subnormal);
  return hn::Or(code, hn::And(hn::BitCast(di, sign), hn::Set(di, 0x80)));
}

// What both quantizers share: the scale, and zeros for rows that cannot be scaled.
// Returns whether there are codes to compute.
bool RowScale(const float* x, int64_t n, float max_code, void* codes, float* scale) {
  const uint32_t bits = LargestMagnitudeBits(x, n);
  if (bits == 0 || bits >= 0x7F800000u) {
    if (n > 0) std::memset(codes, 0, static_cast<size_t>(n));
    *scale = bits == 0 ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    return false;
  }
  float amax;
  std::memcpy(&amax, &bits, sizeof(amax));
  const float ideal = amax / max_code;
  *scale = ideal < FLT_MIN ? FLT_MIN : ideal;
  return true;
}

float QuantizeRowE4M3(const float* x, int64_t n, uint8_t* codes) {
  float scale;
  if (!RowScale(x, n, 448.0f, codes, &scale)) return scale;
  const RowF d;
  const RowV divisor = hn::Set(d, scale);
  const hn::Rebind<uint8_t, RowF> d8;
  ForEachVector(n, [&](int64_t i, int64_t count) HWY_ATTR {
    const auto code = EncodeE4M3Lanes(hn::Div(LoadUpTo(x + i, count), divisor));
    StoreUpTo(d8, hn::DemoteTo(d8, code), codes + i, count);
  });
  return scale;
}

float QuantizeRowI8(const float* x, int64_t n, int8_t* codes) {
  float scale;
  if (!RowScale(x, n, 127.0f, codes, &scale)) return scale;
  const RowF d;
  const RowV divisor = hn::Set(d, scale);
  const hn::Rebind<int8_t, RowF> d8;
  ForEachVector(n, [&](int64_t i, int64_t count) HWY_ATTR {
    // |x / scale| <= 127 (1 + 2^-23): NearestInt (ties to even) cannot leave -127..127.
    const auto code = hn::NearestInt(hn::Div(LoadUpTo(x + i, count), divisor));
    StoreUpTo(d8, hn::DemoteTo(d8, code), codes + i, count);
  });
  return scale;
}

// silu(x) = x / (1 + exp(-x)). Error: exp within 1 ulp (2^-23) on its range, then one
// rounding each for the sum, the quotient and the product with up: below 5.1 * 2^-24 <
// 2^-21 in all. exp(-x) overflows to infinity below x = -88.7, which makes silu -0 where
// its true value is within 89 * 2^-128 < 2^-121 of 0. -x is capped at 104, the end of the
// range of Exp, where it is already infinite. A NaN survives in the numerator.
HWY_INLINE RowV Silu(RowV x) {
  const RowF d;
  const RowV e = hn::Exp(d, hn::Min(hn::Neg(x), hn::Set(d, 104.0f)));
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), e));
}

void SwiGluRow(const float* gate, const float* up, int64_t n, float* y) {
  const RowF d;
  ForEachVector(n, [&](int64_t i, int64_t count) HWY_ATTR {
    const RowV gated = Silu(LoadUpTo(gate + i, count));
    StoreUpTo(d, hn::Mul(gated, LoadUpTo(up + i, count)), y + i, count);
  });
}

void AddRow(const float* a, const float* b, int64_t n, float* y) {
  const RowF d;
  ForEachVector(n, [&](int64_t i, int64_t count) HWY_ATTR {
    StoreUpTo(d, hn::Add(LoadUpTo(a + i, count), LoadUpTo(b + i, count)), y + i, count);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(RmsNormRow);
HWY_EXPORT(QuantizeRowE4M3);
HWY_EXPORT(QuantizeRowI8);
HWY_EXPORT(SwiGluRow);
HWY_EXPORT(AddRow);

void RmsNormRow(const float* x, const float* weight, float epsilon, int64_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(RmsNormRow)(x, weight, epsilon, n, y);
}

float QuantizeRowE4M3(const float* x, int64_t n, uint8_t* codes) {
  return HWY_DYNAMIC_DISPATCH(QuantizeRowE4M3)(x, n, codes);
}

float QuantizeRowI8(const float* x, int64_t n, int8_t* codes) {
  return HWY_DYNAMIC_DISPATCH(QuantizeRowI8)(x, n, codes);
}

void SwiGluRow(const float* gate, const float* up, int64_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(SwiGluRow)(gate, up, n, y);
}

void AddRow(const float* a, const float* b, int64_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(AddRow)(a, b, n, y);
}

}  // namespace nibble
#endif  // HWY_ONCE
