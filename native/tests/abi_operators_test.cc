// SPDX-License-Identifier: Apache-2.0
//
// Lookup and elementwise operators through the ABI: values, aliasing, refusals.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "native/tests/canonical_matrix.h"

namespace nibble {
namespace {

constexpr double kUnit = 1.0 / (1 << 24);  // unit roundoff of F32

TEST(AbiEmbedding, RowsAreTheWeights) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(30);
  for (const nb_weight_format& f : AllFormats()) {
    SCOPED_TRACE(FormatName(f));
    const CanonicalMatrix m = CanonicalMatrix::Random(f, 50, 37, random);
    const MatrixPtr table = m.Pack(context.get());
    const std::vector<int32_t> ids = {49, 0, 16, 15, 15, 31, 48};
    std::vector<float> y(7 * 37);
    const nb_tensor it = Tensor(NB_I32, ids.data(), {7}), yt = F32(y, {7, 37});
    ASSERT_EQ(nb_embedding(context.get(), table.get(), &it, &yt), NB_OK) << nb_last_error();
    for (int64_t i = 0; i < 7 * 37; ++i) {
      ASSERT_EQ(y[i], static_cast<float>(m.Value(ids[i / 37], i % 37))) << i;
    }
  }
}

TEST(AbiEmbedding, IdsOutOfRangeAreNamed) {
  const ContextPtr context = MakeContext(1);
  const MatrixPtr table =
      QuantizeMatrix(context.get(), Format(NB_F32), std::vector<float>(20, 1.0f), 10, 2);
  for (const int32_t bad : {-1, 10, INT32_MAX, INT32_MIN}) {
    const std::vector<int32_t> ids = {0, 9, bad, bad};
    std::vector<float> y(8, 7.0f);
    const nb_tensor it = Tensor(NB_I32, ids.data(), {4}), yt = F32(y, {4, 2});
    ExpectFailure(nb_embedding(context.get(), table.get(), &it, &yt), NB_INVALID_ARGUMENT,
                  "nb_embedding", {"ids[2]: " + std::to_string(bad) + " but 0..9"});
    for (const float v : y) EXPECT_EQ(v, 7);
  }
  std::vector<int32_t> memory(64);
  const nb_tensor it = Tensor(NB_I32, memory.data(), {4});
  const nb_tensor yt = Tensor(NB_F32, memory.data() + 3, {4, 2});
  ExpectFailure(nb_embedding(context.get(), table.get(), &it, &yt), NB_INVALID_ARGUMENT,
                "nb_embedding", {"output: overlaps ids"});
  ExpectFailure(nb_embedding(context.get(), nullptr, &it, &yt), NB_INVALID_ARGUMENT,
                "nb_embedding", {"table: NULL"});
}

// Values, with the result in memory of its own and in each operand's.
TEST(AbiElementwise, RmsNorm) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(31);
  for (const int64_t cols : {1, 7, 16, 100, 1025}) {
    const std::vector<float> x = NormalValues(random, 3 * cols), w = NormalValues(random, cols);
    std::vector<float> apart(3 * cols), in_place = x;
    const nb_tensor xt = F32(x, {3, cols}), wt = F32(w, {cols}), yt = F32(apart, {3, cols}),
                    it = F32(in_place, {3, cols});
    ASSERT_EQ(nb_rms_norm(context.get(), &xt, &wt, 1e-3f, &yt), NB_OK);
    ASSERT_EQ(nb_rms_norm(context.get(), &it, &wt, 1e-3f, &it), NB_OK);
    EXPECT_EQ(apart, in_place);
    for (int64_t i = 0; i < 3 * cols; ++i) {
      double squares = 0;
      for (int64_t k = 0; k < cols; ++k) {
        const double v = x[i / cols * cols + k];
        squares += v * v;
      }
      const double expected =
          x[i] / std::sqrt(squares / static_cast<double>(cols) + 1e-3f) * w[i % cols];
      // The sum of K squares errs by K units at most, halved by the root; a few more follow.
      ASSERT_NEAR(apart[i], expected,
                  (static_cast<double>(cols) / 2 + 8) * kUnit * std::abs(expected));
    }
  }
  // Zero rows of x, one of them among others, stay zero: epsilon keeps the root positive.
  std::vector<float> zero(8, 0.0f), w(8, 1.0f);
  const nb_tensor zt = F32(zero, {1, 8}), wt = F32(w, {8});
  EXPECT_EQ(nb_rms_norm(context.get(), &zt, &wt, 1e-5f, &zt), NB_OK);
  EXPECT_EQ(zero, std::vector<float>(8, 0.0f));
}

