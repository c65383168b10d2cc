// SPDX-License-Identifier: Apache-2.0
//
// Weights through the ABI: sizes, round-to-nearest as nibble.h defines it, packing and back
// bit for bit, and every argument that is refused.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels-cpu/numerics/quantize.h"
#include "native/tests/canonical_matrix.h"

namespace nibble {
namespace {

const std::vector<std::pair<int64_t, int64_t>> kShapes = {{1, 1},   {1, 16},  {17, 5},
                                                          {16, 16}, {33, 47}, {5, 300}};

// The largest finite value that the ideal scale is taken from.
float MaxOf(int32_t code) {
  switch (code) {
    case NB_I4: return 7;
    case NB_I8: return 127;
    case NB_E3M2: return 28;
    case NB_E2M3: return 7.5f;
    case NB_E4M3: return 448;
    default: return 57344;
  }
}

float DecodeOne(int32_t dtype, uint32_t code) {
  float value = 0;
  if (dtype == NB_F32) {
    std::memcpy(&value, &code, 4);
  } else if (dtype == NB_POW2) {
    value = std::ldexp(1.0f, static_cast<int8_t>(code));
  } else {
    EXPECT_EQ(nb_decode(dtype, &code, 2, &value, 1), NB_OK);
  }
  return value;
}

uint32_t EncodeOne(int32_t dtype, float value) {
  uint32_t code = 0;
  if (dtype == NB_F32) {
    std::memcpy(&code, &value, 4);
  } else {
    EXPECT_EQ(nb_encode(dtype, &value, 1, &code, 2), NB_OK);
  }
  return code;
}

// The code of the stored scale for an ideal scale that is already divided by its factor.
uint32_t ScaleCode(int32_t type, float ideal) {
  if (type == NB_POW2) {
    if (ideal == 0) return static_cast<uint8_t>(-9);
    int e = -9;
    while (e < 5 && std::ldexp(1.0f, e) < ideal) ++e;
    return static_cast<uint8_t>(e);
  }
  if (ideal == 0) return 0;
  return std::max(1u, EncodeOne(type, ideal));
}

TEST(AbiMatrix, QuantizesAsTheHeaderSays) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(2);
  for (const nb_weight_format& f : AllFormats()) {
    if (f.scale_type == NB_NONE) continue;
    for (const auto& [rows, cols] : kShapes) {
      SCOPED_TRACE(FormatName(f) + " " + std::to_string(rows) + "x" + std::to_string(cols));
      std::vector<float> w = NormalValues(random, rows * cols, 0.05f);
      if (cols > 40) std::fill(w.begin(), w.begin() + 16, 0.0f);  // a group of zeros
      const CanonicalMatrix m = CanonicalMatrix::Quantize(context.get(), f, w, rows, cols);
      const int64_t group = f.group_size == 0 ? cols : f.group_size;
      const auto ideal = [&](int64_t r, int64_t begin) {
        float amax = 0;
        for (int64_t k = begin; k < std::min(begin + group, cols); ++k) {
          amax = std::max(amax, std::abs(w[r * cols + k]));
        }
        return amax / MaxOf(f.code_type);
      };
      const auto row_max = [&](int64_t r) {
        float best = 0;
        for (int64_t k = 0; k < cols; k += group) best = std::max(best, ideal(r, k));
        return best;
      };
      float matrix_factor = 1;
      if (f.code_type == NB_I4 && f.scale_type == NB_E4M3) {
        matrix_factor = 0;
        for (int64_t r = 0; r < rows; ++r) matrix_factor = std::max(matrix_factor, row_max(r));
        matrix_factor /= 56.0f;
        ASSERT_EQ(m.factors[0], matrix_factor);
      }
      for (int64_t r = 0; r < rows; ++r) {
        float factor = matrix_factor;
        if (f.scale_type == NB_POW2) {
          factor = row_max(r) / 32.0f;
          ASSERT_EQ(m.factors[r], factor) << "row " << r;
        }
        for (int64_t k = 0; k < cols; ++k) {
          const int64_t begin = k / group * group;
          float s = ideal(r, begin);
          if (s != 0) s /= factor;
          const uint32_t code = ScaleCode(f.scale_type, s);
          ASSERT_EQ(m.Scale(r, k / group), code) << "row " << r << " column " << k;
          const float stored = s == 0 ? 0 : DecodeOne(f.scale_type, code) * factor;
          const uint32_t expected =
              stored == 0 ? 0 : EncodeOne(f.code_type, w[r * cols + k] / stored);
          ASSERT_EQ(m.Code(r, k), expected) << "row " << r << " column " << k;
        }
      }
    }
  }
}

TEST(AbiMatrix, UnquantizedCodesConvert) {
  const ContextPtr context = MakeContext(1);
  std::mt19937_64 random = TestRandom(3);
  const std::vector<float> w = NormalValues(random, 5 * 7);
  for (const int32_t from : {NB_F32, NB_F16, NB_BF16}) {
    std::vector<uint8_t> source(w.size() * BytesOf(from));
    std::vector<float> exact(w.size());
    if (from == NB_F32) {
      std::memcpy(source.data(), w.data(), source.size());
      exact = w;
    } else {
      ASSERT_EQ(nb_encode(from, w.data(), 35, source.data(), 70), NB_OK);
      ASSERT_EQ(nb_decode(from, source.data(), 70, exact.data(), 35), NB_OK);
    }
    const nb_tensor t = Tensor(from, source.data(), {5, 7});
    for (const int32_t to : {NB_F32, NB_F16, NB_BF16}) {
      CanonicalMatrix m(Format(to), 5, 7);
      ASSERT_EQ(m.QuantizeFrom(context.get(), t), NB_OK) << nb_last_error();
      for (int64_t i = 0; i < 35; ++i) {
        EXPECT_EQ(m.Code(i / 7, i % 7), EncodeOne(to, exact[i])) << from << " to " << to;
      }
    }
  }
}

TEST(AbiMatrix, PackAndUnpackAreExactInverses) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(4);
  for (const nb_weight_format& f : AllFormats()) {
    for (const auto& [rows, cols] : kShapes) {
      SCOPED_TRACE(FormatName(f) + " " + std::to_string(rows) + "x" + std::to_string(cols));
      const CanonicalMatrix m = CanonicalMatrix::Random(f, rows, cols, random);
      const MatrixPtr packed = m.Pack(context.get());
      ASSERT_NE(packed, nullptr);
      nb_matrix_info info = {};
      info.struct_size = sizeof(info);
      ASSERT_EQ(nb_matrix_get_info(packed.get(), &info), NB_OK);
      EXPECT_EQ(info.rows, rows);
      EXPECT_EQ(info.cols, cols);
      EXPECT_EQ(std::memcmp(&info.format, &f, sizeof(f)), 0);
      EXPECT_GE(info.packed_bytes, static_cast<int64_t>(m.codes.size()));
      CanonicalMatrix back(f, rows, cols);
      ASSERT_EQ(back.UnpackFrom(context.get(), packed.get()), NB_OK) << nb_last_error();
      EXPECT_EQ(back.codes, m.codes);
      EXPECT_EQ(back.high, m.high);
      EXPECT_EQ(back.scales, m.scales);
      EXPECT_EQ(back.factors, m.factors);
      // Every weight, rounded once to F32.
      std::vector<float> values(rows * cols);
      const nb_tensor t = F32(values, {rows, cols});
      ASSERT_EQ(nb_matrix_dequantize(context.get(), packed.get(), &t), NB_OK);
      for (int64_t i = 0; i < rows * cols; ++i) {
        ASSERT_EQ(values[i], static_cast<float>(m.Value(i / cols, i % cols))) << i;
      }
    }
  }
}

