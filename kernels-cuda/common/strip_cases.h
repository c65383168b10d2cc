// SPDX-License-Identifier: Apache-2.0
//
// What gemm_f6_test.cc and gemm_dense_test.cc check alike, on every target in the emulator.
#pragma once

#include <gtest/gtest.h>

#include "kernels-cpu/testing/kernel_test.h"
#include "kernels-cuda/common/strip_case.h"
#include "kernels-cuda/testing/emulated_device.h"
#include "kernels-cuda/testing/verification.h"

namespace nibble::cuda {

// Every scale type, groups that fill bricks, halves of them and neither.
inline std::vector<WeightFormat> ScaledFormats(DType code) {
  return {{code, DType::kF32, 0},   {code, DType::kBF16, 0}, {code, DType::kF16, 16},
          {code, DType::kF32, 32},  {code, DType::kBF16, 48}, {code, DType::kF16, 64},
          {code, DType::kF32, 128}, {code, DType::kF32, 80},  {code, DType::kBF16, 96}};
}

inline void ExpectInvertiblePacking(const GemmFamily& family,
                                    const std::vector<WeightFormat>& formats, uint64_t stream) {
  auto random = TestRandom(stream);
  for (const WeightFormat& f : formats) {
    for (int i = 0; i < 8; ++i) {
      const int64_t rows = i == 0 ? 1 : i == 1 ? 33 : UniformInt(random, 1, 150);
      const int64_t cols = i == 1 ? 1 : i == 2 ? 65 : UniformInt(random, 1, 300);
      SCOPED_TRACE(nibble::Describe(f, rows, cols));
      CanonicalStorage weights = RandomWeights(random, f, rows, cols);
      // Any bits come back, as long as they belong to a column.
      for (uint8_t& s : weights.scales) s = static_cast<uint8_t>(random());
      const std::vector<uint8_t> packed = PackAll(family, f, rows, cols, weights.view());
      CanonicalStorage back(f, rows, cols);
      std::fill(back.codes.begin(), back.codes.end(), uint8_t{0xFF});
      std::fill(back.codes_high.begin(), back.codes_high.end(), uint8_t{0xFF});
      for (int64_t b = 0; b < family.row_blocks(rows); ++b) {
        family.unpack(f, rows, cols, packed.data(), b, back.view());
      }
      if (!IsSixBit(f.code)) {
        ASSERT_EQ(back.codes, weights.codes);
      } else {
        // Bits beyond the last column are ignored and come back as zero: RandomWeights sets none.
        ASSERT_EQ(back.codes, weights.codes);
        ASSERT_EQ(back.codes_high, weights.codes_high);
        CanonicalStorage noisy = weights;
        for (int64_t r = 0; r < rows; ++r) {
          if (cols % 2 != 0) noisy.codes[(r + 1) * f.CodeRowBytes(cols) - 1] |= 0xF0;
          if (cols % 4 != 0) {
            noisy.codes_high[(r + 1) * f.HighRowBytes(cols) - 1] |=
                static_cast<uint8_t>(0xFF << (2 * (cols % 4)));
          }
        }
        ASSERT_EQ(PackAll(family, f, rows, cols, noisy.view()), packed);
      }
      ASSERT_EQ(back.scales, weights.scales);
    }
  }
}

// The canonical code of (row, column).
inline void SetCode(CanonicalStorage& w, const WeightFormat& f, int64_t cols, int64_t row,
                    int64_t col, uint32_t code) {
  if (!IsSixBit(f.code)) {
    w.codes[row * cols + col] = static_cast<uint8_t>(code);
    return;
  }
  w.codes[row * f.CodeRowBytes(cols) + col / 2] |=
      static_cast<uint8_t>((code & 15) << (4 * (col % 2)));
  w.codes_high[row * f.HighRowBytes(cols) + col / 4] |=
      static_cast<uint8_t>((code >> 4) << (2 * (col % 4)));
}

// Row r column k has a code that runs through all finite ones, and token m is the unit vector of
// column m: the result is the matrix, exactly, so that each code at each place is seen alone.
inline void ExpectEveryCode(int sm, const GemmFamily& family, DType code, DType activation,
                            uint64_t stream) {
  auto random = TestRandom(stream);
  Device& device = EmulatedDevice(sm);
  const WeightFormat f{code, DType::kF32, 0};
  const uint32_t codes = IsSixBit(code) ? 64 : 256;
  const int64_t n = 70, k = 80;  // 64 rows x 64 columns are whole, the rest are edges
  CanonicalStorage weights(f, n, k);
  const uint32_t start = static_cast<uint32_t>(random());
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < k; ++c) {
      const uint32_t any = (start + static_cast<uint32_t>(5 * r + 7 * c + r * c)) % codes;
      SetCode(weights, f, k, r, c, std::isfinite(Decode(code, any)) ? any : 0);
    }
    const float one = 1;
    std::memcpy(weights.scales.data() + 4 * r, &one, 4);
  }
  const int64_t bytes = activation == DType::kF32 ? 4 : activation == DType::kBF16 ? 2 : 1;
  const int64_t left_stride = 128;
  std::vector<uint8_t> left(static_cast<size_t>(k * left_stride * bytes));
  const float one = 1;
  uint32_t bits;
  std::memcpy(&bits, &one, 4);
  if (activation != DType::kF32) bits = Encode(activation, one);
  for (int64_t m = 0; m < k; ++m) {
    std::memcpy(left.data() + (m * left_stride + m) * bytes, &bits, static_cast<size_t>(bytes));
  }
  const StripMemory packed(device, PackAll(family, f, n, k, weights.view()));
  const StripMemory values(device, left);
  const StripMemory scales(device, std::vector<float>(static_cast<size_t>(k), 1.0f));
  const StripMemory result(device, std::vector<float>(static_cast<size_t>(k * n), NAN));
  const StripMemory partial(device, family.scratch_bytes(device, f, n, k, k));
  // All at once, and a few tokens at a time (the kernels for decoding).
  for (const int64_t step : {k, int64_t{5}}) {
    for (int64_t m = 0; m < k; m += step) {
      const GemmLeft a{activation, std::min(step, k - m), k,
                       values.at(m * left_stride * bytes), left_stride,
                       bytes == 1 ? scales.at() : 0};
      const GemmResult y{DType::kF32, result.at(m * n * 4), n, 0, 0, 0, 0};
      const Status status = family.run(device, {f, n, k, packed.at()}, a, y,
                                       {partial.at(), partial.bytes()});
      ASSERT_TRUE(status.ok()) << status.message();
    }
    std::vector<float> y(static_cast<size_t>(k * n));
    const Status status = device.CopyOut(y.data(), result.at(), k * n * 4);
    ASSERT_TRUE(status.ok()) << status.message();
    for (int64_t m = 0; m < k; ++m) {
      for (int64_t r = 0; r < n; ++r) {
        ASSERT_EQ(y[m * n + r], WeightValue(f, k, weights.view(), r, m))
            << "sm " << sm << " activation " << int(activation) << " "
            << nibble::Describe(f, n, k) << " row " << r << " column " << m;
      }
    }
    ASSERT_TRUE(device.Fill(result.at(), 0xFF, k * n * 4).ok());
  }
}

