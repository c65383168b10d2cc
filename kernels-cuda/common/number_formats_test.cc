// SPDX-License-Identifier: Apache-2.0
//
// decode.cuh, encode.cuh and the wrappers of ptx.cuh, on every target, against
// kernels-cpu/numerics/formats.h: all codes, all rounding boundaries.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/testing/kernel_test.h"
#include "kernels-cuda/elementwise/offset_array.h"

namespace nibble::cuda {
namespace {

constexpr char kModule[] = "number_formats";

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float FromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

LaunchShape Threads(int64_t count) {
  LaunchShape shape;
  shape.grid_x = static_cast<unsigned>(DivUp(count, 128));
  shape.block_x = 128;
  return shape;
}

// Words in which every element takes every code, beside changing neighbours.
std::vector<uint32_t> CodeWords() {
  std::mt19937_64 random = TestRandom(21);
  std::vector<uint32_t> words;
  for (uint32_t code = 0; code < 256; ++code) {
    for (int byte = 0; byte < 4; ++byte) {
      const auto others = static_cast<uint32_t>(random());
      words.push_back((others & ~(0xFFu << (8 * byte))) | code << (8 * byte));
    }
  }
  words.push_back(0);
  words.push_back(0xFFFFFFFFu);
  return words;
}

// One decoder of a word: where element i of its codes goes, and what is left out.
struct WordDecoder {
  const char* kernel;
  DType from, to;
  int code_bits;    // 4 or 8: elements follow one another from the low bits
  int words;        // of output
  bool interleaved;  // elements i and i + 4 in word i, else in their order
};

constexpr WordDecoder kWordDecoders[] = {
    {"i4x8_to_e4m3", DType::kI4, DType::kE4M3, 4, 2, false},
    {"i4x8_to_i8", DType::kI4, DType::kI8, 4, 2, false},
    {"i4x8_to_f16", DType::kI4, DType::kF16, 4, 4, true},
    {"i4x8_to_bf16", DType::kI4, DType::kBF16, 4, 4, true},
    {"e4m3x4_to_f16", DType::kE4M3, DType::kF16, 8, 2, false},
    {"e4m3x4_to_bf16", DType::kE4M3, DType::kBF16, 8, 2, false},
    {"e5m2x4_to_f16", DType::kE5M2, DType::kF16, 8, 2, false},
    {"e5m2x4_to_bf16", DType::kE5M2, DType::kBF16, 8, 2, false},
    {"e3m2x4_to_bf16", DType::kE3M2, DType::kBF16, 8, 2, false},
    {"e2m3x4_to_bf16", DType::kE2M3, DType::kBF16, 8, 2, false},
    {"i8x4_to_bf16", DType::kI8, DType::kBF16, 8, 2, false},
    {"e3m2x4_to_e4m3", DType::kE3M2, DType::kE4M3, 8, 1, false},
    {"e2m3x4_to_e4m3", DType::kE2M3, DType::kE4M3, 8, 1, false},
};

TEST(NumberFormats, WordDecodersOverAllCodes) {
  const std::vector<uint32_t> words = CodeWords();
  const auto count = static_cast<int64_t>(words.size());
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    const OffsetArray<uint32_t> codes(device, words);
    for (const WordDecoder& d : kWordDecoders) {
      const OffsetArray<uint32_t> to(device, words.size() * d.words);
      ASSERT_TRUE(Succeeded(LaunchKernel(device, {kModule, d.kernel}, Threads(count), codes.get(),
                                        count, to.get())));
      const std::vector<uint32_t> decoded = to.Read();
      const int out_bits = d.to == DType::kF16 || d.to == DType::kBF16 ? 16 : 8;
      const int in_word = 32 / out_bits;
      for (size_t w = 0; w < words.size(); ++w) {
        for (int i = 0; i < 32 / d.code_bits; ++i) {
          const uint32_t code = words[w] >> (d.code_bits * i) & ((1u << d.code_bits) - 1);
          const float value = Decode(d.from, code);
          if (!std::isfinite(value)) continue;
          const int word = d.interleaved ? i % 4 : i / in_word;
          const int place = d.interleaved ? i / 4 : i % in_word;
          const uint32_t got = decoded[w * d.words + word] >> (out_bits * place) &
                               ((out_bits == 16 ? 0x10000u : 0x100u) - 1);
          ASSERT_EQ(got, Encode(d.to, value))
              << d.kernel << " sm_" << sm << " word " << std::hex << words[w] << " element " << i;
        }
      }
    }
  }
}

TEST(NumberFormats, ScalarDecodersOverAllCodes) {
  constexpr int64_t kCodes = 65536;
  constexpr DType kTypes[] = {DType::kE4M3, DType::kE5M2, DType::kE3M2, DType::kE2M3,
                              DType::kI4,   DType::kF16,  DType::kBF16, DType::kBF16};
  constexpr uint32_t kMasks[] = {0xFF, 0xFF, 0x3F, 0x3F, 0xF, 0xFFFF, 0xFFFF, 0xFFFF};
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    const OffsetArray<float> to(device, kCodes * 8);
    ASSERT_TRUE(Succeeded(LaunchKernel(device, {kModule, "decode_scalars"}, Threads(kCodes),
                                      kCodes, to.get())));
    const std::vector<float> decoded = to.Read();
    for (uint32_t code = 0; code < kCodes; ++code) {
      for (int t = 0; t < 8; ++t) {
        const float expected = Decode(kTypes[t], code & kMasks[t]);
        const float got = decoded[8 * code + t];
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(got)) << "sm_" << sm << " code " << code << " type " << t;
        } else {
          ASSERT_EQ(Bits(got), Bits(expected)) << "sm_" << sm << " code " << code << " type " << t;
        }
      }
    }
  }
}