TEST(AbiMatrix, QuantizeAndPackInOneCallIsTheSame) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(5);
  for (const nb_weight_format& f : AllFormats()) {
    SCOPED_TRACE(FormatName(f));
    const std::vector<float> w = NormalValues(random, 19 * 53);
    const CanonicalMatrix two = CanonicalMatrix::Quantize(context.get(), f, w, 19, 53);
    const MatrixPtr one = QuantizeMatrix(context.get(), f, w, 19, 53);
    CanonicalMatrix back(f, 19, 53);
    ASSERT_EQ(back.UnpackFrom(context.get(), one.get()), NB_OK);
    EXPECT_EQ(back.codes, two.codes);
    EXPECT_EQ(back.high, two.high);
    EXPECT_EQ(back.scales, two.scales);
    EXPECT_EQ(back.factors, two.factors);
  }
}

TEST(AbiMatrix, OutlivesItsContext) {
  MatrixPtr matrix;
  {
    const ContextPtr context = MakeContext(2);
    matrix = QuantizeMatrix(context.get(), Format(NB_I8, NB_F32), {1, 2, 3, 4}, 2, 2);
  }
  const ContextPtr other = MakeContext(1);
  std::vector<float> values(4);
  const nb_tensor t = F32(values, {2, 2});
  EXPECT_EQ(nb_matrix_dequantize(other.get(), matrix.get(), &t), NB_OK);
  EXPECT_EQ(values[3], 127 * (4 / 127.0f));
}

