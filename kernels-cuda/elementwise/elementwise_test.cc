// SPDX-License-Identifier: Apache-2.0
//
// The row kernels on every target, against the references of kernels-cpu/elementwise.
#include "kernels-cuda/elementwise/elementwise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "kernels-cpu/elementwise/elementwise_reference.h"
#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/testing/kernel_test.h"
#include "kernels-cuda/attention/sequence.h"
#include "kernels-cuda/elementwise/offset_array.h"
#include "kernels-cuda/elementwise/params.h"

namespace nibble::cuda::elementwise {
namespace {

constexpr double kUnit = 0x1p-24;  // unit roundoff of F32

// rows x cols values at a stride, on a boundary of 16 bytes or `offset` elements beside one.
struct Matrix {
  int64_t rows, cols, stride;
  size_t offset;
  std::vector<float> values;

  Matrix(std::mt19937_64& random, int64_t rows, int64_t cols, float deviation = 1,
         bool aligned = true)
      : rows(rows), cols(cols), stride(aligned ? RoundUp(cols, 4) : cols + 3),
        offset(aligned ? 0 : 1), values(NormalValues(random, rows * stride, deviation)) {}

  float* row(int64_t r) { return &values[r * stride]; }
  const float* row(int64_t r) const { return &values[r * stride]; }
};

// A matrix on the device.
struct DeviceMatrix {
  OffsetArray<float> array;
  int64_t stride;

