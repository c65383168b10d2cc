// SPDX-License-Identifier: Apache-2.0
//
// Attention against its F64 reference; the tolerance is derived in attention_reference.cc.
#include "kernels-cpu/attention/attention.h"

#include <algorithm>
#include <functional>

#include "kernels-cpu/attention/attention_case.h"

namespace nibble {
namespace {

float SoftmaxScale(int head_dim) { return 1 / std::sqrt(static_cast<float>(head_dim)); }

// A batch: sequence i holds starts[i] older tokens, then gets rows[i] more. edit: changes the
// random operands.
struct Batch {
  Batch(std::mt19937_64& random, const KvCacheShape& shape, int64_t q_heads,
        const std::vector<std::pair<int64_t, int64_t>>& starts_and_rows,
        const std::function<void(Operands&)>& edit = [](Operands&) {})
      : q_heads(q_heads), q_width(q_heads * shape.head_dim) {
    Workspace workspace(1);
    for (const auto& [start, n] : starts_and_rows) {
      KvCacheShape own = shape;
      own.capacity = std::max<int64_t>(start + n, 1);
      caches.push_back(std::make_unique<KvCache>(own));
      Operands x(random, own, q_heads, start + n);
      edit(x);
      x.Append(workspace, *caches.back(), 0, 0, start + n);
      sequences.push_back({caches.back().get(), start, n});
      q.insert(q.end(), x.q.begin() + start * q_width, x.q.end());
      rows += n;
    }
  }

  // stride: from row to row of y, at least q_width.
  std::vector<float> Run(Workspace& workspace, float scale) const {
    const int64_t stride = q_width + 3;
    const GuardedBuffer<float> in(q);
    const GuardedBuffer<float> out(rows == 0 ? 0 : (rows - 1) * stride + q_width);
    std::fill(out.begin(), out.end(), 12345.0f);
    Attention(workspace, 0, in.data(), q_width, q_heads, scale, sequences.data(),
              static_cast<int>(sequences.size()), out.data(), stride);
    std::vector<float> y;
    for (int64_t r = 0; r < rows; ++r) {
      y.insert(y.end(), out.data() + r * stride, out.data() + r * stride + q_width);
      if (r + 1 < rows) {
        EXPECT_EQ(out[r * stride + q_width], 12345.0f);  // between rows: untouched
      }
    }
    return y;
  }

  void Check(float scale, const std::string& what) const {
    std::vector<double> expected(rows * q_width), bound(rows * q_width);
    AttentionReference(0, q.data(), q_width, q_heads, scale, sequences.data(),
                       static_cast<int>(sequences.size()), expected.data(), bound.data());
    ForEachSimdTarget([&] {
      std::vector<float> first;
      for (int threads = 1; threads <= 4; ++threads) {
        Workspace workspace(threads);
        const std::vector<float> y = Run(workspace, scale);
        if (threads == 1) {
          first = y;
          ExpectWithinBound(y.data(), expected, bound, what);
        } else {
          ASSERT_TRUE(y.empty() || std::memcmp(y.data(), first.data(), y.size() * 4) == 0)
              << what << ": other bits with " << threads << " threads";
        }
      }
    });
  }

