// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/quantize/calibrated_quantize.h"

#include <cmath>
#include <cstring>

#include "kernels-cpu/gemm/canonical_storage.h"
#include "kernels-cpu/numerics/quantize.h"
#include "kernels-cpu/quantize/calibrated_quantize_reference.h"
#include "kernels-cpu/quantize/channel_statistics.h"
#include "kernels-cpu/testing/kernel_test.h"

namespace nibble {
namespace {

const CalibratedOptions kPlain;

std::vector<WeightFormat> Formats() {
  std::vector<WeightFormat> formats;
  for (const int64_t group : {0, 16, 48, 128}) {
    for (const DType s : {DType::kE4M3, DType::kPow2, DType::kF16, DType::kBF16, DType::kF32}) {
      formats.push_back({DType::kI4, s, group});
    }
    for (const DType c : {DType::kI8, DType::kE4M3, DType::kE5M2, DType::kE3M2, DType::kE2M3}) {
      formats.push_back({c, DType::kF32, group});
      formats.push_back({c, DType::kBF16, group});
    }
  }
  return formats;
}

bool SameBits(const CanonicalStorage& a, const CanonicalStorage& b) {
  return a.codes == b.codes && a.codes_high == b.codes_high && a.scales == b.scales &&
         a.factors == b.factors;
}

// Inputs of which neighbours resemble each other: what compensation lives on.
std::vector<float> CorrelatedInputs(std::mt19937_64& random, int64_t rows, int64_t cols) {
  std::vector<float> x = NormalValues(random, rows * cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 1; k < cols; ++k) {
      x[r * cols + k] = 0.9f * x[r * cols + k - 1] + 0.45f * x[r * cols + k];
    }
  }
  return x;
}

struct Problem {
  Problem(std::mt19937_64& random, int64_t n, int64_t k, int64_t tokens)
      : rows(n), cols(k), w(NormalValues(random, n * k)), moments(k * k) {
    const std::vector<float> x = CorrelatedInputs(random, tokens, k);
    Workspace workspace(2);
    AddSecondMoments(workspace, x.data(), k, tokens, k, moments.data());
  }

  // sum over rows of e H e^T.
  double OutputError(const WeightFormat& f, CanonicalStorage& q) const {
    double error = 0;
    std::vector<double> e(cols);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < cols; ++k) {
        e[k] = w[r * cols + k] - WeightValue(f, cols, q.view(), r, k);
      }
      for (int64_t i = 0; i < cols; ++i) {
        for (int64_t j = 0; j < cols; ++j) error += e[i] * e[j] * moments[i * cols + j];
      }
    }
    return error;
  }

  CanonicalStorage Quantize(const WeightFormat& f, const CalibratedOptions& options,
                            bool compensate, int threads = 2) const {
    Workspace workspace(threads);
    CanonicalStorage out(f, rows, cols);
    std::vector<float> importance(cols);
    for (int64_t k = 0; k < cols; ++k) importance[k] = moments[k * cols + k];
    EXPECT_EQ(QuantizeCalibrated(workspace, f, w.data(), cols, rows, cols, importance.data(),
                                 compensate ? moments.data() : nullptr, options, out.view()),
              "");
    return out;
  }

  int64_t rows, cols;
  std::vector<float> w, moments;
};

TEST(CalibratedQuantize, WithoutAnyPartItIsRoundToNearest) {
  std::mt19937_64 random = TestRandom(331);
  for (const WeightFormat& f : Formats()) {
    const int64_t rows = UniformInt(random, 1, 9), cols = UniformInt(random, 1, 300);
    std::vector<float> w = NormalValues(random, rows * (cols + 2));
    for (int64_t k = 0; k < cols; ++k) w[k] = 0;  // a row of zeros
    ForEachSimdTarget([&] {
      Workspace workspace(2);
      CanonicalStorage expected(f, rows, cols), actual(f, rows, cols);
      ASSERT_EQ(QuantizeWeights(workspace.pool(), f, DType::kF32, w.data(), rows, cols, cols + 2,
                                expected.view()),
                "");
      ASSERT_EQ(QuantizeCalibrated(workspace, f, w.data(), cols + 2, rows, cols, nullptr, nullptr,
                                   kPlain, actual.view()),
                "");
      ASSERT_TRUE(SameBits(expected, actual))
          << static_cast<int>(f.code) << "/" << static_cast<int>(f.scale) << "/" << f.group_size;
    });
  }
}

