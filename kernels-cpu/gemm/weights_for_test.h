// SPDX-License-Identifier: Apache-2.0
//
// Random canonical weights for tests and benchmarks: every format, and every finite code
// of it, not only those that a quantizer would produce.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels-cpu/gemm/canonical_storage.h"
#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/numerics/types.h"

namespace nibble {

inline std::vector<WeightFormat> AllWeightFormats() {
  std::vector<WeightFormat> formats = {{DType::kF32, DType::kNone, 0},
                                       {DType::kBF16, DType::kNone, 0},
                                       {DType::kF16, DType::kNone, 0}};
  for (const DType s : {DType::kE4M3, DType::kPow2, DType::kF16, DType::kBF16, DType::kF32}) {
    for (const int64_t group : {0, 32, 64, 128}) formats.push_back({DType::kI4, s, group});
  }
  for (const DType c : {DType::kI8, DType::kE4M3, DType::kE5M2, DType::kE3M2, DType::kE2M3}) {
    formats.push_back({c, DType::kF32, 0});
    formats.push_back({c, DType::kBF16, 16});
    formats.push_back({c, DType::kF16, 32});
  }
  return formats;
}

inline std::string Describe(const WeightFormat& f, int64_t rows, int64_t cols) {
  return "code " + std::to_string(int(f.code)) + " scale " + std::to_string(int(f.scale)) +
         " group " + std::to_string(f.group_size) + " shape " + std::to_string(rows) + " x " +
         std::to_string(cols);
}

// Scales within a few powers of two of 1/64, so that products stay comparable; of either sign where
// they may be.
template <class Random>
CanonicalStorage RandomWeights(Random& random, const WeightFormat& f, int64_t rows, int64_t cols) {
  CanonicalStorage c(f, rows, cols);
  std::normal_distribution<float> normal(0, 1);
  const auto put = [](std::vector<uint8_t>& to, int64_t index, int64_t bytes, uint32_t code) {
    std::memcpy(to.data() + index * bytes, &code, static_cast<size_t>(bytes));
  };
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < cols; ++k) {
      if (IsUnquantized(f.code)) {
        put(c.codes, r * cols + k, f.code == DType::kF32 ? 4 : 2, Encode(f.code, normal(random)));
        continue;
      }
      uint32_t code = static_cast<uint32_t>(random());
      if (f.code == DType::kI4 || IsSixBit(f.code)) {
        c.codes[r * f.CodeRowBytes(cols) + k / 2] |= uint8_t((code & 15) << (4 * (k % 2)));
        if (IsSixBit(f.code)) {
          c.codes_high[r * f.HighRowBytes(cols) + k / 4] |=
              uint8_t((code >> 4 & 3) << (2 * (k % 4)));
        }
        continue;
      }
      code &= 255;
      const float value = Decode(f.code, code);
      c.codes[r * cols + k] = value - value == 0 ? uint8_t(code) : 0;
    }
    for (int64_t g = 0; g < f.Groups(cols); ++g) {
      const int64_t index = r * f.Groups(cols) + g;
      const int e = int(random() % 5);
      if (f.scale == DType::kPow2) {
        c.scales[index] = uint8_t(e - 9 + int(random() % 11));
      } else {
        float scale = std::ldexp(1 + float(random() % 1000) / 1000, e - 8);
        if (f.scale != DType::kE4M3 && random() % 2 == 1) scale = -scale;
        put(c.scales, index, f.ScaleBytes(), Encode(f.scale, scale));
      }
    }
  }
  for (float& factor : c.factors) factor = 0.5f + float(random() % 1000) / 1000;
  return c;
}

}  // namespace nibble