  int64_t q_heads, q_width, rows = 0;
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<Sequence> sequences;
  std::vector<float> q;
};

TEST(Attention, RandomBatchesMatchReference) {
  std::mt19937_64 random = TestRandom(31);
  for (const DType type : kKvTypes) {
    for (int round = 0; round < 5 * TestRounds(); ++round) {
      const KvCacheShape shape = RandomShape(random, type, 1, round % 2 == 0);
      const int64_t q_heads = shape.kv_heads * UniformInt(random, 1, 9);
      std::vector<std::pair<int64_t, int64_t>> sequences;
      for (int64_t i = UniformInt(random, 1, 4); i > 0; --i) {
        sequences.push_back({UniformInt(random, 0, 90), UniformInt(random, 0, 12)});
      }
      Batch(random, shape, q_heads, sequences)
          .Check(SoftmaxScale(shape.head_dim),
                 Describe(shape) + " q_heads " + std::to_string(q_heads));
    }
  }
}

TEST(Attention, DecodeAroundBlockAndStepEdges) {
  std::mt19937_64 random = TestRandom(32);
  for (const DType type : kKvTypes) {
    const KvCacheShape shape = MakeShape(type, 1, 18, 1);
    for (const int64_t keys : {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128, 129}) {
      Batch(random, shape, 3, {{keys - 1, 1}})
          .Check(SoftmaxScale(18), Describe(shape) + " keys " + std::to_string(keys));
    }
  }
}

TEST(Attention, PrefillAroundBlockEdges) {
  std::mt19937_64 random = TestRandom(33);
  for (const DType type : kKvTypes) {
    const KvCacheShape shape = MakeShape(type, 1, 32, 1);
    // Starts within blocks and at their edges; more rows than a query block holds.
    for (const auto& s : std::vector<std::pair<int64_t, int64_t>>{
             {0, 1}, {0, 16}, {0, 17}, {15, 2}, {16, 65}, {5, 70}, {0, 130}}) {
      for (const int64_t q_heads : {1, 5}) {
        Batch(random, shape, q_heads, {s})
            .Check(SoftmaxScale(32), Describe(shape) + " start " + std::to_string(s.first) +
                                         " rows " + std::to_string(s.second));
      }
    }
  }
}

TEST(Attention, LongContextsSplitByKeys) {
  std::mt19937_64 random = TestRandom(34);
  for (const DType type : kKvTypes) {
    const KvCacheShape shape = MakeShape(type, 2, 16, 1);
    for (const int64_t keys : {511, 512, 513, 1025, 1600}) {
      // Three rows at the end: with 513 and 1025 keys the first rows see nothing, or one
      // key, of the last range.
      Batch(random, shape, 4, {{keys - 3, 3}, {4, 1}})
          .Check(SoftmaxScale(16), Describe(shape) + " keys " + std::to_string(keys));
    }
  }
}

TEST(Attention, ManyHeadsOnOneKeyHead) {
  std::mt19937_64 random = TestRandom(35);
  for (const DType type : kKvTypes) {
    const KvCacheShape shape = MakeShape(type, 1, 16, 1);
    Batch(random, shape, 71, {{20, 3}}).Check(SoftmaxScale(16), Describe(shape));
  }
}

TEST(Attention, LargeScoresPickOneKey) {
  // Scores in the thousands: only a maximum that is subtracted before exp survives.
  std::mt19937_64 random = TestRandom(36);
  for (const DType type : kKvTypes) {
    Batch(random, MakeShape(type, 2, 64, 1), 4, {{150, 4}}).Check(300.0f, "scale 300");
  }
}

TEST(Attention, SequenceHasTheSameBitsInAnyBatch) {
  std::mt19937_64 random = TestRandom(37);
  for (const DType type : kKvTypes) {
    const KvCacheShape shape = MakeShape(type, 2, 32, 1);
    const Batch batch(random, shape, 4, {{7, 20}, {700, 1}, {0, 0}, {30, 2}});
    ForEachSimdTarget([&] {
      Workspace workspace(3);
      const std::vector<float> together = batch.Run(workspace, 0.2f);
      int64_t row = 0;
      for (const Sequence& s : batch.sequences) {
        std::vector<float> alone(s.rows * batch.q_width);
        Attention(workspace, 0, batch.q.data() + row * batch.q_width, batch.q_width, 4, 0.2f, &s,
                  1, alone.data(), batch.q_width);
        ASSERT_TRUE(std::equal(alone.begin(), alone.end(),
                               together.begin() + row * batch.q_width));
        row += s.rows;
      }
    });
  }
}

TEST(Attention, PrefillInOneCallInChunksAndTokenByToken) {
  std::mt19937_64 random = TestRandom(38);
  for (const DType type : kKvTypes) {
    const int64_t rows = 75, q_heads = 4;
    const KvCacheShape shape = MakeShape(type, 2, 48, rows);
    const Operands x(random, shape, q_heads, rows);
    const float scale = SoftmaxScale(48);
    Workspace workspace(2);
    KvCache whole(shape);
    x.Append(workspace, whole, 0, 0, rows);
    const Sequence all = {&whole, 0, rows};
    std::vector<double> expected(x.q.size()), bound(x.q.size());
    AttentionReference(0, x.q.data(), x.q_width, q_heads, scale, &all, 1, expected.data(),
                       bound.data());
    ForEachSimdTarget([&] {
      for (const int64_t chunk : {int64_t{1}, int64_t{7}, int64_t{16}, rows}) {
        KvCache cache(shape);
        std::vector<float> y;
        for (int64_t t = 0; t < rows; t += chunk) {
          const int64_t n = std::min(chunk, rows - t);
          x.Append(workspace, cache, t, t, n);
          const std::vector<float> part = x.Attend(workspace, cache, scale, t, t, n);
          y.insert(y.end(), part.begin(), part.end());
        }
        ASSERT_EQ(std::memcmp(cache.Blocks(0, 0), whole.Blocks(0, 0), whole.bytes()), 0);
        // Each is within the bound of the same exact result, so they agree to twice it.
        ExpectWithinBound(y.data(), expected, bound, "chunks of " + std::to_string(chunk));
      }
    });
  }
}

TEST(Attention, StaleTokensNeverMatter) {
  std::mt19937_64 random = TestRandom(39);
  for (const DType type : kKvTypes) {
    const KvCacheShape shape = MakeShape(type, 2, 40, 700);
    const Operands x(random, shape, 4, 600);
    Operands poison(random, shape, 4, 90);
    std::fill(poison.k.begin(), poison.k.end(), NAN);
    std::fill(poison.v.begin(), poison.v.end(), NAN);
    for (int64_t i = 0; i < 40; ++i) poison.v[i] = INFINITY;
    ForEachSimdTarget([&] {
      Workspace workspace(2);
      for (const int64_t keep : {1, 9, 16, 53, 530}) {
        KvCache clean(shape), stale(shape);
        x.Append(workspace, clean, 0, 0, keep + 2);
        x.Append(workspace, stale, 0, 0, keep);
        poison.Append(workspace, stale, keep, 0, 90);
        x.Append(workspace, stale, keep, keep, 2);  // rewinds over the poison
        for (const int64_t n : {1, 2}) {
          const int64_t start = keep + 2 - n;
          const std::vector<float> a = x.Attend(workspace, clean, 0.2f, start, start, n);
          const std::vector<float> b = x.Attend(workspace, stale, 0.2f, start, start, n);
          ASSERT_EQ(a, b) << Describe(shape) << " keep " << keep;  // NaN would differ
        }
      }
    });
  }
}

TEST(Attention, NaNReachesOnlyWhatSeesIt) {
  std::mt19937_64 random = TestRandom(40);
  for (const DType type : kKvTypes) {
    for (const bool in_key : {true, false}) {
      const int64_t rows = 70, bad = UniformInt(random, 0, rows - 1);
      const KvCacheShape shape = MakeShape(type, 2, 16, rows);
      const Operands clean(random, shape, 6, rows);
      Operands x = clean;
      (in_key ? x.k : x.v)[bad * x.kv_width + 16 + 3] = NAN;  // head 1
      ForEachSimdTarget([&] {
        Workspace workspace(2);
        KvCache cache(shape), clean_cache(shape);
        x.Append(workspace, cache, 0, 0, rows);
        clean.Append(workspace, clean_cache, 0, 0, rows);
        const std::vector<float> y = x.Attend(workspace, cache, 0.3f, 0, 0, rows);
        const std::vector<float> expected =
            clean.Attend(workspace, clean_cache, 0.3f, 0, 0, rows);
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t i = 0; i < x.q_width; ++i) {
            const int64_t at = row * x.q_width + i;
            // An unquantized value is NaN in its own element only.
            const bool whole_head = in_key || !IsUnquantized(type);
            const bool hit = row >= bad && i / 16 >= 3 && (whole_head || i % 16 == 3);
            if (hit) {
              ASSERT_TRUE(std::isnan(y[at])) << "row " << row << " element " << i;
            } else {
              ASSERT_EQ(y[at], expected[at]) << "row " << row << " element " << i;
            }
          }
        }
      });
    }
  }
}