  DeviceMatrix(Device& device, const Matrix& m)
      : array(device, m.values, m.offset), stride(m.stride) {}
  Rows rows() const { return {array.get(), stride}; }
};

// 1, around the 4 columns of a thread, a warp, the padding, a chunk, all chunks that stay in
// registers; and random ones.
std::vector<int64_t> Widths(std::mt19937_64& random) {
  std::vector<int64_t> widths = {1, 2, 3, 4, 5, 31, 127, 128, 129, 255, 256, 257, 1023, 4100};
  widths.push_back(UniformInt(random, 6, 3000));
  widths.push_back(4 * UniformInt(random, 2, 700));
  return widths;
}
constexpr int64_t kBeyondRegisters = 4 * 4 * kMaxRowThreads + 5;

TEST(CudaRmsNorm, MatchesReference) {
  std::mt19937_64 random = TestRandom(31);
  std::vector<int64_t> widths = Widths(random);
  widths.push_back(kBeyondRegisters);
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    for (const int64_t cols : widths) {
      const int64_t rows = cols > 4096 ? 1 : UniformInt(random, 1, 3);
      Matrix x(random, rows, cols, 3), w(random, 1, cols);
      const DeviceMatrix dx(device, x), dw(device, w), dy(device, x);
      const Norm norm = {dw.array.get(), 1e-5f};
      ASSERT_TRUE(Succeeded(RmsNorm(device, dx.rows(), norm, rows, cols, dy.rows())));
      const std::vector<float> y = dy.array.Read();
      // A thread's sum of its squares, ten halvings, the division by n and epsilon: as many
      // roundings, all terms positive. The square root halves that; it, the reciprocal and the
      // two products round once each.
      const int64_t own = 4 * DivUp(cols, 4 * RowThreads(cols));
      const double bound = (static_cast<double>(own + 12) / 2 + 4) * kUnit;
      std::vector<double> expected(cols);
      for (int64_t r = 0; r < rows; ++r) {
        RmsNormRowReference(x.row(r), w.row(0), 1e-5f, cols, expected.data());
        for (int64_t i = 0; i < cols; ++i) {
          ASSERT_LE(std::fabs(y[r * x.stride + i] - expected[i]), bound * std::fabs(expected[i]))
              << "sm_" << sm << " cols " << cols << " row " << r << " column " << i;
        }
      }
      // In place, and from memory on no boundary: the same bits.
      ASSERT_TRUE(Succeeded(RmsNorm(device, dx.rows(), norm, rows, cols, dx.rows())));
      Matrix moved(random, rows, cols, 1, /*aligned=*/false);
      for (int64_t r = 0; r < rows; ++r) std::copy_n(x.row(r), cols, moved.row(r));
      const DeviceMatrix dm(device, moved);
      ASSERT_TRUE(Succeeded(RmsNorm(device, dm.rows(), norm, rows, cols, dm.rows())));
      const std::vector<float> in_place = dx.array.Read(), beside = dm.array.Read();
      for (int64_t r = 0; r < rows; ++r) {
        ASSERT_EQ(std::memcmp(&in_place[r * x.stride], &y[r * x.stride], cols * 4), 0) << cols;
        ASSERT_EQ(std::memcmp(&beside[r * moved.stride], &y[r * x.stride], cols * 4), 0) << cols;
        // Nothing between the rows is touched.
        ASSERT_EQ(std::memcmp(&beside[r * moved.stride + cols], moved.row(r) + cols, 12), 0);
      }
    }
  }
}

TEST(CudaRmsNorm, ZerosAndNaN) {
  Device& device = EmulatedDevice(89);
  std::vector<float> x(2 * 40, 0.0f);
  x[40 + 36] = NAN;
  const OffsetArray<float> dx(device, x), dw(device, std::vector<float>(40, 2.0f));
  const OffsetArray<float> dy(device, 80);
  ASSERT_TRUE(Succeeded(
      RmsNorm(device, {dx.get(), 40}, {dw.get(), 1e-5f}, 2, 37, {dy.get(), 40})));
  const std::vector<float> y = dy.Read();
  for (int i = 0; i < 37; ++i) {
    EXPECT_EQ(y[i], 0.0f);
    EXPECT_TRUE(std::isnan(y[40 + i]));
  }
}

// left of device against what the definition makes of rows: codes, padding, scales.
void CheckLeft(Device& device, const GemmLeft& left, const std::vector<float>& rows,
               int64_t stride) {
  const int64_t padded = LeftStride(left.type, left.cols);
  const int bytes = left.type == DType::kBF16 ? 2 : 1;
  std::vector<uint8_t> codes(left.rows * left.stride * bytes), expected(left.cols);
  std::vector<float> scales(left.rows);
  ASSERT_TRUE(Succeeded(
      device.CopyOut(codes.data(), left.values, static_cast<int64_t>(codes.size()))));
  if (left.scales != 0) {
    ASSERT_TRUE(Succeeded(device.CopyOut(scales.data(), left.scales, left.rows * 4)));
  }
  for (int64_t r = 0; r < left.rows; ++r) {
    const float* x = &rows[r * stride];
    const uint8_t* got = &codes[r * left.stride * bytes];
    if (bytes == 2) {
      for (int64_t i = 0; i < left.cols; ++i) {
        uint16_t code;
        std::memcpy(&code, got + 2 * i, 2);
        // Of a NaN, any NaN.
        if (std::isnan(x[i]) && std::isnan(DecodeBF16(code))) continue;
        ASSERT_EQ(code, EncodeBF16(x[i])) << "row " << r << " column " << i << " x " << x[i];
      }
    } else {
      const float scale = QuantizeRowReference(left.type, x, left.cols, expected.data());
      ASSERT_EQ(std::isnan(scales[r]), std::isnan(scale)) << r;
      if (!std::isnan(scale)) {
        ASSERT_EQ(scales[r], scale) << r;
      }
      for (int64_t i = 0; i < left.cols; ++i) {
        ASSERT_EQ(got[i], expected[i]) << "row " << r << " column " << i << " x " << x[i];
      }
    }
    for (int64_t b = left.cols * bytes; b < padded * bytes; ++b) {
      ASSERT_EQ(got[b], 0) << "row " << r << " byte " << b << " of " << padded * bytes;
    }
  }
}

constexpr DType kLeftTypes[] = {DType::kE4M3, DType::kI8, DType::kBF16};

TEST(CudaMakeLeft, BitExactWithTheDefinition) {
  std::mt19937_64 random = TestRandom(32);
  std::vector<int64_t> widths = Widths(random);
  widths.push_back(kBeyondRegisters);
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    for (const int64_t cols : widths) {
      const bool aligned = UniformInt(random, 0, 1) == 0;
      const int64_t rows = cols > 4096 ? 1 : UniformInt(random, 1, 3);
      const Matrix x(random, rows, cols, 20, aligned), w(random, 1, cols, 1, aligned);
      const DeviceMatrix dx(device, x), dw(device, w), dy(device, x);
      const Norm norm = {dw.array.get(), 1e-6f};
      ASSERT_TRUE(Succeeded(RmsNorm(device, dx.rows(), norm, rows, cols, dy.rows())));
      const std::vector<float> normed = dy.array.Read();
      for (const DType type : kLeftTypes) {
        SCOPED_TRACE("sm_" + std::to_string(sm) + " cols " + std::to_string(cols) + " type " +
                     std::to_string(static_cast<int>(type)));
        const OffsetArray<uint8_t> memory(device, LeftBytes(type, rows, cols));
        const GemmLeft left = LayOutLeft(type, rows, cols, memory.get());
        ASSERT_EQ(left.stride % 128, 0);
        ASSERT_TRUE(Succeeded(MakeLeft(device, dx.rows(), Norm(), left)));
        CheckLeft(device, left, x.values, x.stride);
        // Behind a norm: the codes of the very row that RmsNorm gives.
        ASSERT_TRUE(Succeeded(MakeLeft(device, dx.rows(), norm, left)));
        CheckLeft(device, left, normed, x.stride);
        if (HasFatalFailure()) return;
      }
      const OffsetArray<uint8_t> memory(device, LeftBytes(DType::kF32, rows, cols));
      const GemmLeft left = LayOutLeft(DType::kF32, rows, cols, memory.get());
      ASSERT_TRUE(Succeeded(MakeLeft(device, dx.rows(), norm, left)));
      std::vector<float> copy(rows * left.stride);
      ASSERT_TRUE(Succeeded(
          device.CopyOut(copy.data(), left.values, static_cast<int64_t>(copy.size() * 4))));
      for (int64_t r = 0; r < rows; ++r) {
        ASSERT_EQ(std::memcmp(&copy[r * left.stride], &normed[r * x.stride], cols * 4), 0);
      }
    }
  }
}