// Codes and scales must be those of the reference until what is rounded lies within the error of
// F32 of a boundary; after that two rows have little to do with each other.
TEST(CalibratedQuantize, CompensationIsTheReference) {
  std::mt19937_64 random = TestRandom(332);
  int64_t compared = 0, all = 0;
  for (const int64_t group : {16, 48, 128, 208}) {
    for (const int64_t cols : {1, 30, 128, 200}) {
      const Problem p(random, 5, cols, cols + 20);
      const WeightFormat f = {DType::kI4, DType::kF32, group < cols ? group : 0};
      // A group that is longer than a block has the scale of its weights as they are.
      if (group >= cols && cols > 128) continue;
      CalibratedOptions options;
      options.damping = 0.05f;
      CanonicalStorage q = p.Quantize(f, options, true);
      double mean = 0;
      for (int64_t k = 0; k < cols; ++k) mean += p.moments[k * cols + k] / cols;
      std::vector<double> h(p.moments.begin(), p.moments.end());
      for (int64_t k = 0; k < cols; ++k) h[k * cols + k] += options.damping * mean;
      const std::vector<double> inverse = InverseReference(h, cols);
      for (int64_t r = 0; r < p.rows; ++r) {
        std::vector<double> scales, target;
        const std::vector<int> codes = CompensateReference(
            std::vector<double>(p.w.begin() + r * cols, p.w.begin() + (r + 1) * cols), inverse,
            f.Group(cols), &scales, &target);
        all += cols;
        for (int64_t k = 0; k < cols; ++k, ++compared) {
          float scale;
          const int64_t g = r * f.Groups(cols) + k / f.Group(cols);
          std::memcpy(&scale, q.scales.data() + g * sizeof(scale), sizeof(scale));
          ASSERT_NEAR(scale, scales[k], 1e-4 * scales[k]) << group << ", column " << k;
          const int code = static_cast<int>(
              std::lround(WeightValue(f, cols, q.view(), r, k) / static_cast<double>(scale)));
          if (code == codes[k]) continue;
          ASSERT_LT(std::fabs(std::fabs(target[k] - std::floor(target[k])) - 0.5), 1e-3)
              << cols << ": row " << r << " column " << k;
          break;
        }
      }
    }
  }
  EXPECT_GT(compared, all / 2);
}

TEST(CalibratedQuantize, EachPartLowersTheErrorOfTheOutput) {
  std::mt19937_64 random = TestRandom(333);
  for (const WeightFormat& f :
       {WeightFormat{DType::kI4, DType::kE4M3, 128}, WeightFormat{DType::kI4, DType::kPow2, 32},
        WeightFormat{DType::kI4, DType::kF16, 48}, WeightFormat{DType::kI4, DType::kF32, 0}}) {
    const Problem p(random, 16, 320, 700);
    CalibratedOptions clipping, by_magnitude;
    clipping.clipping = true;
    by_magnitude.by_magnitude = true;
    const auto error = [&](const CalibratedOptions& options, bool compensate) {
      CanonicalStorage q = p.Quantize(f, options, compensate);
      return p.OutputError(f, q);
    };
    const double nearest = error(kPlain, false);
    const double compensated = error(kPlain, true);
    EXPECT_LT(compensated, 0.5 * nearest);
    EXPECT_LT(error(by_magnitude, true), 0.6 * nearest);
    // With compensation the scale is chosen for a weight of its own: better, or as good.
    EXPECT_LT(error(clipping, true), 1.03 * compensated);
    // Clipping alone looks at the diagonal of the moments.
    CanonicalStorage plain = p.Quantize(f, kPlain, false), clipped = p.Quantize(f, clipping, false);
    double before = 0, after = 0;
    for (int64_t r = 0; r < p.rows; ++r) {
      for (int64_t k = 0; k < p.cols; ++k) {
        const double h = p.moments[k * p.cols + k], w = p.w[r * p.cols + k];
        before += h * std::pow(w - WeightValue(f, p.cols, plain.view(), r, k), 2);
        after += h * std::pow(w - WeightValue(f, p.cols, clipped.view(), r, k), 2);
      }
    }
    EXPECT_LT(after, before);
  }
  // Other codes can be compensated too.
  const Problem p(random, 8, 96, 200);
  for (const DType code : {DType::kI8, DType::kE3M2, DType::kE2M3, DType::kE4M3, DType::kE5M2}) {
    const WeightFormat f = {code, DType::kF32, 0};
    CanonicalStorage plain = p.Quantize(f, kPlain, false), better = p.Quantize(f, kPlain, true);
    EXPECT_LT(p.OutputError(f, better), 0.7 * p.OutputError(f, plain)) << static_cast<int>(code);
  }
}