TEST(AbiMatrix, ZeroWeights) {
  const ContextPtr context = MakeContext(1);
  for (const nb_weight_format& f : AllFormats()) {
    SCOPED_TRACE(FormatName(f));
    const CanonicalMatrix m =
        CanonicalMatrix::Quantize(context.get(), f, std::vector<float>(6 * 33, 0.0f), 6, 33);
    for (const uint8_t c : m.codes) EXPECT_EQ(c, 0);
    for (const uint8_t c : m.high) EXPECT_EQ(c, 0);
    for (const uint8_t s : m.scales) EXPECT_EQ(s, f.scale_type == NB_POW2 ? 0xF7 : 0);
    for (const float t : m.factors) EXPECT_EQ(t, 0);
  }
}

// ---------------------------------------------------------------- refusals --

TEST(AbiMatrix, FormatsThatAreRefused) {
  const ContextPtr context = MakeContext(1);
  const std::vector<float> w(32);
  const nb_tensor t = F32(w, {2, 16});
  struct Case {
    nb_weight_format format;
    std::string part;
  };
  std::vector<Case> cases;
  for (const int64_t size : {0, -1, 16, 32}) {
    nb_weight_format f = Format(NB_I8, NB_F32);
    f.struct_size = size;
    cases.push_back({f, "format: struct_size is " + std::to_string(size)});
  }
  for (const int32_t code : {-1, 0, 10, 11, 12, 13, 99}) {
    cases.push_back({Format(code, NB_F32), "format.code_type: " + std::to_string(code)});
  }
  for (const int64_t group : {int64_t{-16}, int64_t{1}, int64_t{8}, int64_t{24},
                              std::numeric_limits<int64_t>::min(),
                              std::numeric_limits<int64_t>::max()}) {
    cases.push_back({Format(NB_I4, NB_E4M3, group), "format.group_size: " + std::to_string(group)});
  }
  const auto is_legal = [](int32_t code, int32_t scale) {
    if (code == NB_F32 || code == NB_F16 || code == NB_BF16) return scale == NB_NONE;
    if (code == NB_I4 && (scale == NB_E4M3 || scale == NB_POW2)) return true;
    return scale == NB_F16 || scale == NB_BF16 || scale == NB_F32;
  };
  int legal = 0;
  for (int32_t code = NB_F32; code <= NB_I8; ++code) {
    for (int32_t scale = -1; scale <= 13; ++scale) {
      const nb_weight_format f = Format(code, scale);
      if (is_legal(code, scale)) {
        EXPECT_EQ(nb_weight_sizes(&f, 1, 1, nullptr, nullptr, nullptr, nullptr), NB_OK);
        ++legal;
      } else {
        cases.push_back({f, "format.scale_type: " + std::to_string(scale)});
      }
    }
  }
  EXPECT_EQ(legal, 3 + 5 + 5 * 3);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.part);
    int64_t bytes = -7;
    ExpectFailure(nb_weight_sizes(&c.format, 2, 16, &bytes, &bytes, &bytes, &bytes),
                  NB_INVALID_ARGUMENT, "nb_weight_sizes", {c.part});
    EXPECT_EQ(bytes, -7);
    nb_matrix* matrix = reinterpret_cast<nb_matrix*>(&bytes);
    ExpectFailure(nb_matrix_quantize(context.get(), &c.format, &t, &matrix), NB_INVALID_ARGUMENT,
                  "nb_matrix_quantize", {c.part});
    EXPECT_EQ(matrix, nullptr);
    matrix = reinterpret_cast<nb_matrix*>(&bytes);
    ExpectFailure(nb_matrix_pack(context.get(), &c.format, 2, 16, &t, &t, &t, &t, &matrix),
                  NB_INVALID_ARGUMENT, "nb_matrix_pack", {c.part});
    EXPECT_EQ(matrix, nullptr);
    ExpectFailure(nb_quantize(context.get(), &c.format, &t, &t, &t, &t, &t), NB_INVALID_ARGUMENT,
                  "nb_quantize", {c.part});
  }
}