// Rows whose quotients are every code's boundaries, and rows that cannot be scaled.
TEST(CudaMakeLeft, RoundingBoundariesAndOddRows) {
  constexpr int64_t kCols = 3000;
  std::vector<std::vector<float>> rows;
  // The first value makes the scale exactly 1, so that the row holds the quotients.
  std::vector<float> e4m3 = {448.0f}, i8 = {127.0f};
  for (uint8_t code = 0; code < 0x7E; ++code) {
    const float middle = (DecodeE4M3(code) + DecodeE4M3(code + 1)) / 2;
    for (const float v : {DecodeE4M3(code), middle, std::nextafterf(middle, 500),
                          std::nextafterf(middle, 0)}) {
      e4m3.push_back(v);
      e4m3.push_back(-v);
    }
  }
  for (int q = -127; q < 127; ++q) {
    const float middle = static_cast<float>(q) + 0.5f;
    for (const float v : {middle, std::nextafterf(middle, 500), std::nextafterf(middle, -500)}) {
      i8.push_back(v);
    }
  }
  rows = {e4m3, i8, {0.0f, -0.0f}, {1, NAN}, {INFINITY}, {-INFINITY, 3}, {FLT_TRUE_MIN, 0},
          {1e-36f, -3e-37f, FLT_MIN}, {FLT_MAX, -1e38f, 1}};
  std::vector<float> x(rows.size() * kCols, 0.0f);
  for (size_t r = 0; r < rows.size(); ++r) {
    std::copy(rows[r].begin(), rows[r].end(), &x[r * kCols]);
  }
  const auto count = static_cast<int64_t>(rows.size());
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    const OffsetArray<float> dx(device, x);
    for (const DType type : kLeftTypes) {
      SCOPED_TRACE("sm_" + std::to_string(sm));
      const OffsetArray<uint8_t> memory(device, LeftBytes(type, count, kCols));
      const GemmLeft left = LayOutLeft(type, count, kCols, memory.get());
      ASSERT_TRUE(Succeeded(MakeLeft(device, {dx.get(), kCols}, Norm(), left)));
      CheckLeft(device, left, x, kCols);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaQuantizeActivations, RowsWithoutPadding) {
  std::mt19937_64 random = TestRandom(33);
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    for (const int64_t cols : {1, 7, 64, 301}) {
      const int64_t rows = 3, stride = cols + UniformInt(random, 0, 5);
      const Matrix x(random, rows, cols);
      const DeviceMatrix dx(device, x);
      for (const DType type : {DType::kE4M3, DType::kI8}) {
        const OffsetArray<uint8_t> codes(device, rows * stride, cols % 3);
        const OffsetArray<float> scales(device, rows);
        ASSERT_TRUE(Succeeded(QuantizeActivations(device, type, dx.rows(), Norm(), rows, cols,
                                                 codes.get(), stride, scales.get())));
        const std::vector<uint8_t> got = codes.Read();
        const std::vector<float> got_scales = scales.Read();
        std::vector<uint8_t> expected(cols);
        for (int64_t r = 0; r < rows; ++r) {
          EXPECT_EQ(got_scales[r], QuantizeRowReference(type, x.row(r), cols, expected.data()));
          ASSERT_EQ(std::memcmp(&got[r * stride], expected.data(), cols), 0) << cols;
          for (int64_t b = cols; b < stride; ++b) ASSERT_EQ(got[r * stride + b], kUntouched);
        }
      }
    }
  }
}

