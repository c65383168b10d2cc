// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/elementwise/elementwise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels-cpu/elementwise/elementwise_reference.h"
#include "kernels-cpu/testing/kernel_test.h"
#include "kernels-cpu/testing/guarded_buffer.h"
#include "kernels-cpu/numerics/formats.h"

namespace nibble {
namespace {

constexpr double kUnit = 0x1p-24;  // unit roundoff of F32

// 0, 1, sizes around every vector length, and random ones.
std::vector<int64_t> Lengths(std::mt19937_64& random) {
  std::vector<int64_t> lengths = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 172};
  for (int i = 0; i < 12; ++i) lengths.push_back(UniformInt(random, 1, 5000));
  return lengths;
}

TEST(RmsNorm, MatchesReference) {
  ForEachSimdTarget([] {
    std::mt19937_64 random = TestRandom(1);
    for (const int64_t n : Lengths(random)) {
      const GuardedBuffer<float> x(NormalValues(random, n, 3)), w(NormalValues(random, n));
      const GuardedBuffer<float> y(n);
      std::vector<double> expected(n);
      RmsNormRow(x.data(), w.data(), 1e-5f, n, y.data());
      RmsNormRowReference(x.data(), w.data(), 1e-5f, n, expected.data());
      // Four accumulators of at least 4 lanes: each adds at most n/16 + 1 squares and the
      // merge at most 6 more, one rounding each; all terms are positive, so the mean is
      // within (n/16 + 9) u with its division, and one more u for epsilon. The square
      // root halves that; it, the reciprocal and the two products round once each.
      const double bound = ((n / 16 + 10) / 2.0 + 4) * kUnit;
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_LE(std::fabs(y[i] - expected[i]), bound * std::fabs(expected[i]))
            << "n " << n << " i " << i;
      }
      RmsNormRow(x.data(), w.data(), 1e-5f, n, x.data());  // in place
      ASSERT_TRUE(n == 0 || std::memcmp(x.data(), y.data(), n * sizeof(float)) == 0) << n;
    }
  });
}

TEST(RmsNorm, ZerosAndNaN) {
  ForEachSimdTarget([] {
    std::vector<float> x(37, 0.0f), w(37, 2.0f), y(37, 1.0f);
    RmsNormRow(x.data(), w.data(), 1e-5f, 37, y.data());
    for (const float v : y) EXPECT_EQ(v, 0.0f);
    x[36] = NAN;
    RmsNormRow(x.data(), w.data(), 1e-5f, 37, y.data());
    for (const float v : y) EXPECT_TRUE(std::isnan(v));
  });
}

TEST(RowKernels, AlignmentDoesNotChangeBits) {
  ForEachSimdTarget([] {
    std::mt19937_64 random = TestRandom(2);
    const int64_t n = UniformInt(random, 100, 900);
    const std::vector<float> x = NormalValues(random, n), w = NormalValues(random, n);
    std::vector<float> first(n), moved_x(n + 16), moved_w(n + 16), y(n + 16);
    std::vector<uint8_t> first_codes(n), codes(n + 16);
    RmsNormRow(x.data(), w.data(), 1e-6f, n, first.data());
    const float first_scale = QuantizeRowE4M3(x.data(), n, first_codes.data());
    for (int shift = 0; shift < 16; ++shift) {
      std::copy(x.begin(), x.end(), moved_x.begin() + shift);
      std::copy(w.begin(), w.end(), moved_w.begin() + (16 - shift));
      RmsNormRow(&moved_x[shift], &moved_w[16 - shift], 1e-6f, n, &y[shift]);
      ASSERT_EQ(std::memcmp(&y[shift], first.data(), n * sizeof(float)), 0) << shift;
      ASSERT_EQ(QuantizeRowE4M3(&moved_x[shift], n, &codes[shift]), first_scale);
      ASSERT_EQ(std::memcmp(&codes[shift], first_codes.data(), n), 0) << shift;
    }
  });
}

