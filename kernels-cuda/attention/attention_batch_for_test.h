// SPDX-License-Identifier: Apache-2.0
//
// For tests: a batch of sequences, attention over it on a device, and what it should come to.
#pragma once

#include <algorithm>
#include <functional>

#include "kernels-cpu/elementwise/elementwise.h"
#include "kernels-cuda/attention/device_cache_for_test.h"
#include "kernels-cuda/attention/kv_geometry.h"

namespace nibble::cuda::attention {

// The query as the scores use it: E4M3 times its scale, BF16, or itself.
inline std::vector<double> RoundedQuery(DType type, const float* q, int64_t dim) {
  std::vector<double> x(q, q + dim);
  if (type == DType::kBF16) {
    for (double& e : x) e = DecodeBF16(EncodeBF16(static_cast<float>(e)));
  } else if (type != DType::kF32) {
    std::vector<uint8_t> codes(static_cast<size_t>(dim));
    const double scale = QuantizeRowE4M3(q, dim, codes.data());
    for (int64_t i = 0; i < dim; ++i) x[i] = DecodeE4M3(codes[i]) * scale;
  }
  return x;
}

struct Expected {
  std::vector<double> y, bound;

  // The first result that is not within its bound, or not NaN or infinite where it should be; -1:
  // none.
  int64_t FirstWrong(const std::vector<float>& got) const {
    for (size_t i = 0; i < y.size(); ++i) {
      if (std::isnan(y[i]) ? std::isnan(got[i]) : got[i] == y[i]) continue;
      if (std::isfinite(y[i]) && std::fabs(got[i] - y[i]) <= bound[i]) continue;
      return static_cast<int64_t>(i);
    }
    return -1;
  }
};

// One query head of the token that sees `keys` keys; key, value: [keys][dim].
//
// The bound, with U = 2^-23 (twice the unit roundoff of F32, for units that cut instead of
// rounding) and first-order terms:
//   products are exact; a score sums head_dim of them and is scaled a few times: it is off by
//     e = (D + 8) U sum |q k| scale, and where FP8 units cut sums of 33 terms to 13 bits below
//     the largest (cut), by 33 * 2^-13 times the largest of each 32 products besides;
//   a weight: d = e + 4 U max |s| (the subtraction of the maximum) + U (8 + 2 changes), for the
//     exponential and for as many rescalings as the maximum may change in a chain of keys;
//   the weight that multiplies values is rounded to F16 (2^-11), BF16 (2^-8) or not at all, and
//     loses what is below 2^-39 of the largest: n 2^-39 max |v|;
//   sums of a chain of keys: (chain + 40) U, for numerator and denominator.
//   bound = 1.1 (2 d + rounding + 2 (chain + 40) U) sum w |v| / sum w + n 2^-39 max |v|.
inline void HeadReference(DType type, const std::vector<double>& query,
                          const std::vector<double>& key, const std::vector<double>& value,
                          int64_t keys, bool few, bool cut, float scale, double* y,
                          double* bound) {
  constexpr double kU = 0x1p-23;
  const int64_t dim = static_cast<int64_t>(query.size());
  std::vector<double> weights(static_cast<size_t>(keys));
  double max = -INFINITY, largest_score = 0, error = 0;
  for (int64_t t = 0; t < keys; ++t) {
    double score = 0, magnitude = 0, cut_error = 0, largest = 0;
    for (int64_t i = 0; i < dim; ++i) {
      const double product = query[i] * key[t * dim + i] * scale;
      score += product;
      magnitude += std::fabs(product);
      largest = std::max(largest, std::fabs(product));
      if (i % 32 == 31 || i + 1 == dim) {
        cut_error += 33 * 0x1p-13 * largest;
        largest = 0;
      }
    }
    weights[t] = score;
    max = std::isnan(score) ? score : std::max(max, score);
    largest_score = std::max(largest_score, std::fabs(score));
    error = std::max(error, static_cast<double>(dim + 8) * kU * magnitude +
                                (cut ? cut_error : 0.0));
  }
  double sum = 0;
  for (double& w : weights) sum += w = std::exp(w - max);
  const double chain = few ? std::min<double>(static_cast<double>(keys), 256)
                           : static_cast<double>(keys);
  const double d = error + 4 * kU * largest_score + kU * (8 + 2 * chain / 16);
  const double rounding = type == DType::kF32 ? 0 : type == DType::kBF16 ? 0x1p-8 : 0x1p-11;
  for (int64_t i = 0; i < dim; ++i) {
    double total = 0, magnitude = 0, largest = 0;
    for (int64_t t = 0; t < keys; ++t) {
      const double v = value[t * dim + i];
      total += weights[t] * v;
      magnitude += weights[t] * std::fabs(v);
      largest = std::max(largest, std::fabs(v));
    }
    y[i] = total / sum;
    bound[i] = 1.1 * (2 * d + rounding + 2 * (chain + 40) * kU) * magnitude / sum +
               static_cast<double>(keys) * 0x1p-39 * largest;
  }
}

// A batch: sequence i holds starts[i] older tokens, then gets rows[i] more. factors: of keys and
// values of KV4; 0: any.
struct Batch {
  Batch(std::mt19937_64& random, const KvCacheShape& shape, int64_t q_heads,
        const std::vector<std::pair<int64_t, int64_t>>& starts_and_rows,
        const std::function<void(Operands&)>& edit = [](Operands&) {},
        std::pair<float, float> given_factors = {0.0f, 0.0f})
      : shape(shape), q_heads(q_heads), q_width(q_heads * shape.head_dim) {
    Workspace workspace(1);
    std::vector<float> factors(static_cast<size_t>(2 * shape.layers), 1.0f);
    for (int i = 0; i < shape.layers; ++i) {
      const auto any = [&] {
        return 0.125f + 0.01f * static_cast<float>(UniformInt(random, 0, 99));
      };
      factors[i] = given_factors.first != 0 ? given_factors.first : any();
      factors[shape.layers + i] = given_factors.second != 0 ? given_factors.second : any();
    }
    const float* given = shape.type == DType::kI4 ? factors.data() : nullptr;
    const float* given_values = given == nullptr ? nullptr : given + shape.layers;
    for (const auto& [start, n] : starts_and_rows) {
      KvCacheShape own = shape;
      own.capacity = std::max<int64_t>(start + n + UniformInt(random, 0, 40), 1);
      caches.push_back(std::make_unique<KvCache>(own, given, given_values));
      Operands x(random, own, q_heads, start + n);
      edit(x);
      x.Append(workspace, *caches.back(), 0, 0, start + n);
      sequences.push_back({caches.back().get(), start, n});
      q.insert(q.end(), x.q.begin() + start * q_width, x.q.end());
      rows += n;
    }
  }