TEST(AbiMatrix, SizesAreExactOrRefused) {
  int64_t codes = 0, high = 0, scales = 0, factors = 0;
  const nb_weight_format six = Format(NB_E3M2, NB_F16, 16);
  ASSERT_EQ(nb_weight_sizes(&six, 3, 37, &codes, &high, &scales, &factors), NB_OK);
  EXPECT_EQ(codes, 3 * 19);
  EXPECT_EQ(high, 3 * 10);
  EXPECT_EQ(scales, 3 * 3 * 2);
  EXPECT_EQ(factors, 0);
  const nb_weight_format pow2 = Format(NB_I4, NB_POW2, 128);
  ASSERT_EQ(nb_weight_sizes(&pow2, 3, 37, &codes, &high, &scales, &factors), NB_OK);
  EXPECT_EQ(codes, 3 * 19);
  EXPECT_EQ(high, 0);
  EXPECT_EQ(scales, 3);
  EXPECT_EQ(factors, 3);
  const int64_t kMax = std::numeric_limits<int64_t>::max();
  for (const nb_weight_format& f : {Format(NB_I4, NB_E4M3, 16), Format(NB_F32), six}) {
    for (const int64_t bad : {int64_t{0}, int64_t{-1}, int64_t{1} << 31, int64_t{1} << 62, kMax,
                              std::numeric_limits<int64_t>::min()}) {
      ExpectFailure(nb_weight_sizes(&f, bad, 16, &codes, nullptr, nullptr, nullptr),
                    NB_INVALID_ARGUMENT, "nb_weight_sizes", {"rows: " + std::to_string(bad)});
      ExpectFailure(nb_weight_sizes(&f, 16, bad, &codes, nullptr, nullptr, nullptr),
                    NB_INVALID_ARGUMENT, "nb_weight_sizes", {"cols: " + std::to_string(bad)});
    }
    // Each size alone is fine, their product is not.
    ExpectFailure(nb_weight_sizes(&f, kMax >> 32, kMax >> 32, &codes, nullptr, nullptr, nullptr),
                  NB_INVALID_ARGUMENT, "nb_weight_sizes", {"overflow"});
  }
  // A group as large as an int64 goes is the whole row.
  const nb_weight_format wide = Format(NB_I8, NB_F32, kMax / 16 * 16);
  ASSERT_EQ(nb_weight_sizes(&wide, 2, 40, &codes, &high, &scales, &factors), NB_OK);
  EXPECT_EQ(scales, 8);
  ExpectFailure(nb_weight_sizes(nullptr, 1, 1, &codes, nullptr, nullptr, nullptr),
                NB_INVALID_ARGUMENT, "nb_weight_sizes", {"format: NULL"});
}

