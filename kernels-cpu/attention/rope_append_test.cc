// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels-cpu/attention/attention_case.h"

namespace nibble {
namespace {

constexpr double kUnit = 0x1p-24;  // unit roundoff of F32

std::vector<float> InverseFrequencies(int64_t half) {
  std::vector<float> f(half);
  for (int64_t i = 0; i < half; ++i) {
    f[i] = static_cast<float>(std::pow(10000.0, -static_cast<double>(i) / half));
  }
  return f;
}

TEST(RopeAngles, CosinesAndSinesOfTheF32Product) {
  for (int threads = 1; threads <= 4; ++threads) {
    Workspace workspace(threads);
    const int64_t half = 33, rows = 9, stride = 2 * half + 5;
    const GuardedBuffer<float> f(InverseFrequencies(half));
    const GuardedBuffer<float> angles((rows - 1) * stride + 2 * half);
    const Sequence sequences[] = {{nullptr, 0, 4}, {nullptr, 77, 0}, {nullptr, 131000, 5}};
    RopeAngles(workspace, f.data(), half, sequences, 3, angles.data(), stride);
    for (int64_t row = 0; row < rows; ++row) {
      const float position = static_cast<float>(row < 4 ? row : 131000 + row - 4);
      for (int64_t i = 0; i < half; ++i) {
        const float angle = position * f[i];
        // One rounding of a value of at most 1.
        EXPECT_NEAR(angles[row * stride + i], std::cos(static_cast<long double>(angle)), kUnit);
        EXPECT_NEAR(angles[row * stride + half + i], std::sin(static_cast<long double>(angle)),
                    kUnit);
      }
    }
  }
}

// |rotated - exact| <= 2 u (|a cos| + |b sin|): the products and the sum round once each.
void ExpectRotated(const float* x, const float* angles, int64_t half, const float* rotated) {
  std::vector<double> expected(2 * half);
  RotateHeadReference(x, angles, half, expected.data());
  for (int64_t i = 0; i < 2 * half; ++i) {
    const double a = std::fabs(x[i % half]) + std::fabs(x[half + i % half]);
    ASSERT_LE(std::fabs(rotated[i] - expected[i]), 2 * kUnit * a) << "element " << i;
  }
}

TEST(RopeAppend, RotatesQueriesInPlaceAndKeysIntoTheCache) {
  std::mt19937_64 shapes = TestRandom(21);
  for (int round = 0; round < 6 * TestRounds(); ++round) {
    const int head_dim = static_cast<int>(2 * UniformInt(shapes, 8, 128));
    const int64_t half = head_dim / 2, kv_heads = 2, q_heads = 6, rows = 21;
    const KvCacheShape shape = MakeShape(DType::kF32, kv_heads, head_dim, 64);
    const Operands x(shapes, shape, q_heads, rows);
    const std::vector<float> f = InverseFrequencies(half);
    ForEachSimdTarget([&] {
      std::vector<float> first_q;
      for (int threads = 1; threads <= 4; ++threads) {
        Workspace workspace(threads);
        KvCache one(shape), other(shape);
        const Sequence sequences[] = {{&one, 0, 8}, {&other, 0, 13}};
        const GuardedBuffer<float> angles(rows * head_dim);
        RopeAngles(workspace, f.data(), half, sequences, 2, angles.data(), head_dim);
        const GuardedBuffer<float> q(x.q), k(x.k), v(x.v);
        RopeAppend(workspace, 0, q.data(), x.q_width, q_heads, k.data(), x.kv_width, v.data(),
                   x.kv_width, angles.data(), head_dim, sequences, 2);
        EXPECT_EQ(one.length(0), 8);
        EXPECT_EQ(other.length(0), 13);
        EXPECT_TRUE(std::equal(x.k.begin(), x.k.end(), k.begin()));
        EXPECT_TRUE(std::equal(x.v.begin(), x.v.end(), v.begin()));
        if (threads == 1) first_q.assign(q.begin(), q.end());
        ASSERT_EQ(std::vector<float>(q.begin(), q.end()), first_q) << "threads " << threads;
        for (int64_t row = 0; row < rows; ++row) {
          const float* angle = angles.data() + row * head_dim;
          for (int64_t h = 0; h < q_heads; ++h) {
            const int64_t at = row * x.q_width + h * head_dim;
            ExpectRotated(&x.q[at], angle, half, q.data() + at);
          }
          const KvCache& cache = row < 8 ? one : other;
          for (int64_t h = 0; h < kv_heads; ++h) {
            std::vector<float> key(head_dim);
            for (int64_t i = 0; i < head_dim; ++i) {
              key[i] = static_cast<float>(cache.Key(0, h, row < 8 ? row : row - 8, i));
            }
            ExpectRotated(&x.k[row * x.kv_width + h * head_dim], angle, half, key.data());
          }
        }
      }
    });
  }
}

TEST(RopeAppend, DividesKeysByTheirScalesAndMultipliesQueries) {
  std::mt19937_64 random = TestRandom(23);
  const int head_dim = 34, half = 17;
  const int64_t kv_heads = 2, q_heads = 6, rows = 11;
  const KvCacheShape shape = MakeShape(DType::kF32, kv_heads, head_dim, 64);
  const Operands x(random, shape, q_heads, rows);
  std::vector<float> scales = NormalValues(random, kv_heads * head_dim);
  for (float& s : scales) s = std::exp2(s);
  const std::vector<float> f = InverseFrequencies(half);
  ForEachSimdTarget([&] {
    for (const bool rotate : {true, false}) {
      for (int threads = 1; threads <= 3; ++threads) {
        Workspace workspace(threads);
        // The second sequence has no scales; both also run without any, for comparison.
        KvCache scaled(shape), plain(shape), plain_too(shape), other(shape);
        scaled.SetKeyScales(0, scales.data());
        const GuardedBuffer<float> angles(rows * head_dim);
        const Sequence with[] = {{&scaled, 0, 5}, {&other, 0, 6}};
        const Sequence without[] = {{&plain, 0, 5}, {&plain_too, 0, 6}};
        RopeAngles(workspace, f.data(), half, with, 2, angles.data(), head_dim);
        const float* angle = rotate ? angles.data() : nullptr;
        std::vector<float> q = x.q, q_plain = x.q;
        RopeAppend(workspace, 0, q.data(), x.q_width, q_heads, x.k.data(), x.kv_width,
                   x.v.data(), x.kv_width, angle, head_dim, with, 2);
        RopeAppend(workspace, 0, q_plain.data(), x.q_width, q_heads, x.k.data(), x.kv_width,
                   x.v.data(), x.kv_width, angle, head_dim, without, 2);
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t i = 0; i < x.q_width; ++i) {
            const float scale = scales[i / head_dim / 3 * head_dim + i % head_dim];
            const float unscaled = q_plain[row * x.q_width + i];
            ASSERT_EQ(q[row * x.q_width + i], row < 5 ? unscaled * scale : unscaled);
          }
        }
        for (int64_t h = 0; h < kv_heads; ++h) {
          for (int64_t i = 0; i < head_dim; ++i) {
            for (int64_t t = 0; t < 5; ++t) {
              ASSERT_EQ(static_cast<float>(scaled.Key(0, h, t, i)),
                        static_cast<float>(plain.Key(0, h, t, i)) / scales[h * head_dim + i]);
              ASSERT_EQ(scaled.Value(0, h, t, i), plain.Value(0, h, t, i));
            }
            ASSERT_EQ(other.Key(0, h, 5, i), plain_too.Key(0, h, 5, i));
          }
        }
        scaled.SetKeyScales(0, nullptr);
        EXPECT_EQ(scaled.key_scales(0), nullptr);
      }
    }
  });
}