// Quantizes with the fast version and the definition; scales and codes must be equal.
void CheckQuantizer(DType type, const std::vector<float>& values) {
  const size_t n = values.size();
  const GuardedBuffer<float> x(values);
  const GuardedBuffer<uint8_t> codes(n);
  std::vector<uint8_t> expected(n);
  std::fill(codes.begin(), codes.end(), 0xAA);
  const float expected_scale =
      QuantizeRowReference(type, x.data(), static_cast<int64_t>(n), expected.data());
  const float scale =
      type == DType::kE4M3
          ? QuantizeRowE4M3(x.data(), static_cast<int64_t>(n), codes.data())
          : QuantizeRowI8(x.data(), static_cast<int64_t>(n),
                          reinterpret_cast<int8_t*>(codes.data()));
  ASSERT_EQ(std::isnan(scale), std::isnan(expected_scale));
  if (!std::isnan(scale)) {
    ASSERT_EQ(scale, expected_scale);
  }
  for (size_t i = 0; i < n; ++i) {
    ASSERT_EQ(codes[i], expected[i]) << "x " << x[i] << " scale " << scale << " n " << n;
  }
}

// Both signs of a boundary and of its float neighbours.
void AddBoundary(float value, std::vector<float>& values) {
  const float below = std::nextafterf(value, -INFINITY), above = std::nextafterf(value, INFINITY);
  for (const float v : {value, below, above}) {
    values.push_back(v);
    values.push_back(-v);
  }
}

TEST(QuantizeE4M3, EveryRoundingBoundary) {
  // 448 in the row makes the scale exactly 1, so that the row holds the quotients.
  std::vector<float> values = {448.0f, 0.0f, -0.0f, FLT_MIN, FLT_TRUE_MIN, -FLT_TRUE_MIN};
  for (int code = 0; code < 0x7E; ++code) {
    const float low = DecodeE4M3(static_cast<uint8_t>(code));
    const float high = DecodeE4M3(static_cast<uint8_t>(code + 1));
    AddBoundary(low, values);
    AddBoundary((low + high) / 2, values);
  }
  values.push_back(std::nextafterf(448.0f, 0));
  // And a sweep of the bit patterns up to 448, in steps that hit all low bits.
  for (uint64_t bits = 0; bits <= 0x43E00000u; bits += 65521) {
    const uint32_t word = static_cast<uint32_t>(bits) | ((bits & 8) ? 0x80000000u : 0);
    float v;
    std::memcpy(&v, &word, sizeof(v));
    values.push_back(v);
  }
  ForEachSimdTarget([&] { CheckQuantizer(DType::kE4M3, values); });
}

TEST(QuantizeI8, EveryRoundingBoundary) {
  std::vector<float> values = {127.0f, 0.0f, -0.0f, FLT_TRUE_MIN};
  for (int code = 0; code < 127; ++code) {
    AddBoundary(static_cast<float>(code), values);
    AddBoundary(static_cast<float>(code) + 0.5f, values);
  }
  ForEachSimdTarget([&] { CheckQuantizer(DType::kI8, values); });
}

TEST(Quantize, RandomRows) {
  ForEachSimdTarget([] {
    std::mt19937_64 random = TestRandom(3);
    for (const int64_t n : Lengths(random)) {
      // Deviations from the subnormals to the largest floats.
      const float deviation = std::ldexp(1.0f, static_cast<int>(UniformInt(random, -140, 120)));
      const std::vector<float> values = NormalValues(random, n, deviation);
      CheckQuantizer(DType::kE4M3, values);
      CheckQuantizer(DType::kI8, values);
    }
  });
}

TEST(Quantize, SpecialRows) {
  ForEachSimdTarget([] {
    for (const DType type : {DType::kE4M3, DType::kI8}) {
      for (const int64_t n : {1, 15, 16, 70}) {
        CheckQuantizer(type, std::vector<float>(n, 0.0f));
        CheckQuantizer(type, std::vector<float>(n, -0.0f));
        CheckQuantizer(type, std::vector<float>(n, FLT_MAX));
        CheckQuantizer(type, std::vector<float>(n, -FLT_TRUE_MIN));
        for (const float special : {NAN, -NAN, INFINITY, -INFINITY}) {
          std::vector<float> row(n, 1.0f);
          row[n - 1] = special;
          CheckQuantizer(type, row);
        }
      }
    }
  });
}