TEST(AbiMatrix, PartsThatTheFormatLacksMustBeNull) {
  const ContextPtr context = MakeContext(1);
  CanonicalMatrix m = CanonicalMatrix::Quantize(context.get(), Format(NB_I4, NB_F16),
                                                std::vector<float>(64, 1.0f), 4, 16);
  const nb_tensor codes = m.CodesTensor(), scales = m.ScalesTensor();
  const nb_weight_format f = m.format, plain = Format(NB_F16);
  nb_matrix* matrix = nullptr;
  ExpectFailure(
      nb_matrix_pack(context.get(), &f, 4, 16, &codes, &codes, &scales, nullptr, &matrix),
      NB_INVALID_ARGUMENT, "nb_matrix_pack", {"codes_high", "NULL was expected"});
  ExpectFailure(
      nb_matrix_pack(context.get(), &f, 4, 16, &codes, nullptr, &scales, &scales, &matrix),
      NB_INVALID_ARGUMENT, "nb_matrix_pack", {"factors", "NULL was expected"});
  std::vector<uint8_t> halves(4 * 32);
  const nb_tensor h = Tensor(NB_U8, halves.data(), {4, 32});
  ExpectFailure(
      nb_matrix_pack(context.get(), &plain, 4, 16, &h, nullptr, &scales, nullptr, &matrix),
      NB_INVALID_ARGUMENT, "nb_matrix_pack", {"scales", "NULL was expected"});
}

TEST(AbiMatrix, WeightsThatAreNotFiniteAreNamedAndNothingIsWritten) {
  const ContextPtr context = MakeContext(3);
  const float inf = std::numeric_limits<float>::infinity();
  for (const nb_weight_format& f : AllFormats()) {
    for (const int32_t type : {NB_F32, NB_F16, NB_BF16}) {
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), inf, -inf}) {
        SCOPED_TRACE(FormatName(f));
        std::vector<float> w(20 * 33, 0.5f);
        w[7 * 33 + 32] = bad;
        w[15 * 33 + 1] = bad;  // the first one is named, whichever thread finds which
        std::vector<uint8_t> source(w.size() * 4);
        if (type == NB_F32) {
          std::memcpy(source.data(), w.data(), source.size());
        } else {
          ASSERT_EQ(nb_encode(type, w.data(), 20 * 33, source.data(), 20 * 33 * 2), NB_OK);
        }
        const nb_tensor t = Tensor(type, source.data(), {20, 33});
        const std::string word = std::isnan(bad) ? "NaN" : "infinite";
        CanonicalMatrix m(f, 20, 33);
        const CanonicalMatrix before = m;
        ExpectFailure(m.QuantizeFrom(context.get(), t), NB_INVALID_ARGUMENT, "nb_quantize",
                      {"weights: element [7, 32] is " + word});
        EXPECT_EQ(m.codes, before.codes);
        EXPECT_EQ(m.high, before.high);
        EXPECT_EQ(m.scales, before.scales);
        EXPECT_EQ(m.factors, before.factors);
        nb_matrix* matrix = nullptr;
        ExpectFailure(nb_matrix_quantize(context.get(), &f, &t, &matrix), NB_INVALID_ARGUMENT,
                      "nb_matrix_quantize", {"weights: element [7, 32] is " + word});
        EXPECT_EQ(matrix, nullptr);
      }
    }
  }
}

