// SPDX-License-Identifier: Apache-2.0
//
// Packing and unpacking are bit-exact over every format, odd shapes and every code.
#include "kernels-cpu/gemm/packed_matrix.h"

#include <gtest/gtest.h>

#include "kernels-cpu/testing/kernel_test.h"
#include "kernels-cpu/gemm/canonical_storage.h"
#include "kernels-cpu/gemm/weights_for_test.h"
#include "kernels-cpu/testing/guarded_buffer.h"
#include "kernels-cpu/numerics/quantize.h"

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