TEST(Attention, NaNQueryReachesOnlyItsHead) {
  std::mt19937_64 random = TestRandom(41);
  for (const DType type : kKvTypes) {
    const KvCacheShape shape = MakeShape(type, 1, 16, 20);
    Operands x(random, shape, 8, 20);
    x.q[4 * x.q_width + 2 * 16 + 1] = NAN;       // row 4, head 2
    x.q[9 * x.q_width + 5 * 16 + 7] = INFINITY;  // row 9, head 5
    std::fill_n(x.q.begin() + 3 * x.q_width, 16, 0.0f);  // row 3, head 0: the mean
    ForEachSimdTarget([&] {
      Workspace workspace(2);
      KvCache cache(shape);
      x.Append(workspace, cache, 0, 0, 20);
      const std::vector<float> y = x.Attend(workspace, cache, 0.3f, 0, 0, 20);
      for (int64_t i = 0; i < static_cast<int64_t>(y.size()); ++i) {
        const int64_t row = i / x.q_width, head = i % x.q_width / 16;
        const bool hit = (row == 4 && head == 2) || (row == 9 && head == 5);
        ASSERT_EQ(std::isnan(y[i]), hit) << "row " << row << " head " << head;
      }
      for (int64_t i = 0; i < 16; ++i) {
        double mean = 0;
        for (int64_t t = 0; t < 4; ++t) mean += cache.Value(0, 0, t, i) / 4;
        ASSERT_NEAR(y[3 * x.q_width + i], mean, 1e-6);  // values of about 1, 4 terms
      }
    });
  }
}