TEST(SwiGlu, MatchesReference) {
  ForEachSimdTarget([] {
    std::mt19937_64 random = TestRandom(4);
    for (const int64_t n : Lengths(random)) {
      std::vector<float> values = NormalValues(random, n, 8);
      for (int64_t i = 0; i < n; i += 5) values[i] *= 20;  // where exp overflows, too
      const GuardedBuffer<float> gate(values), up(NormalValues(random, n)), y(n);
      std::vector<double> expected(n);
      SwiGluRow(gate.data(), up.data(), n, y.data());
      SwiGluRowReference(gate.data(), up.data(), n, expected.data());
      for (int64_t i = 0; i < n; ++i) {
        // The bounds that elementwise.h states; rows.cc derives them.
        ASSERT_LE(std::fabs(y[i] - expected[i]),
                  0x1p-21 * std::fabs(expected[i]) + 0x1p-120 * std::fabs(up[i]))
            << gate[i];
      }
      SwiGluRow(gate.data(), up.data(), n, gate.data());  // in place
      ASSERT_TRUE(n == 0 || std::memcmp(gate.data(), y.data(), n * sizeof(float)) == 0);
    }
  });
}

TEST(SwiGlu, ExtremesStayFinite) {
  ForEachSimdTarget([] {
    const std::vector<float> gate = {FLT_MAX, -FLT_MAX, 1e30f, -1e30f, 104,   -104, 88.8f,
                                     -88.8f,  0,        -0.0f, NAN,    1e-40f, -200, 200};
    std::vector<float> up(gate.size(), 1.0f), y(gate.size());
    SwiGluRow(gate.data(), up.data(), static_cast<int64_t>(gate.size()), y.data());
    for (size_t i = 0; i < gate.size(); ++i) {
      if (std::isnan(gate[i])) {
        EXPECT_TRUE(std::isnan(y[i]));
      } else if (gate[i] > 80) {
        EXPECT_EQ(y[i], gate[i]);
      } else if (gate[i] < -80) {
        EXPECT_LE(std::fabs(y[i]), 0x1p-120) << gate[i];
      } else {
        EXPECT_LE(std::fabs(y[i]), std::fabs(gate[i]));
      }
    }
  });
}

// Runs every operator over a strided [rows][cols] matrix and returns all output bytes.
std::vector<uint8_t> RunOperators(Workspace& workspace, int64_t rows, int64_t cols,
                                  const std::vector<float>& a, const std::vector<float>& b,
                                  int64_t stride) {
  std::vector<float> out(4 * rows * cols + 2 * rows, -1.0f);
  std::vector<uint8_t> codes(2 * rows * cols, 0xAA);
  float* y = out.data();
  RmsNorm(workspace, a.data(), stride, b.data(), 1e-5f, rows, cols, y, cols);
  y += rows * cols;
  SwiGlu(workspace, a.data(), stride, b.data(), stride, rows, cols, y, cols);
  y += rows * cols;
  Add(workspace, a.data(), stride, b.data(), stride, rows, cols, y, cols);
  y += rows * cols;
  QuantizeActivations(workspace, DType::kE4M3, a.data(), stride, b.data(), 1e-5f, rows, cols,
                      codes.data(), cols, y);
  y += rows;
  QuantizeActivations(workspace, DType::kI8, a.data(), stride, nullptr, 0, rows, cols,
                      codes.data() + rows * cols, cols, y);
  std::vector<uint8_t> bytes(out.size() * sizeof(float));
  std::memcpy(bytes.data(), out.data(), bytes.size());
  bytes.insert(bytes.end(), codes.begin(), codes.end());
  return bytes;
}

