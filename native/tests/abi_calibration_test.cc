// SPDX-License-Identifier: Apache-2.0
//
// The ABI of calibration: what is refused, and that the rest reaches the kernels.
#include <cmath>

#include "native/tests/canonical_matrix.h"

namespace nibble {
namespace {

nb_calibration_options Options() { return {sizeof(nb_calibration_options), 0, 0, 0.01f, 0}; }

TEST(AbiCalibration, StatisticsMomentsAndScaling) {
  const ContextPtr context = MakeContext(2);
  const std::vector<float> x = {1, -2, 3, 4, 5, -6};
  std::vector<float> sums = {1, 0, 0}, maxima(3, 0.0f), moments(9, 0.0f);
  const nb_tensor tx = F32(x, {2, 3}), ts = F32(sums, {3}), tm = F32(maxima, {3}),
                  th = F32(moments, {3, 3});
  ASSERT_EQ(nb_channel_statistics(context.get(), &tx, &ts, &tm), NB_OK) << nb_last_error();
  EXPECT_EQ(sums, (std::vector<float>{18, 29, 45}));
  EXPECT_EQ(maxima, (std::vector<float>{4, 5, 6}));
  ASSERT_EQ(nb_second_moments(context.get(), &tx, &th), NB_OK) << nb_last_error();
  EXPECT_EQ(moments, (std::vector<float>{17, 18, -21, 18, 29, -36, -21, -36, 45}));
  std::vector<float> w = x;
  const std::vector<float> rows = {2, 3}, cols = {1, 10, 100};
  const nb_tensor tw = F32(w, {2, 3}), tr = F32(rows, {2}), tc = F32(cols, {3});
  ASSERT_EQ(nb_scale_matrix(context.get(), &tw, &tr, &tc), NB_OK) << nb_last_error();
  EXPECT_EQ(w, (std::vector<float>{2, -40, 600, 12, 150, -1800}));

  const nb_tensor wrong = F32(rows, {2});
  ExpectFailure(nb_channel_statistics(nullptr, &tx, &ts, &tm), NB_INVALID_ARGUMENT,
                "nb_channel_statistics", {"context: NULL"});
  ExpectFailure(nb_channel_statistics(context.get(), &tx, &wrong, nullptr), NB_INVALID_ARGUMENT,
                "nb_channel_statistics", {"sums: shape [2] but [3]"});
  ExpectFailure(nb_channel_statistics(context.get(), &tx, &ts, &ts), NB_INVALID_ARGUMENT,
                "nb_channel_statistics", {"maxima", "overlaps"});
  ExpectFailure(nb_second_moments(context.get(), &tx, &tx), NB_INVALID_ARGUMENT,
                "nb_second_moments", {"moments: shape [2, 3] but [3, 3]"});
  ExpectFailure(nb_second_moments(context.get(), &tx, nullptr), NB_INVALID_ARGUMENT,
                "nb_second_moments", {"moments"});
  ExpectFailure(nb_scale_matrix(context.get(), &tw, &tc, nullptr), NB_INVALID_ARGUMENT,
                "nb_scale_matrix", {"row_factors: shape [3] but [2]"});
}

TEST(AbiCalibration, DriftIsCorrected) {
  const ContextPtr context = MakeContext(2);
  // One input that has doubled: y = x / 2, so that the weights are halved, but for damping.
  const std::vector<float> x = {2, -4, 6, 8}, y = {1, -2, 3, 4};
  std::vector<float> moments(1, 0.0f), cross(1, 0.0f), w = {3, -5};
  const nb_tensor tx = F32(x, {4, 1}), ty = F32(y, {4, 1}), tm = F32(moments, {1, 1}),
                  tc = F32(cross, {1, 1}), tw = F32(w, {2, 1}), wrong = F32(y, {2, 2}),
                  shorter = F32(y, {3, 1});
  ASSERT_EQ(nb_second_moments(context.get(), &tx, &tm), NB_OK) << nb_last_error();
  ASSERT_EQ(nb_cross_moments(context.get(), &tx, &ty, &tc), NB_OK) << nb_last_error();
  EXPECT_EQ(cross[0], 60);
  ASSERT_EQ(nb_correct_drift(context.get(), &tw, &tm, &tc, 0.25f), NB_OK) << nb_last_error();
  // V = W (60 + 30) / (120 + 30)
  EXPECT_NEAR(w[0], 1.8f, 1e-6f);
  EXPECT_NEAR(w[1], -3.0f, 1e-6f);

  constexpr char kCross[] = "nb_cross_moments", kDrift[] = "nb_correct_drift";
  ExpectFailure(nb_cross_moments(context.get(), &tx, &shorter, &tc), NB_INVALID_ARGUMENT, kCross,
                {"y: shape [3, 1] but [4, 1]"});
  ExpectFailure(nb_cross_moments(context.get(), &tx, &ty, &wrong), NB_INVALID_ARGUMENT, kCross,
                {"moments: shape [2, 2] but [1, 1]"});
  ExpectFailure(nb_cross_moments(context.get(), nullptr, &ty, &tc), NB_INVALID_ARGUMENT, kCross,
                {"x"});
  ExpectFailure(nb_correct_drift(context.get(), &tw, &wrong, &tc, 0.25f), NB_INVALID_ARGUMENT,
                kDrift, {"moments: shape [2, 2] but [1, 1]"});
  ExpectFailure(nb_correct_drift(context.get(), &tw, &tm, nullptr, 0.25f), NB_INVALID_ARGUMENT,
                kDrift, {"cross"});
  ExpectFailure(nb_correct_drift(nullptr, &tw, &tm, &tc, 0.25f), NB_INVALID_ARGUMENT, kDrift,
                {"context: NULL"});
  for (const float damping : {0.0f, -1.0f, INFINITY, NAN}) {
    ExpectFailure(nb_correct_drift(context.get(), &tw, &tm, &tc, damping), NB_INVALID_ARGUMENT,
                  kDrift, {"damping"});
  }
  cross[0] = NAN;
  ExpectFailure(nb_correct_drift(context.get(), &tw, &tm, &tc, 0.25f), NB_INVALID_ARGUMENT,
                kDrift, {"cross: row 0 holds NaN"});
}

TEST(AbiCalibration, QuantizesEveryFormat) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(341);
  const int64_t n = 5, k = 96;
  const std::vector<float> w = NormalValues(random, n * k), x = NormalValues(random, 200 * k);
  std::vector<float> moments(k * k, 0.0f);
  const nb_tensor tw = F32(w, {n, k}), tx = F32(x, {200, k}), th = F32(moments, {k, k});
  ASSERT_EQ(nb_second_moments(context.get(), &tx, &th), NB_OK);
  for (const nb_weight_format& f : AllFormats()) {
    SCOPED_TRACE(FormatName(f));
    CanonicalMatrix m(f, n, k);
    const auto quantize = [&](const nb_calibration_options& options, const nb_tensor* h) {
      return m.Call([&](const nb_tensor* codes, const nb_tensor* high, const nb_tensor* scales,
                        const nb_tensor* factors) {
        return nb_quantize_calibrated(context.get(), &f, &options, &tw, nullptr, h, codes, high,
                                      scales, factors);
      });
    };
    const nb_calibration_options options = Options();
    if (f.scale_type == NB_NONE) {
      ExpectFailure(quantize(options, nullptr), NB_UNSUPPORTED, "nb_quantize_calibrated",
                    {"format.code_type"});
      continue;
    }
    ASSERT_EQ(quantize(options, nullptr), NB_OK) << nb_last_error();
    EXPECT_TRUE(m.SameBits(CanonicalMatrix::Quantize(context.get(), f, w, n, k)));
    ASSERT_EQ(quantize(options, &th), NB_OK) << nb_last_error();
    nb_calibration_options clipping = Options();
    clipping.clipping = 1;
    const nb_status clipped = quantize(clipping, nullptr);
    if (f.code_type == NB_I4) {
      EXPECT_EQ(clipped, NB_OK) << nb_last_error();
    } else {
      ExpectFailure(clipped, NB_UNSUPPORTED, "nb_quantize_calibrated", {"options.clipping: 1"});
    }
  }
}

TEST(AbiCalibration, OptionsThatAreRefused) {
  const ContextPtr context = MakeContext(1);
  const int64_t n = 2, k = 32;
  std::vector<float> w(n * k, 1.0f), importance(k, 1.0f);
  const std::vector<float> moments(k * k, 0.5f);
  const nb_tensor tw = F32(w, {n, k}), ti = F32(importance, {k}), th = F32(moments, {k, k});
  const auto expect = [&](const nb_weight_format& f, const nb_calibration_options& options,
                          std::initializer_list<std::string> parts) {
    CanonicalMatrix m(f, n, k);
    const nb_status status =
        m.Call([&](const nb_tensor* codes, const nb_tensor* high, const nb_tensor* scales,
                   const nb_tensor* factors) {
          return nb_quantize_calibrated(context.get(), &f, &options, &tw, &ti, &th, codes, high,
                                        scales, factors);
        });
    ExpectFailure(status, NB_INVALID_ARGUMENT, "nb_quantize_calibrated", parts);
  };
  const nb_weight_format w4 = Format(NB_I4, NB_E4M3, 16), w4f = Format(NB_I4, NB_F32, 16);
  nb_calibration_options o = Options();
  o.struct_size = 8;
  expect(w4, o, {"options", "8"});
  o = Options();
  o.clipping = 2;
  expect(w4, o, {"options.clipping: 2"});
  o = Options();
  o.by_magnitude = -1;
  expect(w4, o, {"options.by_magnitude: -1"});
  for (const float damping : {0.0f, -1.0f, INFINITY, NAN}) {
    o = Options();
    o.damping = damping;
    expect(w4, o, {"options.damping"});
  }
  for (const float factor : {-1.0f, INFINITY, NAN, 1e-42f}) {
    o = Options();
    o.factor = factor;
    expect(w4, o, {"options.factor"});
  }
  o = Options();
  o.factor = 1;
  expect(w4f, o, {"options.factor: 1"});
  importance[3] = -1;
  expect(w4, Options(), {"importance[3]: -1"});
  importance[3] = 1;
  w[k + 5] = NAN;
  expect(w4, Options(), {"weights: element [1, 5] is NaN"});
}

TEST(AbiCalibration, KeyScales) {
  const ContextPtr context = MakeContext(1);
  const CachePtr cache = MakeCache(context.get(), NB_F32, 2, 1, 16, 8);
  std::vector<float> scales(16, 2.0f);
  const nb_tensor ts = F32(scales, {1, 16}), wrong = F32(scales, {16, 1});
  ASSERT_EQ(nb_kv_cache_set_key_scales(cache.get(), 1, &ts), NB_OK) << nb_last_error();
  constexpr char kFunction[] = "nb_kv_cache_set_key_scales";
  ExpectFailure(nb_kv_cache_set_key_scales(nullptr, 0, &ts), NB_INVALID_ARGUMENT, kFunction,
                {"cache: NULL"});
  ExpectFailure(nb_kv_cache_set_key_scales(cache.get(), 2, &ts), NB_INVALID_ARGUMENT, kFunction,
                {"layer: 2 but 0..1"});
  ExpectFailure(nb_kv_cache_set_key_scales(cache.get(), 0, &wrong), NB_INVALID_ARGUMENT,
                kFunction, {"scales: shape [16, 1] but [1, 16]"});
  for (const float bad : {0.0f, -1.0f, INFINITY, NAN, 1e-42f}) {
    scales[4] = bad;
    ExpectFailure(nb_kv_cache_set_key_scales(cache.get(), 0, &ts), NB_INVALID_ARGUMENT, kFunction,
                  {"scales[4]"});
  }
  scales[4] = 2;

  // A query of ones against the key it appends: the score is the same with scales.
  std::vector<float> q(16, 1.0f), k(16, 3.0f), v(16, 0.5f);
  const nb_tensor tq = F32(q, {1, 16}), tk = F32(k, {1, 16}), tv = F32(v, {1, 16});
  const nb_sequence s = {cache.get(), 0, 1};
  ASSERT_EQ(nb_rope_append(context.get(), 1, &tq, &tk, &tv, nullptr, &s, 1), NB_OK)
      << nb_last_error();
  EXPECT_EQ(q, std::vector<float>(16, 2.0f));
  ExpectFailure(nb_kv_cache_set_key_scales(cache.get(), 1, nullptr), NB_INVALID_ARGUMENT,
                kFunction, {"layer: 1 holds 1 tokens"});
  ASSERT_EQ(nb_kv_cache_set_key_scales(cache.get(), 0, nullptr), NB_OK) << nb_last_error();
  ASSERT_EQ(nb_rope_append(context.get(), 0, &tq, &tk, &tv, nullptr, &s, 1), NB_OK);
  EXPECT_EQ(q, std::vector<float>(16, 2.0f));
}

}  // namespace
}  // namespace nibble