inline void ExpectExactRows(int sm, const GemmFamily& family,
                            const std::vector<WeightFormat>& formats, uint64_t stream) {
  auto random = TestRandom(stream);
  for (const WeightFormat& f : formats) {
    const int64_t rows = UniformInt(random, 1, 80), cols = UniformInt(random, 1, 1400);
    EXPECT_EQ(CheckStripRows(EmulatedDevice(sm), family, random, f, rows, cols), "") << "sm " << sm;
  }
}

inline void Check(int sm, const GemmFamily& family, std::mt19937_64& random, const StripCase& c) {
  EXPECT_EQ(CheckStripCase(EmulatedDevice(sm), family, random, c), "") << "sm " << sm;
}

// Each format once, with every option of the epilogue in turn; few and many tokens in turn.
inline void CheckRandomShapes(int sm, const GemmFamily& family,
                              const std::vector<WeightFormat>& formats, DType activation,
                              uint64_t stream) {
  auto random = TestRandom(stream * 1000 + static_cast<uint64_t>(sm) * 10 +
                           static_cast<uint64_t>(activation));
  int i = static_cast<int>(random() % 60);
  for (int round = 0; round < TestRounds(); ++round) {
    for (const WeightFormat& f : formats) {
      for (const bool few : {true, false}) {
        StripCase c;
        c.format = f;
        c.activation = activation;
        c.m = few ? UniformInt(random, 1, 8) : UniformInt(random, 9, 70);
        c.n = UniformInt(random, 1, 100);
        c.k = UniformInt(random, 1, 330);
        c.pair = i % 3 == 0;
        c.bias = i % 2 == 0;
        c.residual = !c.pair && i % 4 == 1;
        c.in_place = !c.pair && i % 8 == 5;
        c.bf16_result = !c.in_place && i % 5 == 2;
        c.exact = i % 7 != 0 && !c.pair && !c.bf16_result;
        c.odd = i % 4 < 2;
        Check(sm, family, random, c);
        ++i;
      }
    }
  }
}

inline void CheckTileEdges(int sm, const GemmFamily& family, const WeightFormat& f,
                           DType activation, uint64_t stream) {
  auto random = TestRandom(stream * 1000 + static_cast<uint64_t>(sm));
  StripCase c;
  c.format = f;
  c.activation = activation;
  for (const int64_t m : {1, 7, 8, 9, 31, 32, 33, 47, 48, 49, 63, 64, 65}) {
    c.m = m;
    c.n = 33;
    c.k = 40;
    Check(sm, family, random, c);
  }
  for (const int64_t n : {1, 4, 31, 32, 33, 63, 65, 255, 256, 257}) {
    c.m = n % 2 == 0 ? 3 : 10;
    c.n = n;
    c.k = 24;
    c.bias = true;
    c.pair = n == 31 || n == 33;
    c.exact = !c.pair;
    Check(sm, family, random, c);
  }
  c.pair = c.bias = false;
  c.exact = true;
  for (const int64_t k : {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 255, 257}) {
    c.m = k % 2 == 0 ? 2 : 12;
    c.n = 34;
    c.k = k;
    Check(sm, family, random, c);
  }
}