TEST(CudaSwiGlu, MatchesReference) {
  std::mt19937_64 random = TestRandom(34);
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    for (const int64_t cols : Widths(random)) {
      const bool aligned = UniformInt(random, 0, 1) == 0;
      const int64_t rows = cols > 1000 ? 1 : UniformInt(random, 1, 3);
      Matrix gate(random, rows, cols, 10, aligned), up(random, rows, cols);
      const float special[] = {0.0f, -0.0f, 88, -87, -88.8f, -104, 500, -500, FLT_MAX, -FLT_MAX};
      for (int64_t i = 0; i < std::min<int64_t>(cols, 10); ++i) gate.row(0)[i] = special[i];
      const DeviceMatrix dg(device, gate), du(device, up), dy(device, gate);
      ASSERT_TRUE(Succeeded(SwiGlu(device, dg.rows(), du.rows(), rows, cols, dy.rows())));
      const std::vector<float> y = dy.array.Read();
      std::vector<double> expected(cols);
      for (int64_t r = 0; r < rows; ++r) {
        SwiGluRowReference(gate.row(r), up.row(r), cols, expected.data());
        for (int64_t i = 0; i < cols; ++i) {
          if (std::isinf(static_cast<float>(expected[i]))) continue;
          // As elementwise.h says, and where silu underflows its absolute error times up.
          const double bound =
              std::fabs(expected[i]) * 0x1p-20 + std::fabs(up.row(r)[i]) * 0x1p-120 + FLT_TRUE_MIN;
          ASSERT_LE(std::fabs(y[r * gate.stride + i] - expected[i]), bound)
              << "sm_" << sm << " gate " << gate.row(r)[i] << " up " << up.row(r)[i];
        }
      }
      for (const DType type : kLeftTypes) {
        const OffsetArray<uint8_t> memory(device, LeftBytes(type, rows, cols));
        const GemmLeft left = LayOutLeft(type, rows, cols, memory.get());
        ASSERT_TRUE(Succeeded(SwiGluLeft(device, dg.rows(), du.rows(), left)));
        CheckLeft(device, left, y, gate.stride);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CudaSwiGlu, NaNStays) {
  Device& device = EmulatedDevice(80);
  const OffsetArray<float> gate(device, std::vector<float>{NAN, 1, 2, 3, INFINITY});
  const OffsetArray<float> up(device, std::vector<float>{1, NAN, 2, 0, 1});
  ASSERT_TRUE(Succeeded(SwiGlu(device, {gate.get(), 5}, {up.get(), 5}, 1, 5, {up.get(), 5})));
  const std::vector<float> y = up.Read();
  EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]));
  EXPECT_EQ(y[3], 0.0f);
  EXPECT_EQ(y[4], INFINITY);
}

TEST(CudaAdd, ExactSums) {
  std::mt19937_64 random = TestRandom(35);
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    for (const int64_t cols : Widths(random)) {
      const bool aligned = UniformInt(random, 0, 1) == 0;
      const int64_t rows = cols > 1000 ? 1 : UniformInt(random, 1, 5);
      const Matrix a(random, rows, cols, 1, aligned), b(random, rows, cols);
      const DeviceMatrix da(device, a), db(device, b);
      ASSERT_TRUE(Succeeded(Add(device, da.rows(), db.rows(), rows, cols, da.rows())));
      const std::vector<float> y = da.array.Read();
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < cols; ++i) {
          ASSERT_EQ(y[r * a.stride + i], a.row(r)[i] + b.row(r)[i]) << cols;
        }
        for (int64_t i = cols; i < a.stride; ++i) ASSERT_EQ(y[r * a.stride + i], a.row(r)[i]);
      }
    }
  }
}

