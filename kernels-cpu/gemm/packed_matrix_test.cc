// SPDX-License-Identifier: Apache-2.0
//
// Packing and unpacking are bit-exact over every format, odd shapes and every code.
#include "kernels-cpu/gemm/packed_matrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels-cpu/testing/kernel_test.h"
#include "kernels-cpu/gemm/canonical_storage.h"
#include "kernels-cpu/gemm/weights_for_test.h"
#include "kernels-cpu/testing/guarded_buffer.h"
#include "kernels-cpu/numerics/quantize.h"
#include "kernels-cpu/numerics/tile.h"

namespace nibble {
namespace {

TEST(PackedMatrix, UnpackIsTheInverseOfPack) {
  auto random = TestRandom(21);
  ThreadPool pool(3);
  for (const WeightFormat& f : AllWeightFormats()) {
    for (const int64_t rows : {int64_t{1}, int64_t{16}, UniformInt(random, 2, 70)}) {
      const int64_t cols = UniformInt(random, 1, 600);
      CanonicalStorage in = RandomWeights(random, f, rows, cols);
      const PackedMatrix m = PackMatrix(pool, f, rows, cols, in.view());
      CanonicalStorage out(f, rows, cols);
      UnpackMatrix(pool, m, out.view());
      ASSERT_EQ(in.codes, out.codes) << Describe(f, rows, cols);
      ASSERT_EQ(in.codes_high, out.codes_high) << Describe(f, rows, cols);
      ASSERT_EQ(in.scales, out.scales) << Describe(f, rows, cols);
      ASSERT_EQ(in.factors, out.factors) << Describe(f, rows, cols);
      std::vector<float> row(cols);
      for (int64_t r = 0; r < rows; ++r) {
        DequantizeRow(m, r, row.data());
        for (int64_t k = 0; k < cols; ++k) {
          ASSERT_EQ(row[k], static_cast<float>(WeightValue(f, cols, in.view(), r, k)))
              << Describe(f, rows, cols);
        }
      }
    }
  }
}

// The packed bytes themselves, against the definition code by code (SetTileCode).
TEST(PackedMatrix, BytesAreTheLayoutCodeByCode) {
  auto random = TestRandom(23);
  ThreadPool pool(2);
  for (const WeightFormat& f : AllWeightFormats()) {
    const int64_t rows = UniformInt(random, 1, 50), cols = UniformInt(random, 1, 600);
    CanonicalStorage in = RandomWeights(random, f, rows, cols);
    const PackedMatrix m = PackMatrix(pool, f, rows, cols, in.view());
    const Segment& last = m.segments.back();
    EXPECT_EQ(RoundUp(last.codes_offset + TileBytes(f.code, last.columns), 64), m.panel_bytes)
        << Describe(f, rows, cols);
    for (int64_t p = 0; p < m.panels(); ++p) {
      std::vector<uint8_t> expected(m.panel_bytes, 0);
      for (const Segment& s : m.segments) {
        ClearTile(f.code, expected.data() + s.codes_offset, s.columns);
        for (int64_t r = p * kPanelRows; r < std::min(rows, (p + 1) * kPanelRows); ++r) {
          for (int64_t k = s.column; k < std::min(cols, s.column + s.columns); ++k) {
            uint32_t code = 0;
            if (f.code == DType::kI4 || IsSixBit(f.code)) {
              code = in.codes[r * f.CodeRowBytes(cols) + k / 2] >> (4 * (k % 2)) & 15;
              if (IsSixBit(f.code)) {
                const uint8_t high = in.codes_high[r * f.HighRowBytes(cols) + k / 4];
                code |= (high >> (2 * (k % 4)) & 3u) << 4;
              }
            } else {
              const int64_t bytes = f.CodeRowBytes(1);
              std::memcpy(&code, in.codes.data() + (r * cols + k) * bytes, bytes);
            }
            SetTileCode(f.code, expected.data() + s.codes_offset, r % kPanelRows, k - s.column,
                        code);
          }
          if (f.ScaleBytes() == 0) continue;
          std::memcpy(expected.data() + s.scales_offset + r % kPanelRows * f.ScaleBytes(),
                      in.scales.data() + (r * f.Groups(cols) + s.group) * f.ScaleBytes(),
                      f.ScaleBytes());
        }
      }
      ASSERT_EQ(std::memcmp(expected.data(), m.panel(p), m.panel_bytes), 0)
          << Describe(f, rows, cols) << " panel " << p;
    }
  }
}

TEST(PackedMatrix, QuantizingAPanelAtATimeIsQuantizingAndPacking) {
  auto random = TestRandom(24);
  for (const WeightFormat& f : AllWeightFormats()) {
    const int64_t rows = UniformInt(random, 1, 90), cols = UniformInt(random, 1, 400);
    const std::vector<float> w = NormalValues(random, rows * (cols + 3), 0.05f);
    ThreadPool one(1);
    CanonicalStorage c(f, rows, cols);
    ASSERT_EQ(QuantizeWeights(one, f, DType::kF32, w.data(), rows, cols, cols + 3, c.view()), "");
    const PackedMatrix expected = PackMatrix(one, f, rows, cols, c.view());
    for (const int threads : {1, 2, 3, 7}) {
      ThreadPool pool(threads);
      PackedMatrix m;
      ASSERT_EQ(QuantizeAndPackMatrix(pool, f, DType::kF32, w.data(), rows, cols, cols + 3, &m),
                "");
      ASSERT_EQ(std::memcmp(m.data.data(), expected.data.data(), expected.data.size()), 0)
          << Describe(f, rows, cols) << " threads " << threads;
      ASSERT_EQ(std::memcmp(m.factors.data(), expected.factors.data(), expected.factors.size()), 0);
    }
  }
}

TEST(PackedMatrix, QuantizingNamesTheFirstElementThatIsNotFinite) {
  for (const WeightFormat& f : AllWeightFormats()) {
    std::vector<float> w(90 * 20, 1.0f);
    w[71 * 20 + 2] = INFINITY;
    w[37 * 20 + 3] = NAN;
    ThreadPool pool(4);
    PackedMatrix m;
    EXPECT_EQ(QuantizeAndPackMatrix(pool, f, DType::kF32, w.data(), 90, 20, 20, &m),
              "element [37, 3] is NaN but a finite number was expected");
    EXPECT_EQ(m.data.data(), nullptr);
  }
}

TEST(PackedMatrix, SizeIsWhatTheLayoutSays) {
  ThreadPool pool(1);
  auto random = TestRandom(22);
  // Eight groups of 16 scale bytes and 16 x 128 half bytes.
  const WeightFormat f{DType::kI4, DType::kE4M3, 128};
  CanonicalStorage c = RandomWeights(random, f, 64, 1024);
  const PackedMatrix m = PackMatrix(pool, f, 64, 1024, c.view());
  EXPECT_EQ(m.panel_bytes, 8 * (16 + 128 * 16 / 2));
  EXPECT_EQ(m.packed_bytes(), 4 * (m.panel_bytes + 64));
}

}  // namespace
}  // namespace nibble