TEST(Operators, SameBitsForAnyThreadsAndEqualToRows) {
  std::mt19937_64 random = TestRandom(5);
  std::vector<std::pair<int64_t, int64_t>> shapes = {{1, 1}, {1, 5000}, {3, 4097}, {9, 2048}};
  for (int i = 0; i < 4; ++i) {
    shapes.push_back({UniformInt(random, 1, 20), UniformInt(random, 1, 6000)});
  }
  for (const auto& [rows, cols] : shapes) {
    const int64_t stride = cols + 3;
    const std::vector<float> a = NormalValues(random, rows * stride, 2);
    const std::vector<float> b = NormalValues(random, rows * stride);
    ForEachSimdTarget([&, rows = rows, cols = cols] {
      std::vector<uint8_t> first;
      for (int threads = 1; threads <= 4; ++threads) {
        Workspace workspace(threads);
        const std::vector<uint8_t> bytes = RunOperators(workspace, rows, cols, a, b, stride);
        if (threads == 1) first = bytes;
        ASSERT_EQ(bytes, first) << rows << " x " << cols << ", threads " << threads;
      }
      // The operators are the row kernels over all rows, in order.
      std::vector<float> y(cols);
      std::vector<uint8_t> codes(cols);
      for (int64_t r = 0; r < rows; ++r) {
        const float* row = a.data() + r * stride;
        RmsNormRow(row, b.data(), 1e-5f, cols, y.data());
        ASSERT_EQ(std::memcmp(y.data(), first.data() + r * cols * 4, cols * 4), 0);
        const float scale = QuantizeRowE4M3(y.data(), cols, codes.data());
        const size_t base = (4 * rows * cols + 2 * rows) * 4;
        ASSERT_EQ(std::memcmp(codes.data(), first.data() + base + r * cols, cols), 0);
        ASSERT_EQ(std::memcmp(&scale, first.data() + (3 * rows * cols + r) * 4, 4), 0);
        SwiGluRow(row, b.data() + r * stride, cols, y.data());
        ASSERT_EQ(std::memcmp(y.data(), first.data() + (rows + r) * cols * 4, cols * 4), 0);
        for (int64_t i = 0; i < cols; ++i) y[i] = row[i] + b[r * stride + i];
        ASSERT_EQ(std::memcmp(y.data(), first.data() + (2 * rows + r) * cols * 4, cols * 4), 0);
      }
    });
  }
}

TEST(Embedding, CopiesTheNamedRows) {
  std::mt19937_64 random = TestRandom(6);
  const int64_t vocabulary = 37, cols = 171, rows = 90, stride = cols + 2;
  std::vector<float> weights = NormalValues(random, vocabulary * cols);
  WeightFormat format;  // F32, so that a looked-up row is the row itself
  CanonicalWeights canonical;
  canonical.codes = reinterpret_cast<uint8_t*>(weights.data());
  std::vector<int32_t> ids(rows);
  for (int32_t& id : ids) id = static_cast<int32_t>(UniformInt(random, 0, vocabulary - 1));
  ids[0] = 0;
  ids[1] = vocabulary - 1;
  ForEachSimdTarget([&] {
    for (int threads = 1; threads <= 4; ++threads) {
      Workspace workspace(threads);
      const PackedMatrix table =
          PackMatrix(workspace.pool(), format, vocabulary, cols, canonical);
      const GuardedBuffer<float> y((rows - 1) * stride + cols);
      Embedding(workspace, table, ids.data(), rows, y.data(), stride);
      for (int64_t r = 0; r < rows; ++r) {
        ASSERT_EQ(std::memcmp(y.data() + r * stride, &weights[ids[r] * cols], cols * 4), 0) << r;
      }
    }
  });
}

TEST(Operators, NoRowsDoNothing) {
  Workspace workspace(2);
  float y = 7;
  RmsNorm(workspace, nullptr, 8, &y, 1e-5f, 0, 8, &y, 8);
  SwiGlu(workspace, nullptr, 8, nullptr, 8, 0, 8, &y, 8);
  Add(workspace, nullptr, 8, nullptr, 8, 0, 8, &y, 8);
  QuantizeActivations(workspace, DType::kI8, nullptr, 8, nullptr, 0, 0, 8, nullptr, 8, &y);
  EXPECT_EQ(y, 7);
}

}  // namespace
}  // namespace nibble