// Post-RoPE scaling (FireQ, arXiv 2505.20839): channels with outliers decide the step of the 4-bit
// cache for all others, unless their scales take them out.
TEST(RopeAppend, KeyScalesSaveAttentionFromPlantedOutliers) {
  std::mt19937_64 random = TestRandom(24);
  const int head_dim = 64;
  const int64_t kv_heads = 2, q_heads = 4, rows = 80;
  std::vector<float> scales(kv_heads * head_dim, 1.0f);
  const int64_t planted[] = {3, 35, 64 + 20, 64 + 52};  // pairs (3, 35) and (20, 52)
  for (const int64_t i : planted) scales[i] = 24;
  const KvCacheShape exact = MakeShape(DType::kF32, kv_heads, head_dim, rows);
  const KvCacheShape kv4 = MakeShape(DType::kI4, kv_heads, head_dim, rows);
  Operands x(random, exact, q_heads, rows);
  for (int64_t row = 0; row < rows; ++row) {
    for (const int64_t i : planted) {
      x.k[row * x.kv_width + i] *= 24;
      for (int64_t g = 0; g < 2; ++g) {
        x.q[row * x.q_width + (i / head_dim * 2 + g) * head_dim + i % head_dim] /= 24;
      }
    }
  }
  Workspace workspace(2);
  const auto attend = [&](const KvCacheShape& shape, const float* key_scales) {
    KvCache cache(shape);
    if (key_scales != nullptr) cache.SetKeyScales(0, key_scales);
    const Sequence s = {&cache, 0, rows};
    std::vector<float> q = x.q, y(rows * x.q_width);
    RopeAppend(workspace, 0, q.data(), x.q_width, q_heads, x.k.data(), x.kv_width, x.v.data(),
               x.kv_width, nullptr, 0, &s, 1);
    Attention(workspace, 0, q.data(), x.q_width, q_heads, 0.25f, &s, 1, y.data(), x.q_width);
    return y;
  };
  const std::vector<float> expected = attend(exact, nullptr);
  const auto error = [&](const std::vector<float>& y) {
    double sum = 0, all = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      sum += (y[i] - expected[i]) * (y[i] - expected[i]);
      all += expected[i] * expected[i];
    }
    return std::sqrt(sum / all);
  };
  EXPECT_LT(error(attend(exact, scales.data())), 1e-5);
  const double without = error(attend(kv4, nullptr)), with = error(attend(kv4, scales.data()));
  std::printf("attention output error, KV4: %.3f without key scales, %.3f with\n", without, with);
  EXPECT_LT(with, 0.5 * without);
}

TEST(RopeAppend, WritesOnlyItsLayer) {
  std::mt19937_64 random = TestRandom(22);
  KvCacheShape shape = MakeShape(DType::kI8, 1, 32, 20);
  shape.layers = 3;
  KvCache cache(shape);
  Workspace workspace(2);
  const Operands x(random, shape, 1, 20);
  const Sequence s = {&cache, 0, 20};
  RopeAppend(workspace, 1, nullptr, 32, 1, x.k.data(), 32, x.v.data(), 32, nullptr, 0, &s, 1);
  EXPECT_EQ(cache.length(0), 0);
  EXPECT_EQ(cache.length(1), 20);
  EXPECT_EQ(cache.length(2), 0);
  const int64_t layer_bytes = cache.bytes() / 3;
  for (int64_t i = 0; i < layer_bytes; ++i) {
    ASSERT_EQ(cache.Blocks(0, 0)[i], 0);
    ASSERT_EQ(cache.Blocks(2, 0)[i], 0);
  }
}

}  // namespace
}  // namespace nibble