TEST(CalibratedQuantize, AnyNumberOfThreadsGivesTheSameBits) {
  std::mt19937_64 random = TestRandom(334);
  const Problem p(random, 37, 200, 300);
  for (const WeightFormat& f :
       {WeightFormat{DType::kI4, DType::kE4M3, 64}, WeightFormat{DType::kI4, DType::kPow2, 0}}) {
    for (const bool compensate : {false, true}) {
      CalibratedOptions options;
      options.clipping = true;
      const CanonicalStorage one = p.Quantize(f, options, compensate, 1);
      for (int threads = 2; threads <= 4; ++threads) {
        EXPECT_TRUE(SameBits(one, p.Quantize(f, options, compensate, threads))) << threads;
      }
    }
  }
}

TEST(CalibratedQuantize, AGivenMatrixFactorIsKept) {
  std::mt19937_64 random = TestRandom(335);
  const Problem p(random, 4, 64, 100);
  CalibratedOptions options;
  options.matrix_factor = 1;
  const WeightFormat f = {DType::kI4, DType::kE4M3, 32};
  EXPECT_EQ(p.Quantize(f, options, false).factors[0], 1);
  EXPECT_EQ(p.Quantize(f, options, true).factors[0], 1);
}

TEST(CalibratedQuantize, SaysWhatIsNotFinite) {
  Workspace workspace(2);
  const WeightFormat f = {DType::kI4, DType::kE4M3, 0};
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> w(3 * 20, 1.0f), h(20 * 20, 0.5f);
    CanonicalStorage out(f, 3, 20);
    w[1 * 20 + 7] = bad;
    EXPECT_NE(QuantizeCalibrated(workspace, f, w.data(), 20, 3, 20, nullptr, nullptr, kPlain,
                                 out.view())
                  .find("element [1, 7] is"),
              std::string::npos);
    w[1 * 20 + 7] = 1;
    h[4 * 20 + 2] = bad;
    EXPECT_NE(QuantizeCalibrated(workspace, f, w.data(), 20, 3, 20, nullptr, h.data(), kPlain,
                                 out.view())
                  .find("moments: row 4 holds"),
              std::string::npos);
    EXPECT_EQ(out.factors, CanonicalStorage(f, 3, 20).factors) << "written all the same";
  }
}

TEST(CalibratedQuantize, MomentsWithoutRankAreDampedUntilTheyCanBeFactored) {
  Workspace workspace(1);
  const int64_t rows = 3, cols = 40;
  std::mt19937_64 random = TestRandom(336);
  const std::vector<float> w = NormalValues(random, rows * cols);
  const WeightFormat f = {DType::kI4, DType::kF32, 0};
  for (const float value : {0.0f, 1e6f}) {  // no inputs at all; all inputs the same
    const std::vector<float> h(cols * cols, value);
    CalibratedOptions options;
    options.damping = 1e-12f;
    CanonicalStorage out(f, rows, cols);
    EXPECT_EQ(QuantizeCalibrated(workspace, f, w.data(), cols, rows, cols, nullptr, h.data(),
                                 options, out.view()),
              "");
  }
}

}  // namespace
}  // namespace nibble