TEST(AbiMatrix, BadCodesAndScalesAreRefused) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(6);
  const auto expect_refusal = [&](const CanonicalMatrix& m, const std::string& part) {
    SCOPED_TRACE(FormatName(m.format));
    nb_matrix* matrix = nullptr;
    ExpectFailure(m.PackInto(context.get(), &matrix), NB_INVALID_ARGUMENT, "nb_matrix_pack",
                  {part});
    EXPECT_EQ(matrix, nullptr);
  };
  for (const nb_weight_format& f : AllFormats()) {
    const CanonicalMatrix good = CanonicalMatrix::Random(f, 18, 40, random);
    const auto with_code = [&](uint32_t code) {
      CanonicalMatrix m = good;
      const int64_t bytes = static_cast<int64_t>(m.codes.size()) / (18 * 40);
      std::memcpy(m.codes.data() + (17 * 40 + 3) * bytes, &code, bytes);
      expect_refusal(m, "codes[17, 3] is ");
    };
    if (f.code_type == NB_E4M3) with_code(0x7F), with_code(0xFF);
    if (f.code_type == NB_E5M2) with_code(0x7D), with_code(0xFE), with_code(0x7C);
    if (f.code_type == NB_F16) with_code(0x7E00), with_code(0xFC00);
    if (f.code_type == NB_BF16) with_code(0x7FC0), with_code(0xFF80);
    if (f.code_type == NB_F32) with_code(0x7FC00000), with_code(0xFF800000);
    const auto with_scale = [&](uint32_t code) {
      CanonicalMatrix m = good;
      const int64_t bytes = BytesOf(f.scale_type), groups = m.Groups();
      std::memcpy(m.scales.data() + (16 * groups + groups - 1) * bytes, &code, bytes);
      expect_refusal(m, "scales[16, " + std::to_string(groups - 1) + "] is ");
    };
    if (f.scale_type == NB_E4M3) with_scale(0x7F), with_scale(0xFF), with_scale(0x81);
    if (f.scale_type == NB_POW2) with_scale(6), with_scale(0x80), with_scale(0xF6);
    if (f.scale_type == NB_F16) {
      with_scale(0x7E00), with_scale(0x7C00), with_scale(0xFC00), with_scale(0xFFFF);
    }
    if (f.scale_type == NB_BF16) {
      with_scale(0x7FC0), with_scale(0x7F80), with_scale(0xFF80), with_scale(0xFFFF);
    }
    if (f.scale_type == NB_F32) {
      with_scale(0x7FC00000), with_scale(0x7F800000), with_scale(0xFF800000);
    }
    if (!good.factors.empty()) {
      for (const float bad : {-1.0f, std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::quiet_NaN()}) {
        CanonicalMatrix m = good;
        m.factors.back() = bad;
        expect_refusal(m, "factors[" + std::to_string(m.factors.size() - 1) + "] is ");
      }
    }
  }
}

// The products of random signed scales are tested with all others; here the ends of the range, and
// that a turned sign turns every weight.
TEST(AbiMatrix, ScalesOfEitherSign) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(71);
  for (const nb_weight_format& f : AllFormats()) {
    if (f.scale_type != NB_F16 && f.scale_type != NB_BF16 && f.scale_type != NB_F32) continue;
    SCOPED_TRACE(FormatName(f));
    const int64_t n = 18, k = 40, bytes = BytesOf(f.scale_type);
    CanonicalMatrix m = CanonicalMatrix::Random(f, n, k, random), turned = m;
    std::vector<uint32_t> ends = {0x80000000, 0x80000001, 0x007FFFFF, 0x80800000, 0x7F7FFFFF,
                                  0xFF7FFFFF};
    if (f.scale_type == NB_F16) ends = {0x8000, 0x8001, 0x03FF, 0x8400, 0x7BFF, 0xFBFF};
    if (f.scale_type == NB_BF16) ends = {0x8000, 0x8001, 0x007F, 0x8080, 0x7F7F, 0xFF7F};
    for (size_t i = 0; i < ends.size(); ++i) {
      std::memcpy(m.scales.data() + i * bytes, &ends[i], static_cast<size_t>(bytes));
    }
    turned = m;
    for (size_t i = bytes - 1; i < turned.scales.size(); i += bytes) turned.scales[i] ^= 0x80;
    const MatrixPtr a = m.Pack(context.get()), b = turned.Pack(context.get());
    CanonicalMatrix back(f, n, k);
    ASSERT_EQ(back.UnpackFrom(context.get(), b.get()), NB_OK) << nb_last_error();
    EXPECT_TRUE(back.SameBits(turned));
    std::vector<float> x(n * k), y(n * k);
    const nb_tensor tx = F32(x, {n, k}), ty = F32(y, {n, k});
    ASSERT_EQ(nb_matrix_dequantize(context.get(), a.get(), &tx), NB_OK) << nb_last_error();
    ASSERT_EQ(nb_matrix_dequantize(context.get(), b.get(), &ty), NB_OK) << nb_last_error();
    for (int64_t i = 0; i < n * k; ++i) {
      EXPECT_EQ(x[i], static_cast<float>(m.Value(i / k, i % k))) << i;
      EXPECT_EQ(y[i], -x[i]) << i;
    }
  }
}