  // What is not a token of a sequence is 0xFF: NaN as a scale of any type, and as a value.
  std::vector<uint8_t> Bytes(size_t sequence) const {
    const Sequence& s = sequences[sequence];
    const DeviceLayout layout(s.cache->shape());
    std::vector<uint8_t> bytes(static_cast<size_t>(layout.total), 0xFF);
    PackLayer(*s.cache, 0, s.start + s.rows, layout, &bytes);
    return bytes;
  }

  // Runs on a device; slack: by how much bounds exceed what there is.
  Status Run(Device& device, float scale, int64_t slack, std::vector<float>* y) const {
    const int64_t stride = q_width + 3;
    std::vector<std::unique_ptr<OnDevice<uint8_t>>> memory;
    std::vector<DeviceSequence> entries;
    SequenceBatch batch = {0, static_cast<int64_t>(sequences.size()), rows + slack, slack, slack};
    int64_t first = 0;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const Sequence& s = sequences[i];
      memory.push_back(std::make_unique<OnDevice<uint8_t>>(device, Bytes(i)));
      NIBBLE_CUDA_RETURN_IF_FAILED(memory.back()->status());
      entries.push_back({memory.back()->get(), s.cache->shape().capacity, s.start, s.rows, first});
      first += s.rows;
      batch.max_rows = std::max(batch.max_rows, s.rows + slack);
      batch.max_keys = std::max(batch.max_keys, s.start + s.rows + 16 * slack);
    }
    const OnDevice<DeviceSequence> on_device(device, entries);
    const OnDevice<float> in(device, q);
    constexpr float kUntouched = 12345.0f;
    const OnDevice<float> out(device,
                              std::vector<float>(static_cast<size_t>(rows * stride), kUntouched));
    const int64_t bytes = ScratchBytes(shape, q_heads, batch);
    const OnDevice<uint8_t> scratch(device,
                                    std::vector<uint8_t>(static_cast<size_t>(bytes), 0xFF));
    for (const Status& status : {on_device.status(), in.status(), out.status(), scratch.status()}) {
      NIBBLE_CUDA_RETURN_IF_FAILED(status);
    }
    batch.sequences = on_device.get();
    NIBBLE_CUDA_RETURN_IF_FAILED(Attention(device, shape, 0, q_heads, {in.get(), q_width}, scale,
                                           {out.get(), stride}, batch, {scratch.get(), bytes}));
    Status status;
    const std::vector<float> all = out.Read(&status);
    NIBBLE_CUDA_RETURN_IF_FAILED(status);
    y->clear();
    for (int64_t r = 0; r < rows; ++r) {
      y->insert(y->end(), all.begin() + r * stride, all.begin() + r * stride + q_width);
      for (int64_t i = q_width; i < stride; ++i) {
        if (all[r * stride + i] != kUntouched) {
          return Status(NB_INTERNAL, "wrote behind row " + std::to_string(r));
        }
      }
    }
    return Status();
  }

  // cut: sums of FP8 units may be cut to 13 bits.
  Expected Reference(float scale, bool cut = false) const {
    Expected expected;
    expected.y.resize(static_cast<size_t>(rows * q_width));
    expected.bound.resize(expected.y.size());
    const int64_t dim = shape.head_dim, heads = q_heads / shape.kv_heads;
    int64_t row = 0;
    for (const Sequence& s : sequences) {
      const int64_t keys = s.start + s.rows;
      const bool few = shape.type == DType::kF32 ? false : HasFewRows(s.rows, heads);
      for (int64_t kv = 0; kv < shape.kv_heads; ++kv) {
        std::vector<double> key(static_cast<size_t>(keys * dim)), value(key.size());
        for (int64_t t = 0; t < keys; ++t) {
          for (int64_t i = 0; i < dim; ++i) {
            key[t * dim + i] = s.cache->Key(0, kv, t, i);
            value[t * dim + i] = s.cache->Value(0, kv, t, i);
          }
        }
        for (int64_t r = 0; r < s.rows; ++r) {
          for (int64_t h = kv * heads; h < (kv + 1) * heads; ++h) {
            const int64_t at = (row + r) * q_width + h * dim;
            HeadReference(shape.type, RoundedQuery(shape.type, q.data() + at, dim), key, value,
                          s.start + r + 1, few, cut, scale, expected.y.data() + at,
                          expected.bound.data() + at);
          }
        }
      }
      row += s.rows;
    }
    return expected;
  }

  KvCacheShape shape;
  int64_t q_heads, q_width, rows = 0;
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<Sequence> sequences;
  std::vector<float> q;
};

}  // namespace nibble::cuda::attention
