// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/quantize/scale_search.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/numerics/quantize_row.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/quantize/scale_search.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/elementwise/row_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// sum h (w - clamp(round(w / scale)) scale)^2; h may be null. Multiplies by the inverse, which
// differs from the division in ties only.
float WeightedError(const float* w, const float* h, int64_t n, float scale) {
  const RowF d;
  const RowV s = hn::Set(d, scale), inverse = hn::Set(d, 1.0f / scale);
  const RowV top = hn::Set(d, 7.0f), bottom = hn::Set(d, -8.0f);
  RowV sum = hn::Zero(d);
  ForEachVector(n, [&](int64_t i, int64_t count) HWY_ATTR {
    const RowV v = LoadUpTo(w + i, count);
    const RowV q = hn::Round(hn::Max(hn::Min(hn::Mul(v, inverse), top), bottom));
    const RowV e = hn::NegMulAdd(q, s, v);
    const RowV weighted = h == nullptr ? e : hn::Mul(e, LoadUpTo(h + i, count));
    sum = hn::MulAdd(weighted, e, sum);
  });
  return hn::ReduceSum(d, sum);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(WeightedError);

namespace {

constexpr float kLargest = 7;  // of I4
constexpr int kMinExponent = -9, kMaxExponent = 5;
constexpr uint32_t kE4M3Above = 2, kE4M3Below = 20;
constexpr int kPow2Above = 1, kPow2Below = 3, kPow2Factors = 8;
constexpr float kFirstRatio = 1.06f, kLastRatio = 0.18f, kRatioStep = 0.03f;

// A scale whose inverse is infinite cannot be judged, and is worth nothing.
float ErrorOf(const float* w, const float* h, int64_t n, float scale) {
  if (!(scale >= std::numeric_limits<float>::min())) return std::numeric_limits<float>::infinity();
  return HWY_DYNAMIC_DISPATCH(WeightedError)(w, h, n, scale);
}

int RoundedUpExponent(float ideal) {
  int exponent;
  const float fraction = std::frexp(ideal, &exponent);
  return fraction == 0.5f ? exponent - 1 : exponent;
}

// Keeps the candidate with the smaller error; of equals the one that came first.
void Try(DType type, uint32_t code, const float* w, const float* h, int64_t n, float factor,
         GroupScale* best) {
  const float value = Decode(type, code) * factor;
  const float error = ErrorOf(w, h, n, value);
  if (error < best->error) *best = {code, value, error};
}

uint32_t RoundToNearestCode(DType type, float ideal) {
  if (type == DType::kPow2) {
    return static_cast<uint8_t>(
        std::clamp(RoundedUpExponent(ideal), kMinExponent, kMaxExponent));
  }
  return std::max(1u, Encode(type, ideal));
}

}  // namespace

float LargestMagnitude(const float* w, int64_t n) {
  float amax = 0;
  if (n > 0) GroupMaxima(DType::kF32, w, n, n, &amax);
  return amax;
}

GroupScale FindGroupScale(const WeightFormat& format, const float* w, const float* h, int64_t n,
                          float factor, bool search) {
  const DType scale_type = format.scale;
  const float amax = LargestMagnitude(w, n);
  if (amax == 0 || factor == 0) {
    return {scale_type == DType::kPow2 ? static_cast<uint8_t>(kMinExponent) : 0u, 0, 0};
  }
  float ideal = amax / MaxValue(format.code);
  if (factor != 1) ideal /= factor;
  const uint32_t nearest = RoundToNearestCode(scale_type, ideal);
  GroupScale best = {nearest, Decode(scale_type, nearest) * factor, 0};
  if (!search) return best;
  best.error = ErrorOf(w, h, n, best.value);
  switch (scale_type) {
    case DType::kE4M3: {
      constexpr uint32_t kTop = 0x7E;  // 448
      const uint32_t first = nearest > kE4M3Below ? nearest - kE4M3Below : 1;
      for (uint32_t c = std::min(nearest + kE4M3Above, kTop); c >= first; --c) {
        Try(scale_type, c, w, h, n, factor, &best);
      }
      break;
    }
    case DType::kPow2: {
      const int exponent = static_cast<int8_t>(nearest);
      const int top = std::min(kMaxExponent, exponent + kPow2Above);
      for (int e = top; e >= std::max(kMinExponent, exponent - kPow2Below); --e) {
        Try(scale_type, static_cast<uint8_t>(e), w, h, n, factor, &best);
      }
      break;
    }
    default:
      for (float ratio = kFirstRatio; ratio > kLastRatio; ratio -= kRatioStep) {
        Try(scale_type, RoundToNearestCode(scale_type, ideal * ratio), w, h, n, factor, &best);
      }
  }
  return best;
}

float FactorOf(float amax, float divisor) {
  if (amax == 0) return 0;
  return std::max(amax / kLargest / divisor, std::numeric_limits<float>::denorm_min());
}

float FindRowFactor(const float* w, const float* h, int64_t cols, int64_t group, bool search) {
  const float first = FactorOf(LargestMagnitude(w, cols), 32.0f);
  if (!search || first == 0) return first;
  const WeightFormat format = {DType::kI4, DType::kPow2, group};
  float best = first, best_error = std::numeric_limits<float>::infinity();
  for (int i = 0; i < kPow2Factors; ++i) {
    const float factor = first * std::exp2(-static_cast<float>(i) / kPow2Factors);
    float error = 0;
    for (int64_t k = 0; k < cols; k += group) {
      const int64_t n = std::min(group, cols - k);
      error +=
          FindGroupScale(format, w + k, h == nullptr ? nullptr : h + k, n, factor, true).error;
    }
    if (error < best_error) {
      best = factor;
      best_error = error;
    }
  }
  return best;
}

}  // namespace nibble
#endif  // HWY_ONCE
