// SPDX-License-Identifier: Apache-2.0
//
// The exponential of the softmax against F64, over all magnitudes.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/attention/softmax_test.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/attention/softmax-inl.h"
#include "kernels-cpu/testing/kernel_test.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {  // the same names in other files are other functions

// n: a multiple of 16.
void Exp2Array(const float* x, int64_t n, float* y) {
  const TileF df;
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(df))) {
    hn::StoreU(Exp2(hn::LoadU(df, x + i)), df, y + i);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(Exp2Array);

namespace {

TEST(Softmax, Exp2IsWithinTwoRoundings) {
  // Every 499th float from -0 to -170.
  std::vector<float> x;
  const float last = -170;
  uint32_t last_bits;
  std::memcpy(&last_bits, &last, 4);
  for (uint32_t bits = 0x80000000u; bits < last_bits; bits += 499) {
    float value;
    std::memcpy(&value, &bits, 4);
    x.push_back(value);
  }
  while (x.size() % 16 != 0) x.push_back(-1);
  ForEachSimdTarget([&] {
    std::vector<float> y(x.size());
    HWY_DYNAMIC_DISPATCH(Exp2Array)(x.data(), static_cast<int64_t>(x.size()), y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = x[i] < -140 ? 0 : std::exp2(static_cast<double>(x[i]));
      ASSERT_LE(std::fabs(y[i] - exact), 2 * 0x1p-24 * exact + 0x1p-149) << "2^" << x[i];
    }
  });
}

TEST(Softmax, Exp2OfSpecialValues) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0.0f, -0.0f, -1.0f, -126.0f, -140.5f, -160.0f, -1e30f, -kInfinity,
                                NAN,  -NAN,  1.0f,  0.0f,    0.0f,    0.0f,    0.0f,   0.0f};
  const std::vector<float> expected = {1, 1, 0.5f, 0x1p-126f, 0, 0, 0, 0};
  ForEachSimdTarget([&] {
    float y[16];
    HWY_DYNAMIC_DISPATCH(Exp2Array)(x.data(), 16, y);
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(y[i], expected[i]) << "2^" << x[i];
    EXPECT_TRUE(std::isnan(y[8]));
    EXPECT_TRUE(std::isnan(y[9]));
    EXPECT_EQ(y[10], 2);
  });
}

}  // namespace
}  // namespace nibble
#endif  // HWY_ONCE
