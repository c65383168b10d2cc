// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/attention/kv_cache.h"

#include <algorithm>
#include <limits>
#include <new>

#include "kernels-cpu/attention/attention_case.h"
#include "kernels-cpu/elementwise/elementwise_reference.h"
#include "kernels-cpu/numerics/formats.h"

namespace nibble {
namespace {

TEST(KvCache, BytesFollowTheFormula) {
  struct Row {
    DType type;
    int head_dim, group;
    int64_t block_bytes;
  };
  // The formula of kv_cache.h, written out for a few shapes.
  for (const Row& r : {Row{DType::kI4, 64, 64, 64 + 1024}, Row{DType::kI4, 64, 16, 128 + 1024},
                       Row{DType::kI8, 64, 64, 128 + 2048}, Row{DType::kBF16, 64, 64, 4096},
                       Row{DType::kF32, 64, 64, 8192}, Row{DType::kI8, 18, 18, 128 + 1024}}) {
    KvCacheShape shape = MakeShape(r.type, 3, r.head_dim, 33, r.group);
    shape.layers = 2;
    const KvCache cache(shape);
    EXPECT_EQ(cache.layout().bytes, r.block_bytes) << Describe(shape);
    EXPECT_EQ(cache.bytes(), 2 * 3 * 3 * r.block_bytes) << Describe(shape);
    EXPECT_EQ(cache.length(0), 0);
    EXPECT_EQ(cache.length(1), 0);
  }
}

TEST(KvCache, ImpossibleSizesThrow) {
  for (const int64_t capacity :
       {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::max() / 64}) {
    EXPECT_THROW(KvCache(MakeShape(DType::kF32, 8, 64, capacity)), std::bad_alloc);
  }
}

// The stored value of each element of one head, by the definition in kv_cache.h.
std::vector<double> StoredHead(const KvCacheShape& shape, const float* x, float factor) {
  const int64_t dim = shape.head_dim;
  std::vector<double> stored(dim);
  if (shape.type == DType::kI8) {
    std::vector<uint8_t> codes(dim);
    const double scale = QuantizeRowReference(DType::kI8, x, dim, codes.data());
    for (int64_t i = 0; i < dim; ++i) stored[i] = DecodeI8(codes[i]) * scale;
    return stored;
  }
  if (shape.type != DType::kI4) {
    for (int64_t i = 0; i < dim; ++i) {
      stored[i] = shape.type == DType::kF32 ? x[i] : DecodeBF16(EncodeBF16(x[i]));
    }
    return stored;
  }
  for (int64_t g = 0; g < dim; g += shape.group_size) {
    float amax = 0;
    for (int64_t i = g; i < g + shape.group_size; ++i) amax = std::max(amax, std::fabs(x[i]));
    const int code = std::max<int>(EncodeE4M3(amax / 7.0f / factor), amax > 0 ? 1 : 0);
    const float scale = DecodeE4M3(static_cast<uint8_t>(code)) * factor;
    for (int64_t i = g; i < g + shape.group_size; ++i) {
      stored[i] = amax == 0 ? 0.0 : double{scale} * EncodeI4(x[i] / scale);
    }
  }
  return stored;
}

TEST(KvCache, StoresExactlyWhatIsDefined) {
  ForEachSimdTarget([] {
    std::mt19937_64 random = TestRandom(11);
    Workspace workspace(2);
    for (const DType type : kKvTypes) {
      for (int round = 0; round < 6 * TestRounds(); ++round) {
        const int64_t rows = UniformInt(random, 1, 50);
        const KvCacheShape shape = RandomShape(random, type, rows, round % 2 == 0);
        const float key_factor = std::ldexp(1.37f, static_cast<int>(UniformInt(random, -6, 6)));
        const float value_factor = std::ldexp(1.21f, static_cast<int>(UniformInt(random, -6, 6)));
        KvCache cache(shape, &key_factor, &value_factor);
        Operands x(random, shape, shape.kv_heads, rows);
        // A head of zeros, one whose KV4 scale would round to 0 but must be the smallest code
        // (amax/7/factor < 2^-10), and one so large that the scale saturates.
        std::fill_n(x.k.begin(), shape.head_dim, 0.0f);
        std::fill_n(x.v.begin(), shape.head_dim, 0.004f * value_factor);
        for (int64_t i = 0; i < shape.head_dim; ++i) x.v[x.v.size() - 1 - i] *= 1e6f;
        x.Append(workspace, cache, 0, 0, rows);
        ASSERT_EQ(cache.length(0), rows);
        for (int64_t t = 0; t < rows; ++t) {
          for (int64_t h = 0; h < shape.kv_heads; ++h) {
            const int64_t at = t * x.kv_width + h * shape.head_dim;
            const std::vector<double> key = StoredHead(shape, &x.k[at], key_factor);
            const std::vector<double> value = StoredHead(shape, &x.v[at], value_factor);
            for (int64_t i = 0; i < shape.head_dim; ++i) {
              ASSERT_EQ(cache.Key(0, h, t, i), key[i]) << Describe(shape) << " token " << t;
              ASSERT_EQ(cache.Value(0, h, t, i), value[i]) << Describe(shape) << " token " << t;
            }
          }
        }
      }
    }
  });
}

TEST(KvCache, NaNAndInfinityPoisonOneGroupOnly) {
  ForEachSimdTarget([] {
    std::mt19937_64 random = TestRandom(12);
    Workspace workspace(1);
    for (const DType type : kKvTypes) {
      for (const float special : {NAN, INFINITY, -INFINITY}) {
        const KvCacheShape shape = MakeShape(type, 2, 64, 3, 32);
        KvCache cache(shape);
        Operands x(random, shape, 2, 3);
        x.k[x.kv_width + 5] = special;           // token 1, head 0, group 0
        x.v[x.kv_width + 64 + 40] = special;     // token 1, head 1, group 1
        x.Append(workspace, cache, 0, 0, 3);
        for (int64_t t = 0; t < 3; ++t) {
          for (int64_t i = 0; i < 64; ++i) {
            const bool k_hit = t == 1 && (type == DType::kI4   ? i < 32
                                          : type == DType::kI8 ? true
                                                               : i == 5);
            const bool v_hit = t == 1 && (type == DType::kI4   ? i >= 32
                                          : type == DType::kI8 ? true
                                                               : i == 40);
            EXPECT_EQ(!std::isfinite(cache.Key(0, 0, t, i)), k_hit) << t << " " << i;
            EXPECT_EQ(!std::isfinite(cache.Value(0, 1, t, i)), v_hit) << t << " " << i;
            EXPECT_TRUE(std::isfinite(cache.Key(0, 1, t, i)));
            EXPECT_TRUE(std::isfinite(cache.Value(0, 0, t, i)));
          }
        }
      }
    }
  });
}

std::vector<uint8_t> Bytes(const KvCache& cache) {
  const uint8_t* data = cache.Blocks(0, 0);
  return {data, data + cache.bytes()};
}

TEST(KvCache, ChunksAndThreadsGiveTheSameBytes) {
  ForEachSimdTarget([] {
    std::mt19937_64 random = TestRandom(13);
    for (const DType type : kKvTypes) {
      const int64_t rows = UniformInt(random, 20, 100);
      const KvCacheShape shape = RandomShape(random, type, rows, rows % 2 == 0);
      const Operands x(random, shape, shape.kv_heads, rows);
      Workspace single(1);
      KvCache whole(shape);
      x.Append(single, whole, 0, 0, rows);
      const std::vector<uint8_t> expected = Bytes(whole);
      for (int threads = 1; threads <= 4; ++threads) {
        Workspace workspace(threads);
        KvCache chunked(shape), stepped(shape), at_once(shape);
        x.Append(workspace, at_once, 0, 0, rows);
        EXPECT_EQ(Bytes(at_once), expected) << Describe(shape) << ", threads " << threads;
        for (int64_t t = 0; t < rows;) {
          const int64_t n = std::min(rows - t, UniformInt(random, 1, 40));
          x.Append(workspace, chunked, t, t, n);
          t += n;
        }
        EXPECT_EQ(Bytes(chunked), expected) << Describe(shape) << ", threads " << threads;
        for (int64_t t = 0; t < rows; ++t) x.Append(workspace, stepped, t, t, 1);
        EXPECT_EQ(Bytes(stepped), expected) << Describe(shape) << ", threads " << threads;
      }
    }
  });
}

TEST(KvCache, RewindDropsTokensAndKeepsOthers) {
  std::mt19937_64 random = TestRandom(14);
  Workspace workspace(2);
  for (const DType type : kKvTypes) {
    const KvCacheShape shape = MakeShape(type, 2, 48, 64);
    const Operands first(random, shape, 2, 40), second(random, shape, 2, 10);
    KvCache cache(shape), expected(shape);
    first.Append(workspace, cache, 0, 0, 40);
    second.Append(workspace, cache, 21, 0, 10);
    EXPECT_EQ(cache.length(0), 31);
    first.Append(workspace, expected, 0, 0, 21);
    second.Append(workspace, expected, 21, 0, 10);
    for (int64_t t = 0; t < 31; ++t) {
      for (int64_t i = 0; i < 48; ++i) {
        ASSERT_EQ(cache.Key(0, 1, t, i), expected.Key(0, 1, t, i)) << t << " " << i;
        ASSERT_EQ(cache.Value(0, 1, t, i), expected.Value(0, 1, t, i)) << t << " " << i;
      }
    }
    second.Append(workspace, cache, 7, 0, 0);  // no rows: rewinds only
    EXPECT_EQ(cache.length(0), 7);
  }
}

}  // namespace
}  // namespace nibble
