// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/attention/attention_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels-cpu/elementwise/elementwise_reference.h"
#include "kernels-cpu/numerics/formats.h"

namespace nibble {
namespace {

constexpr double kUnit = 0x1p-24;  // unit roundoff of F32

// The query as the scores use it.
std::vector<double> RoundQuery(const KvCacheShape& shape, const float* q) {
  std::vector<double> rounded(q, q + shape.head_dim);
  if (IsUnquantized(shape.type)) return rounded;
  std::vector<uint8_t> codes(rounded.size());
  const double scale = QuantizeRowReference(DType::kE4M3, q, shape.head_dim, codes.data());
  for (size_t i = 0; i < codes.size(); ++i) rounded[i] = DecodeE4M3(codes[i]) * scale;
  return rounded;
}

// One query head of the token at position `keys - 1`.
//
// The bound, with u = 2^-24 and first-order terms doubled for the rest:
//   a score is a sum of D products with at most D + 5 roundings on a path (products, sums,
//     the key, query and softmax scales), so it is off by e <= (D + 5) u sum |q k| scale;
//   subtracting the maximum rounds once more, u |s - m|; Exp is within 2 u; each of the
//     several maxima that a weight may pass (one a step of 64 keys or a key range) rescales
//     with 4 u, and the differences s - m_1, m_1 - m_2, ... add up to |s - m|. So a weight
//     is off by a factor 1 + d, d <= max e + u max |s - m| + u (4 + 4 (n/64 + 2));
//   weights and their sum are accumulated with at most n + 8 roundings each.
//   numerator and denominator each carry d and the accumulation, relative to sum w |v|;
//   what underflows is cut or rounded at 2^-149, a few times for each of the n terms, and
//   the denominator is at least 1:
//   bound = 2 * (2 d + 2 (n + 8) u) * sum w |v| + n 2^-140 (1 + max |v|).
void HeadReference(const KvCache& cache, int layer, int64_t kv_head, const float* q, float scale,
                   int64_t keys, double* y, double* bound) {
  const int64_t dim = cache.shape().head_dim;
  const std::vector<double> query = RoundQuery(cache.shape(), q);
  std::vector<double> weights(static_cast<size_t>(keys));
  double max = -std::numeric_limits<double>::infinity(), min = -max, error = 0, sum = 0;
  for (int64_t t = 0; t < keys; ++t) {
    double score = 0, magnitude = 0;
    for (int64_t i = 0; i < dim; ++i) {
      const double product = query[i] * cache.Key(layer, kv_head, t, i) * scale;
      score += product;
      magnitude += std::fabs(product);
    }
    weights[t] = score;
    if (std::isnan(score)) max = score;
    max = std::max(max, score);
    min = std::min(min, score);
    error = std::max(error, static_cast<double>(dim + 5) * kUnit * magnitude);
  }
  for (double& w : weights) sum += w = std::exp(w - max);
  const double n = static_cast<double>(keys);
  const double weight_error = error + kUnit * (max - min) + kUnit * (4 + 4 * (n / 64 + 2));
  for (int64_t i = 0; i < dim; ++i) {
    double total = 0, magnitude = 0, largest = 0;
    for (int64_t t = 0; t < keys; ++t) {
      const double value = cache.Value(layer, kv_head, t, i);
      total += weights[t] * value;
      magnitude += weights[t] * std::fabs(value);
      largest = std::max(largest, std::fabs(value));
    }
    y[i] = total / sum;
    bound[i] = 2 * (2 * weight_error + 2 * (n + 8) * kUnit) * magnitude / sum +
               n * 0x1p-140 * (1 + largest);
  }
}

}  // namespace

void RotateHeadReference(const float* x, const float* angles, int64_t half, double* y) {
  for (int64_t i = 0; i < half; ++i) {
    const double a = x[i], b = x[half + i], cosine = angles[i], sine = angles[half + i];
    y[i] = a * cosine - b * sine;
    y[half + i] = b * cosine + a * sine;
  }
}

void AttentionReference(int layer, const float* q, int64_t q_stride, int64_t q_heads, float scale,
                        const Sequence* sequences, int count, double* y, double* bound) {
  int64_t row = 0;
  for (int s = 0; s < count; ++s) {
    const KvCache& cache = *sequences[s].cache;
    const int64_t dim = cache.shape().head_dim;
    for (int64_t i = 0; i < sequences[s].rows; ++i, ++row) {
      for (int64_t h = 0; h < q_heads; ++h) {
        const int64_t out = (row * q_heads + h) * dim;
        HeadReference(cache, layer, h / (q_heads / cache.shape().kv_heads),
                      q + row * q_stride + h * dim, scale, sequences[s].start + i + 1, y + out,
                      bound + out);
      }
    }
  }
}

}  // namespace nibble