// K long enough that small grids are split over several blocks, and pipelines turn.
inline void CheckSplits(int sm, const GemmFamily& family, const WeightFormat& f,
                        DType activation, uint64_t stream) {
  auto random = TestRandom(stream * 1000 + static_cast<uint64_t>(sm) * 10 +
                           static_cast<uint64_t>(activation));
  for (const int64_t m : {1, 3, 20}) {
    StripCase c;
    c.format = f;
    c.activation = activation;
    c.m = m;
    c.n = UniformInt(random, 30, 50);
    c.k = UniformInt(random, 1800, 2100);
    c.pair = m == 3;
    c.bias = true;
    c.residual = !c.pair;
    c.exact = m == 1;
    Check(sm, family, random, c);
  }
}

// A token whose scale or one of whose activations is NaN must not reach another.
inline void CheckNaN(int sm, const GemmFamily& family, const WeightFormat& f, DType activation,
                     uint64_t stream) {
  auto random = TestRandom(stream);
  for (const int64_t m : {4, 40}) {
    StripCase c;
    c.format = f;
    c.activation = activation;
    c.m = m;
    c.n = 40;
    c.k = 90;
    c.nan_token = m / 2;
    Check(sm, family, random, c);
  }
}

// FP8 products as hardware sums them.
inline void CheckTruncated(int sm, const GemmFamily& family, const WeightFormat& f,
                           uint64_t stream) {
  auto random = TestRandom(stream);
  const emulator::Options before = emulator::GetOptions();
  emulator::Options options = before;
  options.fp8_accumulation = emulator::Accumulation::kTruncated;
  emulator::SetOptions(options);
  for (const int64_t m : {2, 50}) {
    StripCase c;
    c.format = f;
    c.activation = DType::kE4M3;
    c.m = m;
    c.n = 64;
    c.k = 500;
    c.exact = false;
    c.truncated = true;
    Check(sm, family, random, c);
  }
  emulator::SetOptions(before);
}

inline void ExpectSameBits(int sm, const GemmFamily& family, const WeightFormat& f,
                           DType activation, uint64_t stream) {
  auto random = TestRandom(stream);
  Device& device = EmulatedDevice(sm);
  StripCase c;
  c.format = f;
  c.activation = activation;
  c.m = 10;
  c.n = 40;
  c.k = 900;
  c.exact = false;
  CanonicalStorage weights = RandomWeights(random, f, c.n, c.k);
  const StripLeft left(random, c);
  const StripMemory packed(device, PackAll(family, f, c.n, c.k, weights.view()));
  const StripMemory values(device, left.memory), scales(device, left.scales);
  const StripMemory partial(device, family.scratch_bytes(device, f, c.n, c.k, c.m));
  std::vector<float> first;
  for (int i = 0; i < 3; ++i) {
    std::vector<float> y(static_cast<size_t>(c.m * c.n));
    const StripMemory result(device, y);
    const GemmLeft a{activation, c.m, c.k, values.at(), left.stride,
                     left.scales.empty() ? 0 : scales.at()};
    const GemmResult out{DType::kF32, result.at(), c.n, 0, 0, 0, 0};
    Status status = family.run(device, {f, c.n, c.k, packed.at()}, a, out,
                               {partial.at(), partial.bytes()});
    if (status.ok()) status = device.CopyOut(y.data(), result.at(), result.bytes());
    ASSERT_TRUE(status.ok()) << status.message();
    if (first.empty()) first = y;
    EXPECT_EQ(first, y) << "sm " << sm;
  }
}

inline void ExpectRefusals(const GemmFamily& family, const WeightFormat& f, DType activation) {
  Device& device = EmulatedDevice(80);
  const DeviceWeights weights{f, 8, 64, 0};
  GemmLeft left{activation, 2, 32, 0, 128, 0};
  const GemmResult result{DType::kF32, 0, 8, 0, 0, 0, 0};
  EXPECT_EQ(family.run(device, weights, left, result, {0, 0}).code(), NB_INVALID_ARGUMENT);
  left.cols = 64;
  DeviceWeights other = weights;
  other.rows = 9;
  EXPECT_EQ(family.run_swiglu(device, weights, other, left, result, {0, 0}).code(),
            NB_INVALID_ARGUMENT);
  left.rows = 0;
  EXPECT_EQ(family.run(device, weights, left, result, {0, 0}).code(), NB_INVALID_ARGUMENT);
  left.rows = 2;
  left.type = DType::kF16;
  EXPECT_EQ(family.run(device, weights, left, result, {0, 0}).code(), NB_UNSUPPORTED);
  // Too little scratch for a product that is split.
  const DeviceWeights deep{f, 8, 4096, 0};
  left.type = activation;
  left.cols = 4096;
  EXPECT_EQ(family.run(device, deep, left, result, {0, 0}).code(), NB_INVALID_ARGUMENT);
}

}  // namespace nibble::cuda