TEST(CudaRopeAngles, MatchesF64) {
  std::mt19937_64 random = TestRandom(36);
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    for (const int64_t half : {8, 32, 64, 65, 128}) {
      // A sequence without rows in between, far positions, one row more than there are tokens.
      const std::vector<DeviceSequence> sequences = {
          {0, 0, UniformInt(random, 0, 5000), 2, 0}, {0, 0, 7, 0, 2},
          {0, 0, (int64_t{1} << 24) + 1, 1, 2},      {0, 0, (int64_t{1} << 40) - 1, 1, 3}};
      const int64_t rows = 5, stride = 2 * half + 1;
      std::vector<float> frequencies(half);
      for (int64_t i = 0; i < half; ++i) {
        frequencies[i] = std::pow(10000.0f, -static_cast<float>(i) / static_cast<float>(half));
      }
      const OffsetArray<DeviceSequence> ds(device, sequences);
      const OffsetArray<float> df(device, frequencies), angles(device, rows * stride);
      ASSERT_TRUE(Succeeded(RopeAngles(device, df.get(), half, ds.get(), 4, rows,
                                      {angles.get(), stride})));
      const std::vector<float> got = angles.Read();
      std::vector<uint8_t> bytes(got.size() * 4);
      std::memcpy(bytes.data(), got.data(), bytes.size());
      const int64_t positions[] = {sequences[0].start, sequences[0].start + 1,
                                   sequences[2].start, sequences[3].start};
      int64_t differ = 0;
      for (int64_t r = 0; r < 4; ++r) {
        for (int64_t i = 0; i < half; ++i) {
          const double angle = static_cast<float>(positions[r]) * frequencies[i];
          const auto cosine = static_cast<float>(std::cos(angle));
          const auto sine = static_cast<float>(std::sin(angle));
          const float c = got[r * stride + i], s = got[r * stride + half + i];
          // Two F64 results within 2^-50 of each other round to neighbours at worst.
          ASSERT_LE(std::fabs(c - cosine), std::fabs(cosine) * 0x1p-23 + 0x1p-50) << angle;
          ASSERT_LE(std::fabs(s - sine), std::fabs(sine) * 0x1p-23 + 0x1p-50) << angle;
          differ += (c != cosine) + (s != sine);
        }
        ASSERT_EQ(bytes[(r * stride + 2 * half) * 4], kUntouched);
      }
      EXPECT_LE(differ, 1) << "of " << 8 * half;
      for (int64_t b = 4 * stride * 4; b < 5 * stride * 4; ++b) ASSERT_EQ(bytes[b], kUntouched);
    }
  }
}

TEST(CudaRopeAngles, BeyondTheRangeIsNaN) {
  Device& device = EmulatedDevice(89);
  const OffsetArray<DeviceSequence> ds(device, std::vector<DeviceSequence>{{0, 0, 1, 1, 0}});
  const OffsetArray<float> df(device, std::vector<float>{0x1p45f, INFINITY, NAN, 0x1p44f});
  const OffsetArray<float> angles(device, 8);
  ASSERT_TRUE(Succeeded(RopeAngles(device, df.get(), 4, ds.get(), 1, 1, {angles.get(), 8})));
  const std::vector<float> got = angles.Read();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(got[i]) && std::isnan(got[4 + i])) << i;
  EXPECT_EQ(got[3], static_cast<float>(std::cos(0x1p44)));
  EXPECT_EQ(got[7], static_cast<float>(std::sin(0x1p44)));
}

TEST(CudaCopy, CopiesAndMeasures) {
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    const int64_t before = device.allocation_count();
    for (const int64_t words : {1, 255, 256, 1001}) {
      std::vector<uint8_t> from(words * 16);
      for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint8_t>(i * 7 + i / 256);
      const OffsetArray<uint8_t> src(device, from), dst(device, from.size());
      ASSERT_TRUE(Succeeded(Copy(device, dst.get(), src.get(), words * 16)));
      ASSERT_EQ(dst.Read(), from);
    }
    double rate = 0;
    ASSERT_TRUE(Succeeded(MeasureCopyBandwidth(device, 1 << 14, 2, &rate)));
    EXPECT_GT(rate, 0);
    EXPECT_EQ(device.allocation_count(), before);
  }
}

TEST(CudaRows, NothingToDo) {
  Device& device = EmulatedDevice(89);
  EXPECT_TRUE(Succeeded(RmsNorm(device, {0, 4}, {0, 1e-5f}, 0, 4, {0, 4})));
  EXPECT_TRUE(Succeeded(Add(device, {0, 4}, {0, 4}, 3, 0, {0, 4})));
  EXPECT_TRUE(Succeeded(SwiGlu(device, {0, 4}, {0, 4}, 0, 4, {0, 4})));
  EXPECT_TRUE(Succeeded(RopeAngles(device, 0, 4, 0, 0, 0, {0, 8})));
}

}  // namespace
}  // namespace nibble::cuda::elementwise