// Every value of a small format, every middle between neighbours, and the floats beside them;
// special values; random bits.
std::vector<float> EncoderInputs() {
  std::vector<float> values = {0.0f,     -0.0f,    INFINITY, -INFINITY, NAN,
                               FromBits(1), FromBits(0x80000001u), 3.4e38f,  -3.4e38f,
                               65504.0f, 65519.0f, 65520.0f, 127.5f,    -128.5f,
                               7.5f,     -8.5f,    1e10f,    -1e10f,    448.0f,
                               464.0f,   480.0f,   0x1p-10f, 0x1p-11f,  FromBits(0x7F7FFFFFu)};
  const auto around = [&values](float v) {
    for (const float x : {v, std::nextafterf(v, INFINITY), std::nextafterf(v, -INFINITY)}) {
      values.push_back(x);
      values.push_back(-x);
    }
  };
  for (uint32_t code = 0; code < 0x7E; ++code) {
    const float low = DecodeE4M3(static_cast<uint8_t>(code));
    const float high = DecodeE4M3(static_cast<uint8_t>(code + 1));
    around(low);
    around((low + high) / 2);
  }
  for (int i = -130; i <= 130; ++i) around(static_cast<float>(i) + 0.5f);
  for (uint32_t top = 0; top < 0x8000; top += 7) {  // around BF16's codes and middles
    for (const uint32_t low : {0u, 1u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      values.push_back(FromBits(top << 16 | low));
    }
  }
  std::mt19937_64 random = TestRandom(22);
  for (int i = 0; i < 5000; ++i) values.push_back(FromBits(static_cast<uint32_t>(random())));
  return values;
}

// The definition's code, or any NaN of a NaN.
bool IsBF16Of(uint32_t code, float value) {
  if (std::isnan(value)) return std::isnan(DecodeBF16(static_cast<uint16_t>(code)));
  return code == EncodeBF16(value);
}

TEST(NumberFormats, EncodersOverAllBoundaries) {
  const std::vector<float> values = EncoderInputs();
  const auto count = static_cast<int64_t>(values.size());
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    const OffsetArray<float> from(device, values);
    const OffsetArray<uint32_t> to(device, values.size() * 12);
    ASSERT_TRUE(Succeeded(LaunchKernel(device, {kModule, "encode_all"}, Threads(count), from.get(),
                                      count, to.get())));
    const std::vector<uint32_t> codes = to.Read();
    for (size_t i = 0; i < values.size(); ++i) {
      SCOPED_TRACE("sm_" + std::to_string(sm) + " value " + std::to_string(values[i]));
      const uint32_t* got = &codes[12 * i];
      float v[8];
      for (size_t k = 0; k < 8; ++k) v[k] = values[(i + k) % values.size()];
      ASSERT_TRUE(IsBF16Of(got[0], v[0])) << got[0];
      ASSERT_TRUE(IsBF16Of(got[1] & 0xFFFF, v[0]) && IsBF16Of(got[1] >> 16, v[1])) << got[1];
      // The one-instruction roundings promise their bits for values that stay finite.
      if (std::fabs(v[0]) < 3.3e38f) {
        ASSERT_EQ(got[2] & 0xFFFF, EncodeBF16(v[0]));
      }
      if (std::fabs(v[1]) < 3.3e38f) {
        ASSERT_EQ(got[2] >> 16, EncodeBF16(v[1]));
      }
      if (std::fabs(v[0]) <= 65504) {
        ASSERT_EQ(got[3] & 0xFFFF, EncodeF16(v[0]));
      }
      if (std::fabs(v[1]) <= 65504) {
        ASSERT_EQ(got[3] >> 16, EncodeF16(v[1]));
      }
      const auto e4m3 = [](float x, uint32_t code) {
        return std::isnan(x) ? (code & 0x7F) == 0x7F : code == EncodeE4M3(x);
      };
      ASSERT_TRUE(e4m3(v[0], got[4])) << got[4];
      ASSERT_TRUE(e4m3(v[0], got[5])) << got[5];
      for (int k = 0; k < 4; ++k) ASSERT_TRUE(e4m3(v[k], got[6] >> (8 * k) & 0xFF)) << got[6];
      if (!std::isnan(v[0])) {
        const uint32_t scale = EncodeE4M3(v[0]);
        ASSERT_EQ(got[7], scale == 0 && v[0] > 0 ? 1u : scale);
      }
      ASSERT_EQ(static_cast<int32_t>(got[8]), EncodeI8(v[0]));
      ASSERT_EQ(static_cast<int32_t>(got[9]), EncodeI4(v[0]));
      for (int k = 0; k < 4; ++k) {
        ASSERT_EQ(static_cast<int8_t>(got[10] >> (8 * k)), EncodeI8(v[k]));
      }
      for (int k = 0; k < 8; ++k) ASSERT_EQ(got[11] >> (4 * k) & 15, Encode(DType::kI4, v[k]));
    }
  }
}