TEST(Attention, TinyQueryElementsCount) {
  // One element 448 times the key element 0, all others so small that their E4M3 codes are a
  // few units of 2^-9: scores depend on those alone, to the last unit.
  std::mt19937_64 random = TestRandom(42);
  for (const DType type : kKvTypes) {
    for (const int head_dim : {32, 64, 80, 256}) {
      for (const int64_t group : {0, 16}) {
        if (group != 0 && type != DType::kI4) continue;
        const KvCacheShape shape = MakeShape(type, 2, head_dim, 1, group);
        // Some rows only, so that rows with and without small elements share a register tile.
        const auto edit = [&](Operands& x) {
          for (int64_t row = 0; row < x.rows; ++row) {
            for (int64_t i = 0; i < x.kv_width; i += head_dim) x.k[row * x.kv_width + i] = 0;
            for (int64_t i = 0; i < x.q_width; ++i) {
              float& q = x.q[row * x.q_width + i];
              const bool tiny = (row + i / head_dim) % 3 != 0;
              q = i % head_dim == 0 ? 448.0f : tiny ? q * 0.02f : q;
            }
          }
        };
        for (const auto& s : {std::pair<int64_t, int64_t>{70, 1}, {70, 2}, {0, 40}}) {
          Batch(random, shape, 8, {s}, edit).Check(3.0f, Describe(shape) + " tiny elements");
        }
      }
    }
  }
}

