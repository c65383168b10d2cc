// SPDX-License-Identifier: Apache-2.0
//
// For tests: random caches, batches and operands, and one call of append and attention
// over them.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels-cpu/attention/attention.h"
#include "kernels-cpu/attention/attention_reference.h"
#include "kernels-cpu/testing/kernel_test.h"
#include "kernels-cpu/testing/guarded_buffer.h"

namespace nibble {

inline constexpr DType kKvTypes[] = {DType::kI4, DType::kI8, DType::kBF16, DType::kF32};

inline KvCacheShape MakeShape(DType type, int kv_heads, int head_dim, int64_t capacity,
                              int64_t group_size = 0) {
  KvCacheShape shape;
  shape.type = type;
  shape.kv_heads = kv_heads;
  shape.head_dim = head_dim;
  shape.capacity = capacity;
  shape.group_size = group_size == 0 ? head_dim : group_size;
  return shape;
}

inline std::string Describe(const KvCacheShape& s) {
  return "type " + std::to_string(static_cast<int>(s.type)) + " kv_heads " +
         std::to_string(s.kv_heads) + " head_dim " + std::to_string(s.head_dim) + " group " +
         std::to_string(s.group_size);
}

// A random shape; small_groups: KV4 with several scale groups a head.
inline KvCacheShape RandomShape(std::mt19937_64& random, DType type, int64_t capacity,
                                bool small_groups) {
  const int kv_heads = static_cast<int>(UniformInt(random, 1, 3));
  if (type == DType::kI4 && small_groups) {
    const int64_t group = 16 * UniformInt(random, 1, 3);
    return MakeShape(type, kv_heads, static_cast<int>(group * UniformInt(random, 2, 5)), capacity,
                     group);
  }
  return MakeShape(type, kv_heads, static_cast<int>(2 * UniformInt(random, 8, 128)), capacity);
}

// Queries, keys and values of some rows; every tensor ends at a guard page.
struct Operands {
  Operands(std::mt19937_64& random, const KvCacheShape& shape, int64_t q_heads, int64_t rows)
      : rows(rows),
        q_heads(q_heads),
        q_width(q_heads * shape.head_dim),
        kv_width(shape.kv_heads * int64_t{shape.head_dim}),
        q(NormalValues(random, rows * q_width)),
        k(NormalValues(random, rows * kv_width)),
        v(NormalValues(random, rows * kv_width)) {}

  int64_t rows, q_heads, q_width, kv_width;
  std::vector<float> q, k, v;

  // Appends rows [first, first + n) of k and v to the cache at `start`, without rotation.
  void Append(Workspace& workspace, KvCache& cache, int64_t start, int64_t first,
              int64_t n) const {
    const GuardedBuffer<float> keys(Rows(k, kv_width, first, n));
    const GuardedBuffer<float> values(Rows(v, kv_width, first, n));
    const Sequence s = {&cache, start, n};
    RopeAppend(workspace, 0, nullptr, q_width, q_heads, keys.data(), kv_width, values.data(),
               kv_width, nullptr, 0, &s, 1);
  }

  // Attention of rows [first, first + n) of q at position `start`.
  std::vector<float> Attend(Workspace& workspace, KvCache& cache, float scale, int64_t start,
                            int64_t first, int64_t n) const {
    const GuardedBuffer<float> queries(Rows(q, q_width, first, n));
    const GuardedBuffer<float> y(static_cast<size_t>(n * q_width));
    const Sequence s = {&cache, start, n};
    Attention(workspace, 0, queries.data(), q_width, q_heads, scale, &s, 1, y.data(), q_width);
    return {y.begin(), y.end()};
  }

  static std::vector<float> Rows(const std::vector<float>& x, int64_t width, int64_t first,
                                 int64_t n) {
    return {x.begin() + first * width, x.begin() + (first + n) * width};
  }
};

// Whether every result is within its bound of the reference.
inline void ExpectWithinBound(const float* y, const std::vector<double>& expected,
                              const std::vector<double>& bound, const std::string& what) {
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_LE(std::fabs(y[i] - expected[i]), bound[i])
        << what << ", element " << i << ": " << y[i] << " instead of " << expected[i];
  }
}

}  // namespace nibble