struct Mma {
  const char* kernel;
  DType a, b;
  std::vector<int> targets;
};

// Whole numbers that every format here holds and whose sums are exact: what is tested is where
// each element of a fragment belongs.
TEST(NumberFormats, MmaFragmentsAreWhereTheCommentSays) {
  const std::vector<int> all = {80, 89, 90, 120};
  const Mma kinds[] = {
      {"mma_f16", DType::kF16, DType::kF16, all},
      {"mma_bf16", DType::kBF16, DType::kBF16, all},
      {"mma_i8", DType::kI8, DType::kI8, all},
      {"mma_e4m3", DType::kE4M3, DType::kE4M3, {89, 120}},
      {"mma_e3m2_e4m3", DType::kE3M2, DType::kE4M3, {120}},
      {"mma_e4m3_e3m2", DType::kE4M3, DType::kE3M2, {120}},
      {"mma_e2m3_e4m3", DType::kE2M3, DType::kE4M3, {120}},
      {"mma_e4m3_e2m3", DType::kE4M3, DType::kE2M3, {120}},
      {"mma_e4m3_e4m3", DType::kE4M3, DType::kE4M3, {120}},
  };
  std::mt19937_64 random = TestRandom(23);
  for (const Mma& mma : kinds) {
    const int bytes = mma.a == DType::kF16 || mma.a == DType::kBF16 ? 2 : 1;
    const int k_size = 32 / bytes;
    std::vector<uint8_t> a(16 * 32), b(8 * 32);
    std::vector<int> av(16 * k_size), bv(8 * k_size);
    const auto fill = [&](DType type, std::vector<uint8_t>& codes, std::vector<int>& values) {
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<int>(UniformInt(random, -7, 7));
        const uint32_t code = Encode(type, static_cast<float>(values[i]));
        std::memcpy(&codes[i * bytes], &code, bytes);
      }
    };
    fill(mma.a, a, av);
    fill(mma.b, b, bv);
    for (const int sm : Generations()) {
      if (std::find(mma.targets.begin(), mma.targets.end(), sm) == mma.targets.end()) continue;
      Device& device = EmulatedDevice(sm);
      const OffsetArray<uint8_t> da(device, a), db(device, b);
      const OffsetArray<uint32_t> to(device, 16 * 8);
      LaunchShape shape;
      shape.block_x = 32;
      ASSERT_TRUE(Succeeded(
          LaunchKernel(device, {kModule, mma.kernel}, shape, da.get(), db.get(), to.get())));
      const std::vector<uint32_t> c = to.Read();
      for (int m = 0; m < 16; ++m) {
        for (int n = 0; n < 8; ++n) {
          int sum = 0;
          for (int k = 0; k < k_size; ++k) sum += av[m * k_size + k] * bv[n * k_size + k];
          const uint32_t expected = mma.a == DType::kI8
                                        ? static_cast<uint32_t>(sum + 1)
                                        : Bits(static_cast<float>(sum) + 0.5f);
          ASSERT_EQ(c[m * 8 + n], expected) << mma.kernel << " sm_" << sm << " " << m << "," << n;
        }
      }
    }
  }
}