TEST(AbiMatrix, OverlappingOutputsAreRefused) {
  const ContextPtr context = MakeContext(1);
  std::vector<uint8_t> memory(4096, 0x11);
  const std::vector<uint8_t> before = memory;
  const auto u8 = [&](int64_t offset, int64_t rows, int64_t cols) {
    return Tensor(NB_U8, memory.data() + offset, {rows, cols});
  };
  const nb_weight_format f = Format(NB_E3M2, NB_F32);
  nb_tensor weights = Tensor(NB_F32, memory.data(), {4, 16});   // 0..255
  nb_tensor codes = u8(256, 4, 8);                              // 256..287
  nb_tensor high = u8(288, 4, 4);                               // 288..303
  nb_tensor scales = Tensor(NB_F32, memory.data() + 304, {4, 1});
  const auto quantize = [&] {
    return nb_quantize(context.get(), &f, &weights, &codes, &high, &scales, nullptr);
  };
  const auto refused = [&](nb_tensor& t, int64_t offset, const std::string& part) {
    const nb_tensor good = t;
    t.data = memory.data() + offset;
    ExpectFailure(quantize(), NB_INVALID_ARGUMENT, "nb_quantize", {part});
    EXPECT_EQ(memory, before);
    t = good;
  };
  refused(codes, 255, "codes: overlaps weights");
  refused(codes, 0, "codes: overlaps weights");
  refused(high, 240, "codes_high: overlaps weights");
  refused(high, 287, "codes_high: overlaps codes");
  refused(scales, 240, "scales: overlaps weights");
  refused(scales, 284, "scales: overlaps codes");
  refused(scales, 300, "scales: overlaps codes_high");
  EXPECT_EQ(quantize(), NB_OK) << nb_last_error();
}

TEST(AbiMatrix, NullHandles) {
  const ContextPtr context = MakeContext(1);
  std::vector<float> values(4);
  const nb_tensor t = F32(values, {2, 2});
  nb_matrix_info info = {};
  info.struct_size = sizeof(info);
  const nb_weight_format f = Format(NB_F32);
  EXPECT_EQ(nb_matrix_destroy(nullptr), NB_OK);
  ExpectFailure(nb_matrix_get_info(nullptr, &info), NB_INVALID_ARGUMENT, "nb_matrix_get_info",
                {"matrix: NULL"});
  ExpectFailure(nb_matrix_dequantize(context.get(), nullptr, &t), NB_INVALID_ARGUMENT,
                "nb_matrix_dequantize", {"matrix: NULL"});
  ExpectFailure(nb_matrix_unpack(context.get(), nullptr, &t, &t, &t, &t), NB_INVALID_ARGUMENT,
                "nb_matrix_unpack", {"matrix: NULL"});
  ExpectFailure(nb_matrix_quantize(context.get(), &f, &t, nullptr), NB_INVALID_ARGUMENT,
                "nb_matrix_quantize", {"matrix: NULL"});
  ExpectFailure(nb_matrix_pack(context.get(), &f, 2, 2, &t, nullptr, nullptr, nullptr, nullptr),
                NB_INVALID_ARGUMENT, "nb_matrix_pack", {"matrix: NULL"});
  const MatrixPtr matrix = QuantizeMatrix(context.get(), f, values, 2, 2);
  ExpectFailure(nb_matrix_get_info(matrix.get(), nullptr), NB_INVALID_ARGUMENT,
                "nb_matrix_get_info", {"info: NULL"});
  for (const int64_t size : {0, -1, 63, 65}) {
    info.struct_size = size;
    info.rows = -5;
    ExpectFailure(nb_matrix_get_info(matrix.get(), &info), NB_INVALID_ARGUMENT,
                  "nb_matrix_get_info", {"struct_size is " + std::to_string(size)});
    EXPECT_EQ(info.rows, -5);
  }
}

}  // namespace
}  // namespace nibble