TEST(AbiElementwise, AddAndSwiGlu) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(32);
  for (const int64_t cols : {1, 15, 64, 333}) {
    const std::vector<float> a = NormalValues(random, 4 * cols, 3);
    const std::vector<float> b = NormalValues(random, 4 * cols);
    for (const bool swiglu : {false, true}) {
      std::vector<float> apart(4 * cols), in_a = a, in_b = b;
      const nb_tensor at = F32(a, {4, cols}), bt = F32(b, {4, cols}), yt = F32(apart, {4, cols}),
                      iat = F32(in_a, {4, cols}), ibt = F32(in_b, {4, cols});
      const auto run = swiglu ? nb_swiglu : nb_add;
      ASSERT_EQ(run(context.get(), &at, &bt, &yt), NB_OK);
      ASSERT_EQ(run(context.get(), &iat, &bt, &iat), NB_OK);
      ASSERT_EQ(run(context.get(), &at, &ibt, &ibt), NB_OK);
      EXPECT_EQ(apart, in_a);
      EXPECT_EQ(apart, in_b);
      for (int64_t i = 0; i < 4 * cols; ++i) {
        if (!swiglu) {
          ASSERT_EQ(apart[i], a[i] + b[i]);
          continue;
        }
        const double expected = a[i] / (1 + std::exp(-static_cast<double>(a[i]))) * b[i];
        // An exp of a few units, a division and two products.
        ASSERT_NEAR(apart[i], expected, 16 * kUnit * std::abs(expected) + 1e-30);
      }
    }
  }
}

TEST(AbiElementwise, PartialOverlapsAreRefused) {
  const ContextPtr context = MakeContext(1);
  std::vector<float> memory(64, 1.0f);
  const auto at = [&](int64_t offset) { return Tensor(NB_F32, memory.data() + offset, {2, 8}); };
  const nb_tensor a = at(0), b = at(16), w = Tensor(NB_F32, memory.data() + 40, {8});
  for (const int64_t offset : {1, 8, 15, 31}) {
    const nb_tensor y = at(offset);
    ExpectFailure(nb_add(context.get(), &a, &b, &y), NB_INVALID_ARGUMENT, "nb_add",
                  {"output: overlaps " + std::string(offset < 16 ? "a" : "b") + " in part"});
    ExpectFailure(nb_swiglu(context.get(), &a, &b, &y), NB_INVALID_ARGUMENT, "nb_swiglu",
                  {"output: overlaps " + std::string(offset < 16 ? "gate" : "up") + " in part"});
  }
  for (const int64_t offset : {1, 15}) {
    const nb_tensor y = at(offset);
    ExpectFailure(nb_rms_norm(context.get(), &a, &w, 1e-5f, &y), NB_INVALID_ARGUMENT,
                  "nb_rms_norm", {"output: overlaps x in part"});
  }
  const nb_tensor y = at(33);
  ExpectFailure(nb_rms_norm(context.get(), &a, &w, 1e-5f, &y), NB_INVALID_ARGUMENT, "nb_rms_norm",
                {"output: overlaps weight"});
  for (const float bad : {0.0f, -1.0f, INFINITY, NAN}) {
    const nb_tensor fine = at(16);
    ExpectFailure(nb_rms_norm(context.get(), &a, &w, bad, &fine), NB_INVALID_ARGUMENT,
                  "nb_rms_norm", {"epsilon: "});
  }
  EXPECT_EQ(memory, std::vector<float>(64, 1.0f));
}

class AbiQuantizeActivations : public ::testing::TestWithParam<int32_t> {};