TEST(NumberFormats, CopiesAndMatrixLoads) {
  std::vector<uint8_t> from(512);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint8_t>(1 + i % 251);
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    const OffsetArray<uint8_t> source(device, from);
    for (const int valid : {16, 12, 9, 4, 1, 0}) {
      const OffsetArray<uint32_t> to(device, 14 * 32);
      LaunchShape shape;
      shape.block_x = 32;
      ASSERT_TRUE(Succeeded(LaunchKernel(device, {kModule, "move_matrices"}, shape, source.get(),
                                        valid, to.get())));
      const std::vector<uint32_t> r = to.Read();
      // Element (row, column) of matrix m, zeros where nothing was read.
      const auto element = [&](int m, int row, int column) {
        uint32_t value = 0;
        for (int b = 0; b < 2; ++b) {
          const int at = 2 * column + b;
          if (at < valid) value |= static_cast<uint32_t>(from[128 * m + 16 * row + at]) << (8 * b);
        }
        return value;
      };
      for (int lane = 0; lane < 32; ++lane) {
        const int major = lane / 4, minor = 2 * (lane % 4);
        for (int i = 0; i < 14; ++i) {
          constexpr int kMatrix[] = {0, 0, 1, 0, 1, 2, 3};
          const int m = kMatrix[i % 7];
          const uint32_t expected =
              i < 7 ? element(m, major, minor) | element(m, major, minor + 1) << 16
                    : element(m, minor, major) | element(m, minor + 1, major) << 16;
          ASSERT_EQ(r[14 * lane + i], expected)
              << "sm_" << sm << " valid " << valid << " lane " << lane << " result " << i;
        }
      }
    }
  }
}

TEST(NumberFormats, WarpReductions) {
  std::vector<float> values(32);
  std::mt19937_64 random = TestRandom(24);
  for (float& v : values) v = static_cast<float>(UniformInt(random, -100, 100));
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    const OffsetArray<float> from(device, values);
    const OffsetArray<float> to(device, 7 * 32);
    LaunchShape shape;
    shape.block_x = 32;
    ASSERT_TRUE(Succeeded(
        LaunchKernel(device, {kModule, "warp_reductions"}, shape, from.get(), to.get())));
    const std::vector<float> r = to.Read();
    for (int lane = 0; lane < 32; ++lane) {
      const auto over = [&](int lanes, float start, const std::function<float(float, float)>& f) {
        float x = start;
        for (int i = lane / lanes * lanes; i < lane / lanes * lanes + lanes; ++i) {
          x = f(x, values[i]);
        }
        return x;
      };
      const auto add = [](float a, float b) { return a + b; };
      const auto max = [](float a, float b) { return std::max(a, b); };
      const float* got = &r[7 * lane];
      EXPECT_EQ(got[0], over(32, 0, add));
      EXPECT_EQ(got[1], over(4, 0, add));
      EXPECT_EQ(got[2], over(32, -INFINITY, max));
      EXPECT_EQ(got[3], over(8, -INFINITY, max));
      EXPECT_EQ(got[4], over(32, 0, add));
      EXPECT_EQ(got[5], over(32, 0, [](float a, float b) { return std::max(a, std::fabs(b)); }));
      // 2 ulp, and whole numbers in the range are powers of two.
      EXPECT_NEAR(got[6] / std::exp2(values[lane]), 1, 0x1p-21);
    }
  }
}

}  // namespace
}  // namespace nibble::cuda
