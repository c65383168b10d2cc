// SPDX-License-Identifier: Apache-2.0
//
// KV caches and batches of sequences: options, positions, and attention against F64 on an
// unquantized cache.
#include <cmath>
#include <limits>
#include <thread>

#include "native/src/kv_cache.h"
#include "native/tests/abi_test.h"

namespace nibble {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

nb_kv_cache_options GoodOptions() {
  return {sizeof(nb_kv_cache_options), NB_I4, 2, 3, 32, 10, 16, nullptr, nullptr};
}

TEST(AbiKvCache, OptionsThatAreRefused) {
  const ContextPtr context = MakeContext(1);
  struct Case {
    std::string part;
    std::function<void(nb_kv_cache_options&)> change;
  };
  const float bad_factors[][2] = {{1, 0}, {1, -1}, {1, INFINITY}, {1, NAN}, {1, 1e-40f}};
  std::vector<Case> cases = {
      {"struct_size is 0", [](auto& o) { o.struct_size = 0; }},
      {"struct_size is 55", [](auto& o) { o.struct_size = 55; }},
      {"options.type: 0 (NONE)", [](auto& o) { o.type = NB_NONE; }},
      {"options.type: 2 (F16)", [](auto& o) { o.type = NB_F16; }},
      {"options.type: -1", [](auto& o) { o.type = -1; }},
      {"options.layers: 0", [](auto& o) { o.layers = 0; }},
      {"options.layers: 2147483647", [](auto& o) { o.layers = INT32_MAX; }},
      {"options.kv_heads: -1", [](auto& o) { o.kv_heads = -1; }},
      {"options.kv_heads: 2147483647", [](auto& o) { o.kv_heads = INT32_MAX; }},
      {"options.head_dim: 14", [](auto& o) { o.head_dim = 14; }},
      {"options.head_dim: 33", [](auto& o) { o.head_dim = 33; }},
      {"options.head_dim: 258", [](auto& o) { o.head_dim = 258; }},
      {"options.head_dim: -32", [](auto& o) { o.head_dim = -32; }},
      {"options.capacity: 0", [](auto& o) { o.capacity = 0; }},
      {"options.capacity: -5", [](auto& o) { o.capacity = -5; }},
      {"options.capacity: 9223372036854775807", [](auto& o) { o.capacity = kMax; }},
      {"options.capacity: 1099511627776 tokens of 65536 layers",
       [](auto& o) {
         o.capacity = int64_t{1} << 40;
         o.layers = o.kv_heads = 65536;
       }},
      {"options.group_size: 24", [](auto& o) { o.group_size = 24; }},
      {"options.group_size: -16", [](auto& o) { o.group_size = -16; }},
      {"options.group_size: 64", [](auto& o) { o.group_size = 64; }},
      {"options.group_size: 16 but only type I4", [](auto& o) { o.type = NB_I8; }},
  };
  for (const auto& f : bad_factors) {
    cases.push_back({"options.key_factors: factor 1", [&f](auto& o) { o.key_factors = f; }});
    cases.push_back({"options.value_factors: factor 1", [&f](auto& o) { o.value_factors = f; }});
  }
  cases.push_back({"options.key_factors: address", [&](auto& o) {
                     o.key_factors = reinterpret_cast<const float*>(
                         reinterpret_cast<uintptr_t>(bad_factors) + 2);
                   }});
  cases.push_back({"options.value_factors: given", [&](auto& o) {
                     o.type = NB_F32;
                     o.group_size = 0;
                     o.value_factors = bad_factors[0];
                   }});
  for (const Case& c : cases) {
    SCOPED_TRACE(c.part);
    nb_kv_cache_options options = GoodOptions();
    c.change(options);
    nb_kv_cache* cache = reinterpret_cast<nb_kv_cache*>(&options);
    ExpectFailure(nb_kv_cache_create(context.get(), &options, &cache), NB_INVALID_ARGUMENT,
                  "nb_kv_cache_create", {c.part});
    EXPECT_EQ(cache, nullptr);
  }
  nb_kv_cache_options options = GoodOptions();
  nb_kv_cache* cache = nullptr;
  ExpectFailure(nb_kv_cache_create(nullptr, &options, &cache), NB_INVALID_ARGUMENT,
                "nb_kv_cache_create", {"context: NULL"});
  ExpectFailure(nb_kv_cache_create(context.get(), nullptr, &cache), NB_INVALID_ARGUMENT,
                "nb_kv_cache_create", {"options: NULL"});
  ExpectFailure(nb_kv_cache_create(context.get(), &options, nullptr), NB_INVALID_ARGUMENT,
                "nb_kv_cache_create", {"cache: NULL"});
}

TEST(AbiKvCache, MemoryThatCannotBeHadIsAStatus) {
  const ContextPtr context = MakeContext(1);
  nb_kv_cache_options options = GoodOptions();
  options.capacity = int64_t{1} << 40;
  options.layers = options.kv_heads = 16;
  nb_kv_cache* cache = nullptr;
  ExpectFailure(nb_kv_cache_create(context.get(), &options, &cache), NB_OUT_OF_MEMORY,
                "nb_kv_cache_create", {"memory"});
  EXPECT_EQ(cache, nullptr);
}

TEST(AbiKvCache, GettersTakeAnything) {
  const ContextPtr context = MakeContext(1);
  const CachePtr cache = MakeCache(context.get(), NB_I8, 2, 1, 16, 4);
  EXPECT_EQ(nb_kv_cache_length(cache.get(), 0), 0);
  EXPECT_EQ(nb_kv_cache_length(cache.get(), 1), 0);
  for (const int32_t layer : {-1, 2, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(nb_kv_cache_length(cache.get(), layer), -1);
  }
  EXPECT_EQ(nb_kv_cache_length(nullptr, 0), -1);
  EXPECT_EQ(nb_kv_cache_bytes(nullptr), 0);
  // Two layers of keys and values of 4 tokens: at least a byte an element.
  EXPECT_GE(nb_kv_cache_bytes(cache.get()), 2 * 2 * 4 * 16);
  EXPECT_EQ(nb_kv_cache_destroy(nullptr), NB_OK);
}

// One head of 16, queries of two heads.
class AbiSequences : public ::testing::Test {
 protected:
  static constexpr int64_t kDim = 16;

  nb_status Append(std::vector<nb_sequence> s, int64_t rows, int32_t layer = 0) {
    q_.assign(rows * 2 * kDim, 1.0f);
    k_.assign(rows * kDim, 1.0f);
    const nb_tensor q = F32(q_, {rows, 2 * kDim}), k = F32(k_, {rows, kDim});
    return nb_rope_append(context_.get(), layer, &q, &k, &k, nullptr, s.data(),
                          static_cast<int32_t>(s.size()));
  }
  nb_status Attend(std::vector<nb_sequence> s, int64_t rows, int32_t layer = 0,
                   float scale = 1) {
    q_.assign(rows * 2 * kDim, 1.0f);
    y_.assign(rows * 2 * kDim, 9.0f);
    const nb_tensor q = F32(q_, {rows, 2 * kDim}), y = F32(y_, {rows, 2 * kDim});
    return nb_attention(context_.get(), layer, &q, scale, s.data(),
                        static_cast<int32_t>(s.size()), &y);
  }

  const ContextPtr context_ = MakeContext(2);
  const CachePtr a_ = MakeCache(context_.get(), NB_I8, 2, 1, kDim, 8);
  const CachePtr b_ = MakeCache(context_.get(), NB_I8, 2, 1, kDim, 4);
  std::vector<float> q_, k_, y_;
};

TEST_F(AbiSequences, LengthsFollowTheAppends) {
  EXPECT_EQ(Append({{a_.get(), 0, 3}, {b_.get(), 0, 2}}, 5), NB_OK) << nb_last_error();
  EXPECT_EQ(nb_kv_cache_length(a_.get(), 0), 3);
  EXPECT_EQ(nb_kv_cache_length(a_.get(), 1), 0);
  EXPECT_EQ(nb_kv_cache_length(b_.get(), 0), 2);
  EXPECT_EQ(Append({{a_.get(), 3, 5}}, 5), NB_OK);  // to the very capacity
  EXPECT_EQ(nb_kv_cache_length(a_.get(), 0), 8);
  EXPECT_EQ(Append({{a_.get(), 1, 2}}, 2), NB_OK);  // back: the rest is dropped
  EXPECT_EQ(nb_kv_cache_length(a_.get(), 0), 3);
  EXPECT_EQ(Append({{a_.get(), 2, 0}}, 0), NB_OK);  // no rows drop tokens too
  EXPECT_EQ(nb_kv_cache_length(a_.get(), 0), 2);
  EXPECT_EQ(Append({}, 0), NB_OK) << nb_last_error();  // an empty batch does nothing
}

TEST_F(AbiSequences, PositionsThatAreRefused) {
  ASSERT_EQ(Append({{a_.get(), 0, 3}}, 3), NB_OK);
  const auto refused = [&](std::vector<nb_sequence> s, int64_t rows, int32_t layer,
                           std::initializer_list<std::string> parts) {
    ExpectFailure(Append(s, rows, layer), NB_INVALID_ARGUMENT, "nb_rope_append", parts);
    EXPECT_EQ(nb_kv_cache_length(a_.get(), 0), 3);
    EXPECT_EQ(nb_kv_cache_length(b_.get(), 0), 0);
    // A refused call leaves no cache marked as in use.
    EXPECT_FALSE(a_->in_use.load());
    EXPECT_FALSE(b_->in_use.load());
  };
  nb_kv_cache *a = a_.get(), *b = b_.get();
  refused({{b, 0, 1}, {a, 4, 1}}, 2, 0, {"sequences[1].start: 4 but at most 3"});
  refused({{a, -1, 1}}, 1, 0, {"sequences[0].start: -1"});
  refused({{a, 0, -1}}, 1, 0, {"sequences[0].rows: -1"});
  refused({{a, 3, 6}}, 6, 0, {"sequences[0].rows: 6 at start 3", "capacity of 8"});
  refused({{a, 1, kMax}}, 1, 0, {"sequences[0].rows: 9223372036854775807"});
  refused({{a, 0, kMax}}, 1, 0, {"sequences[0].rows: 9223372036854775807", "capacity of 8"});
  refused({{a, kMax, 0}}, 1, 0, {"sequences[0].start: 9223372036854775807"});
  refused({{nullptr, 0, 1}}, 1, 0, {"sequences[0].cache: NULL"});
  refused({{a, 3, 1}, {b, 0, 1}, {a, 3, 1}}, 3, 0,
          {"sequences[2].cache: the cache of sequences[0] again"});
  for (const int32_t layer : {-1, 2, INT32_MAX, INT32_MIN}) {
    refused({{a, 3, 1}}, 1, layer, {"layer: " + std::to_string(layer)});
  }
  const CachePtr other = MakeCache(context_.get(), NB_BF16, 2, 1, kDim, 8);
  refused({{a, 3, 1}, {other.get(), 0, 1}}, 2, 0, {"sequences[1].cache: type BF16", "I8"});
  const CachePtr longer = MakeCache(context_.get(), NB_I8, 3, 1, kDim, 8);
  refused({{a, 3, 1}, {longer.get(), 0, 1}}, 2, 0, {"sequences[1].cache", "3 layers"});
  // The sum of the rows is that of the tensors.
  refused({{a, 3, 1}, {b, 0, 1}}, 3, 0, {"q: shape [3, 32] but [2, Hq*D]"});
  const std::vector<float> row(32);
  const nb_tensor t = F32(row, {1, 32});
  const nb_sequence s = {a, 3, 1};
  ExpectFailure(nb_rope_append(context_.get(), 0, &t, &t, &t, nullptr, &s, -1),
                NB_INVALID_ARGUMENT, "nb_rope_append", {"count: -1"});
  ExpectFailure(nb_rope_append(context_.get(), 0, &t, &t, &t, nullptr, nullptr, 1),
                NB_INVALID_ARGUMENT, "nb_rope_append", {"sequences: NULL"});
}

TEST_F(AbiSequences, AttentionThatIsRefused) {
  ASSERT_EQ(Append({{a_.get(), 0, 3}}, 3), NB_OK);
  const auto refused = [&](std::vector<nb_sequence> s, int64_t rows, int32_t layer, float scale,
                           std::initializer_list<std::string> parts) {
    ExpectFailure(Attend(s, rows, layer, scale), NB_INVALID_ARGUMENT, "nb_attention", parts);
    for (const float v : y_) EXPECT_EQ(v, 9);
    EXPECT_FALSE(a_->in_use.load());
  };
  nb_kv_cache *a = a_.get(), *b = b_.get();
  EXPECT_EQ(Attend({{a, 0, 3}}, 3), NB_OK) << nb_last_error();
  EXPECT_EQ(Attend({{a, 2, 1}}, 1), NB_OK);
  EXPECT_EQ(Attend({}, 0), NB_OK) << nb_last_error();
  refused({{a, 2, 2}}, 2, 0, 1, {"sequences[0].rows: positions 2..3", "holds 3 tokens"});
  refused({{a, 0, 3}}, 3, 1, 1, {"layer 1 of the cache holds 0 tokens"});
  refused({{a, 2, 1}, {b, 0, 1}}, 2, 0, 1, {"sequences[1].rows: positions 0..0"});
  refused({{a, 2, 1}, {a, 1, 1}}, 2, 0, 1, {"sequences[1].cache: the cache of sequences[0]"});
  refused({{a, -1, 1}}, 1, 0, 1, {"sequences[0].start: -1"});
  refused({{a, 1, kMax}}, 1, 0, 1, {"sequences[0].rows"});
  refused({{a, 0, 3}}, 3, 2, 1, {"layer: 2 but 0..1"});
  for (const float scale : {INFINITY, -INFINITY, NAN}) {
    refused({{a, 0, 3}}, 3, 0, scale, {"scale: "});
  }
}

TEST_F(AbiSequences, QueryHeadsAreMultiplesOfKeyHeads) {
  const CachePtr cache = MakeCache(context_.get(), NB_F32, 1, 2, kDim, 4);
  const std::vector<float> data(1024);
  const nb_sequence s = {cache.get(), 0, 1};
  const nb_tensor k = F32(data, {1, 2 * kDim});
  for (const int64_t cols : {int64_t{0}, int64_t{16}, int64_t{31}, int64_t{48}}) {
    std::vector<float> queries(64);
    nb_tensor q = F32(queries, {1, cols});
    ExpectFailure(nb_rope_append(context_.get(), 0, &q, &k, &k, nullptr, &s, 1),
                  NB_INVALID_ARGUMENT, "nb_rope_append",
                  {"q: " + std::to_string(cols) + " columns but a multiple of 32"});
  }
}

TEST_F(AbiSequences, OverlapsAreRefused) {
  std::vector<float> data(256);
  const nb_sequence s = {a_.get(), 0, 2};
  const auto at = [&](int64_t offset, int64_t cols) {
    return Tensor(NB_F32, data.data() + offset, {2, cols});
  };
  nb_tensor q = at(0, 32), k = at(64, 16), v = at(96, 16), angles = at(128, 16);
  const auto refused = [&](nb_tensor& t, int64_t offset, const std::string& part) {
    const nb_tensor good = t;
    t.data = data.data() + offset;
    ExpectFailure(nb_rope_append(context_.get(), 0, &q, &k, &v, &angles, &s, 1),
                  NB_INVALID_ARGUMENT, "nb_rope_append", {part});
    t = good;
  };
  refused(k, 63, "q: overlaps k");
  refused(v, 33, "q: overlaps v");
  refused(angles, 0, "q: overlaps angles");
  EXPECT_EQ(nb_rope_append(context_.get(), 0, &q, &k, &v, &angles, &s, 1), NB_OK);
  nb_tensor y = at(63, 32);
  ExpectFailure(nb_attention(context_.get(), 0, &q, 1, &s, 1, &y), NB_INVALID_ARGUMENT,
                "nb_attention", {"output: overlaps q"});
  // q, k and v as columns of one fused buffer do not overlap.
  q = k = v = Tensor(NB_F32, data.data(), {2, 32});
  k.shape[1] = v.shape[1] = 16;
  for (nb_tensor* t : {&q, &k, &v}) t->strides[0] = 64;
  q.byte_length = (64 + 32) * 4;
  k.byte_length = v.byte_length = (64 + 16) * 4;
  k.data = data.data() + 32;
  v.data = data.data() + 48;
  EXPECT_EQ(nb_rope_append(context_.get(), 0, &q, &k, &v, nullptr, &s, 1), NB_OK)
      << nb_last_error();
}

TEST_F(AbiSequences, ACacheInUseByAnotherCallIsRefused) {
  a_->in_use.store(true);  // as a call on another context does
  ExpectFailure(Append({{b_.get(), 0, 1}, {a_.get(), 0, 1}}, 2), NB_INVALID_ARGUMENT,
                "nb_rope_append", {"sequences[1].cache: in use by another call"});
  EXPECT_TRUE(a_->in_use.load()) << "still the other call's";
  EXPECT_FALSE(b_->in_use.load());
  a_->in_use.store(false);
  EXPECT_EQ(Append({{b_.get(), 0, 1}, {a_.get(), 0, 1}}, 2), NB_OK);
}

TEST_F(AbiSequences, RopeAngles) {
  const std::vector<float> frequencies = {1.0f, 0.1f, 0.003f};
  std::vector<float> angles(5 * 6);
  const nb_tensor f = F32(frequencies, {3}), t = F32(angles, {5, 6});
  const nb_sequence s[] = {{nullptr, 7, 2}, {nullptr, 100000, 3}};
  ASSERT_EQ(nb_rope_angles(context_.get(), &f, s, 2, &t), NB_OK) << nb_last_error();
  const int64_t positions[] = {7, 8, 100000, 100001, 100002};
  for (int64_t r = 0; r < 5; ++r) {
    for (int64_t i = 0; i < 3; ++i) {
      const float angle = static_cast<float>(positions[r]) * frequencies[i];  // in F32
      // cos and sin in F32 are within one unit in the last place of 1.
      EXPECT_NEAR(angles[r * 6 + i], std::cos(static_cast<double>(angle)), 6e-8);
      EXPECT_NEAR(angles[r * 6 + 3 + i], std::sin(static_cast<double>(angle)), 6e-8);
    }
  }
  for (const nb_sequence bad : {nb_sequence{nullptr, -1, 5}, nb_sequence{nullptr, 0, -5},
                                nb_sequence{nullptr, 2, kMax}}) {
    const nb_sequence batch[] = {{nullptr, 0, 1}, bad};
    ExpectFailure(nb_rope_angles(context_.get(), &f, batch, 2, &t), NB_INVALID_ARGUMENT,
                  "nb_rope_angles", {"sequences[1]."});
  }
  const nb_sequence sum[] = {{nullptr, 0, kMax}, {nullptr, 0, 1}};
  ExpectFailure(nb_rope_angles(context_.get(), &f, sum, 2, &t), NB_INVALID_ARGUMENT,
                "nb_rope_angles", {"sequences[1].rows"});
}

// Append and attend on an F32 cache, where nothing is quantized, against F64: rotation by
// halves, grouped heads, causality.
TEST(AbiAttention, AgreesWithF64) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(20);
  constexpr int64_t kDim = 22, kHalf = 11, kQ = 4, kKv = 2, kTokens = 21, kStart = 18;
  const CachePtr cache = MakeCache(context.get(), NB_F32, 1, kKv, kDim, kTokens);
  std::vector<float> frequencies = NormalValues(random, kHalf), angles(kTokens * kDim);
  std::vector<float> q = NormalValues(random, kTokens * kQ * kDim),
                     k = NormalValues(random, kTokens * kKv * kDim),
                     v = NormalValues(random, kTokens * kKv * kDim);
  const std::vector<float> q0 = q, k0 = k;
  const nb_tensor ft = F32(frequencies, {kHalf}), at = F32(angles, {kTokens, kDim}),
                  qt = F32(q, {kTokens, kQ * kDim}), kt = F32(k, {kTokens, kKv * kDim}),
                  vt = F32(v, {kTokens, kKv * kDim});
  const nb_sequence all = {cache.get(), 0, kTokens};
  ASSERT_EQ(nb_rope_angles(context.get(), &ft, &all, 1, &at), NB_OK);
  ASSERT_EQ(nb_rope_append(context.get(), 0, &qt, &kt, &vt, &at, &all, 1), NB_OK);
  EXPECT_EQ(k, k0) << "k is an input";
  const auto rotated = [&](const std::vector<float>& x, int64_t heads, int64_t token, int64_t head,
                           int64_t e) {
    const float* row = x.data() + (token * heads + head) * kDim;
    const float* a = angles.data() + token * kDim;
    const int64_t i = e % kHalf;
    const double c = a[i], s = a[kHalf + i], first = row[i], second = row[i + kHalf];
    return e < kHalf ? first * c - second * s : second * c + first * s;
  };
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t e = 0; e < kQ * kDim; ++e) {
      ASSERT_NEAR(q[t * kQ * kDim + e], rotated(q0, kQ, t, e / kDim, e % kDim), 2e-6);
    }
  }
  // The last tokens only, as a decode or a chunk does.
  const int64_t rows = kTokens - kStart;
  std::vector<float> y(rows * kQ * kDim);
  const nb_tensor tail = Tensor(NB_F32, q.data() + kStart * kQ * kDim, {rows, kQ * kDim});
  const nb_tensor yt = F32(y, {rows, kQ * kDim});
  const nb_sequence chunk = {cache.get(), kStart, rows};
  const float scale = 0.2f;
  ASSERT_EQ(nb_attention(context.get(), 0, &tail, scale, &chunk, 1, &yt), NB_OK);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < kQ; ++h) {
      const int64_t g = h / (kQ / kKv), position = kStart + r;
      double total = 0;
      std::vector<double> expected(kDim, 0.0);
      for (int64_t t = 0; t <= position; ++t) {
        double score = 0;
        for (int64_t e = 0; e < kDim; ++e) {
          score += rotated(q0, kQ, position, h, e) * rotated(k0, kKv, t, g, e);
        }
        const double p = std::exp(scale * score);
        total += p;
        for (int64_t e = 0; e < kDim; ++e) expected[e] += p * v[(t * kKv + g) * kDim + e];
      }
      for (int64_t e = 0; e < kDim; ++e) {
        // Scores err by some (D + 2) * 2^-24 * |q||k| * scale < 2e-5, which is the relative
        // error of each weight; values are below 5.
        ASSERT_NEAR(y[(r * kQ + h) * kDim + e], expected[e] / total, 1e-4);
      }
    }
  }
}

}  // namespace
}  // namespace nibble