TEST(Attention, LargestSumsDoNotOverflow) {
  // Every query element the largest E4M3, every key element the largest code, all products of
  // one sign: 2^29.8 in the units of the integer sums.
  std::mt19937_64 random = TestRandom(43);
  for (const DType type : kKvTypes) {
    const KvCacheShape shape = MakeShape(type, 1, 256, 1);
    const auto edit = [&](Operands& x) {
      for (int64_t row = 0; row < x.rows; ++row) {
        const float sign = row % 2 == 0 ? 1.0f : -1.0f;
        const float size = static_cast<float>(UniformInt(random, 90, 100)) / 100;
        for (int64_t i = 0; i < x.kv_width; ++i) x.k[row * x.kv_width + i] = sign * size;
        for (int64_t i = 0; i < x.q_width; ++i) x.q[row * x.q_width + i] = i < 512 ? -448 : 448;
      }
    };
    for (const auto& s : {std::pair<int64_t, int64_t>{40, 1}, {0, 30}}) {
      Batch(random, shape, 4, {s}, edit).Check(2e-5f, Describe(shape) + " largest sums");
    }
  }
}

TEST(Attention, SoftmaxScaleOfEitherSignAndZero) {
  std::mt19937_64 random = TestRandom(44);
  for (const DType type : kKvTypes) {
    for (const float scale : {-0.3f, 0.0f}) {
      const KvCacheShape shape = MakeShape(type, 2, 48, 1);
      Batch(random, shape, 8, {{50, 1}, {3, 20}}).Check(scale, Describe(shape));
    }
  }
}

TEST(Attention, ManyRangesOfSeveralSteps) {
  std::mt19937_64 random = TestRandom(45);
  for (const DType type : kKvTypes) {
    const KvCacheShape shape = MakeShape(type, 2, 16, 1);
    Batch(random, shape, 2, {{3500, 1}, {2047, 2}, {1030, 20}})
        .Check(SoftmaxScale(16), Describe(shape));
  }
}

TEST(Attention, NaNValueOfALaterTokenStaysThere) {
  // Few rows, whose tokens see different numbers of keys of one block.
  std::mt19937_64 random = TestRandom(46);
  for (const DType type : kKvTypes) {
    const int64_t start = UniformInt(random, 1, 40), rows = 3;
    const KvCacheShape shape = MakeShape(type, 1, 32, start + rows);
    const Operands clean(random, shape, 2, start + rows);
    Operands x = clean;
    x.v[(start + 1) * x.kv_width + 5] = NAN;  // the second of the rows
    ForEachSimdTarget([&] {
      Workspace workspace(1);
      KvCache cache(shape), clean_cache(shape);
      x.Append(workspace, cache, 0, 0, start + rows);
      clean.Append(workspace, clean_cache, 0, 0, start + rows);
      const std::vector<float> y = x.Attend(workspace, cache, 0.3f, start, start, rows);
      const std::vector<float> expected =
          clean.Attend(workspace, clean_cache, 0.3f, start, start, rows);
      for (int64_t i = 0; i < static_cast<int64_t>(y.size()); ++i) {
        const bool sees = i >= x.q_width;
        if (sees && (!IsUnquantized(type) || i % 32 == 5)) {
          ASSERT_TRUE(std::isnan(y[i])) << "element " << i;
        } else {
          ASSERT_EQ(y[i], expected[i]) << "element " << i;
        }
      }
    });
  }
}

TEST(Attention, NothingToDo) {
  Workspace workspace(2);
  float y = 7;
  Attention(workspace, 0, nullptr, 16, 1, 1.0f, nullptr, 0, &y, 16);
  KvCache cache(MakeShape(DType::kI8, 1, 16, 4));
  const Sequence empty = {&cache, 0, 0};
  Attention(workspace, 0, nullptr, 16, 1, 1.0f, &empty, 1, &y, 16);
  RopeAppend(workspace, 0, nullptr, 16, 1, nullptr, 16, nullptr, 16, nullptr, 0, &empty, 1);
  EXPECT_EQ(y, 7);
  EXPECT_EQ(cache.length(0), 0);
}

}  // namespace
}  // namespace nibble