TEST_P(AbiQuantizeActivations, IsExactlyAsDefined) {
  const int32_t type = GetParam();
  const float largest = type == NB_E4M3 ? 448.0f : 127.0f;
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(33);
  for (const int64_t cols : {1, 15, 16, 67, 512}) {
    std::vector<float> x = NormalValues(random, 6 * cols);
    std::fill(x.begin() + cols, x.begin() + 2 * cols, 0.0f);
    x[2 * cols] = NAN;
    x[4 * cols - 1] = INFINITY;
    x[4 * cols] = -INFINITY;
    std::vector<uint8_t> codes(6 * cols, 0xEE);
    std::vector<float> scales(6, -1.0f);
    const nb_tensor xt = F32(x, {6, cols}), ct = Tensor(NB_U8, codes.data(), {6, cols}),
                    st = F32(scales, {6});
    ASSERT_EQ(nb_quantize_activations(context.get(), type, &xt, nullptr, 0, &ct, &st), NB_OK)
        << nb_last_error();
    EXPECT_EQ(scales[1], 0);
    for (int64_t k = 0; k < cols; ++k) EXPECT_EQ(codes[cols + k], 0);
    for (const int64_t row : {2, 3, 4}) EXPECT_TRUE(std::isnan(scales[row])) << row;
    for (const int64_t row : {0, 5}) {
      float amax = 0;
      for (int64_t k = 0; k < cols; ++k) amax = std::max(amax, std::abs(x[row * cols + k]));
      ASSERT_EQ(scales[row], amax / largest);
      for (int64_t k = 0; k < cols; ++k) {
        const float v = x[row * cols + k] / scales[row];
        uint8_t expected = 0;
        ASSERT_EQ(nb_encode(type, &v, 1, &expected, 1), NB_OK);
        ASSERT_EQ(codes[row * cols + k], expected) << "row " << row << " column " << k;
      }
    }
  }
}

TEST_P(AbiQuantizeActivations, NormsFirst) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(34);
  const std::vector<float> x = NormalValues(random, 4 * 70), w = NormalValues(random, 70);
  std::vector<float> normed(x.size()), scales(4), other_scales(4);
  std::vector<uint8_t> codes(x.size()), other_codes(x.size());
  const nb_tensor xt = F32(x, {4, 70}), wt = F32(w, {70}), nt = F32(normed, {4, 70}),
                  ct = Tensor(NB_U8, codes.data(), {4, 70}), st = F32(scales, {4}),
                  oct = Tensor(NB_U8, other_codes.data(), {4, 70}), ost = F32(other_scales, {4});
  ASSERT_EQ(nb_rms_norm(context.get(), &xt, &wt, 1e-5f, &nt), NB_OK);
  ASSERT_EQ(nb_quantize_activations(context.get(), GetParam(), &nt, nullptr, 0, &ct, &st), NB_OK);
  ASSERT_EQ(nb_quantize_activations(context.get(), GetParam(), &xt, &wt, 1e-5f, &oct, &ost), NB_OK);
  EXPECT_EQ(codes, other_codes);
  EXPECT_EQ(scales, other_scales);
}

TEST_P(AbiQuantizeActivations, ColumnsMayBeAbsent) {
  const ContextPtr context = MakeContext(1);
  std::vector<float> scales(3, -1.0f);
  const nb_tensor xt = Tensor(NB_F32, nullptr, {3, 0}), ct = Tensor(NB_U8, nullptr, {3, 0}),
                  st = F32(scales, {3});
  EXPECT_EQ(nb_quantize_activations(context.get(), GetParam(), &xt, nullptr, 0, &ct, &st), NB_OK)
      << nb_last_error();
  EXPECT_EQ(scales, std::vector<float>(3, 0.0f));
}

INSTANTIATE_TEST_SUITE_P(Types, AbiQuantizeActivations, ::testing::Values(NB_E4M3, NB_I8),
                         [](const auto& info) { return info.param == NB_I8 ? "I8" : "E4M3"; });

TEST(AbiQuantizeActivationsRefusals, TypesAndOverlaps) {
  const ContextPtr context = MakeContext(1);
  std::vector<float> memory(64, 1.0f);
  const nb_tensor x = Tensor(NB_F32, memory.data(), {2, 8});
  nb_tensor codes = Tensor(NB_U8, memory.data() + 16, {2, 8});
  nb_tensor scales = Tensor(NB_F32, memory.data() + 20, {2});
  const auto refused = [&](int32_t type, const std::string& part) {
    ExpectFailure(nb_quantize_activations(context.get(), type, &x, nullptr, 0, &codes, &scales),
                  NB_INVALID_ARGUMENT, "nb_quantize_activations", {part});
    EXPECT_EQ(memory, std::vector<float>(64, 1.0f));
  };
  for (const int32_t type : {-1, 0, 1, 3, 5, 8, 11, 99}) {
    refused(type, "type: " + std::to_string(type));
  }
  scales.data = memory.data() + 19;
  refused(NB_I8, "scales: overlaps codes");
  scales.data = memory.data() + 15;
  refused(NB_I8, "scales: overlaps x");
  scales.data = memory.data() + 20;
  codes.data = reinterpret_cast<uint8_t*>(memory.data()) + 63;
  refused(NB_E4M3, "codes: overlaps x");
}

}  // namespace
}  // namespace nibble
