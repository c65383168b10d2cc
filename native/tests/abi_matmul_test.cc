// SPDX-License-Identifier: Apache-2.0
//
// nb_matmul and nb_swiglu_matmul against F64, for every format and activation, and what
// they refuse.
#include <cmath>
#include <cstring>
#include <limits>

#include "native/tests/canonical_matrix.h"

namespace nibble {
namespace {

constexpr double kUnit = 1.0 / (1 << 24);  // unit roundoff of F32

// x as the product sees it: normalized and rounded to the activation type, in F64.
std::vector<double> Rounded(nb_context* context, int32_t activation, const std::vector<float>& x,
                            const std::vector<float>* norm, int64_t rows, int64_t cols) {
  const nb_tensor xt = F32(x, {rows, cols});
  nb_tensor nt = {};
  if (norm != nullptr) nt = F32(*norm, {cols});
  std::vector<double> result(x.size());
  if (activation == NB_E4M3 || activation == NB_I8) {
    std::vector<uint8_t> codes(x.size());
    std::vector<float> scales(rows), values(x.size());
    const nb_tensor ct = Tensor(NB_U8, codes.data(), {rows, cols}), st = F32(scales, {rows});
    EXPECT_EQ(nb_quantize_activations(context, activation, &xt, norm ? &nt : nullptr, 1e-5f, &ct,
                                      &st),
              NB_OK)
        << nb_last_error();
    EXPECT_EQ(nb_decode(activation, codes.data(), rows * cols, values.data(), rows * cols), NB_OK);
    for (size_t i = 0; i < x.size(); ++i) {
      result[i] = static_cast<double>(values[i]) * scales[i / cols];
    }
    return result;
  }
  std::vector<float> values = x;
  if (norm != nullptr) {
    const nb_tensor vt = F32(values, {rows, cols});
    EXPECT_EQ(nb_rms_norm(context, &xt, &nt, 1e-5f, &vt), NB_OK) << nb_last_error();
  }
  if (activation == NB_BF16) {
    std::vector<uint16_t> codes(x.size());
    const auto n = static_cast<int64_t>(x.size());
    EXPECT_EQ(nb_encode(NB_BF16, values.data(), n, codes.data(), 2 * n), NB_OK);
    EXPECT_EQ(nb_decode(NB_BF16, codes.data(), 2 * n, values.data(), n), NB_OK);
  }
  for (size_t i = 0; i < x.size(); ++i) result[i] = values[i];
  return result;
}

struct Sum {
  double value = 0;
  double magnitude = 0;  // sum of |terms|
};

Sum Dot(const std::vector<double>& x, int64_t row, const CanonicalMatrix& w, int64_t n) {
  Sum s;
  for (int64_t k = 0; k < w.cols; ++k) {
    const double term = x[row * w.cols + k] * w.Value(n, k);
    s.value += term;
    s.magnitude += std::abs(term);
  }
  return s;
}

// How far an F32 sum of K exact products may be from the exact one. Each of the K additions
// rounds once; the weight's scale, its factor, the token's scale, the bias and the residual
// round once more each, and a scaled weight may have been rounded: K + 8 roundings, each of
// at most the unit roundoff of the sum of magnitudes.
double Tolerance(const Sum& s, int64_t cols) {
  return static_cast<double>(cols + 8) * kUnit * s.magnitude + 1e-30;
}

bool HasKernel(int32_t code, int32_t activation) {
  return activation != NB_I8 || code == NB_I4 || code == NB_I8;
}

TEST(AbiMatMul, EveryFormatAndActivationAgainstF64) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(10);
  constexpr int64_t kN = 21;
  for (const nb_weight_format& f : AllFormats()) {
    for (const int32_t activation : {NB_F32, NB_BF16, NB_E4M3, NB_I8}) {
      if (!HasKernel(f.code_type, activation)) continue;
      for (const int64_t rows : {1, 3, 14}) {
        const int64_t cols = rows == 3 ? 300 : 75;
        SCOPED_TRACE(FormatName(f) + " activation " + std::to_string(activation) + " rows " +
                     std::to_string(rows));
        const CanonicalMatrix w = CanonicalMatrix::Quantize(
            context.get(), f, NormalValues(random, kN * cols, 0.1f), kN, cols);
        const MatrixPtr matrix = w.Pack(context.get());
        const std::vector<float> x = NormalValues(random, rows * cols);
        const std::vector<float> norm = NormalValues(random, cols);
        const bool normalized = rows != 1;
        const std::vector<float> bias = NormalValues(random, kN);
        std::vector<float> y = NormalValues(random, rows * kN);  // also the residual
        const std::vector<float> residual = y;
        const nb_tensor xt = F32(x, {rows, cols}), nt = F32(norm, {cols}), bt = F32(bias, {kN}),
                        yt = F32(y, {rows, kN});
        const nb_projection p = {matrix.get(), &bt, &yt, &yt};
        ASSERT_EQ(nb_matmul(context.get(), activation, &xt, normalized ? &nt : nullptr, 1e-5f, &p,
                            1),
                  NB_OK)
            << nb_last_error();
        const std::vector<double> rounded =
            Rounded(context.get(), activation, x, normalized ? &norm : nullptr, rows, cols);
        for (int64_t i = 0; i < rows * kN; ++i) {
          Sum s = Dot(rounded, i / kN, w, i % kN);
          const double expected = s.value + bias[i % kN] + residual[i];
          s.magnitude += std::abs(bias[i % kN]) + std::abs(residual[i]);
          ASSERT_NEAR(y[i], expected, Tolerance(s, cols)) << "element " << i;
        }
      }
    }
  }
}

TEST(AbiMatMul, SeveralProjectionsAreThoseOfSeparateCalls) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(11);
  const int64_t cols = 64, rows = 5;
  const std::vector<float> x = NormalValues(random, rows * cols), norm = NormalValues(random, cols);
  const nb_tensor xt = F32(x, {rows, cols}), nt = F32(norm, {cols});
  std::vector<MatrixPtr> matrices;
  std::vector<std::vector<float>> together, apart;
  std::vector<nb_tensor> together_t(8);
  std::vector<nb_projection> projections;
  for (int i = 0; i < 8; ++i) {
    const int64_t n = 3 + 15 * i;
    const nb_weight_format f =
        i % 2 == 0 ? Format(NB_I4, NB_E4M3, 32) : Format(NB_I8, NB_F32);
    matrices.push_back(
        QuantizeMatrix(context.get(), f, NormalValues(random, n * cols), n, cols));
    together.emplace_back(rows * n);
    apart.emplace_back(rows * n);
  }
  for (int i = 0; i < 8; ++i) {
    together_t[i] = F32(together[i], {rows, 3 + 15 * i});
    projections.push_back({matrices[i].get(), nullptr, nullptr, &together_t[i]});
  }
  for (const int32_t activation : {NB_E4M3, NB_I8}) {
    ASSERT_EQ(nb_matmul(context.get(), activation, &xt, &nt, 1e-6f, projections.data(), 8), NB_OK);
    for (int i = 0; i < 8; ++i) {
      const nb_tensor t = F32(apart[i], {rows, 3 + 15 * i});
      const nb_projection p = {matrices[i].get(), nullptr, nullptr, &t};
      ASSERT_EQ(nb_matmul(context.get(), activation, &xt, &nt, 1e-6f, &p, 1), NB_OK);
      EXPECT_EQ(together[i], apart[i]) << i;
    }
  }
}

TEST(AbiMatMul, SwiGluAgainstF64) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(12);
  constexpr int64_t kN = 37, kCols = 96;
  for (const nb_weight_format& f : AllFormats()) {
    for (const int32_t activation : {NB_F32, NB_BF16, NB_E4M3, NB_I8}) {
      if (!HasKernel(f.code_type, activation)) continue;
      const int64_t rows = 1 + static_cast<int64_t>(random() % 7);
      SCOPED_TRACE(FormatName(f) + " activation " + std::to_string(activation));
      const auto quantize = [&] {
        return CanonicalMatrix::Quantize(context.get(), f, NormalValues(random, kN * kCols, 0.1f),
                                         kN, kCols);
      };
      const CanonicalMatrix gate = quantize(), up = quantize();
      const MatrixPtr gm = gate.Pack(context.get()), um = up.Pack(context.get());
      const std::vector<float> x = NormalValues(random, rows * kCols),
                               norm = NormalValues(random, kCols),
                               gate_bias = NormalValues(random, kN),
                               up_bias = NormalValues(random, kN);
      std::vector<float> y(rows * kN);
      const nb_tensor xt = F32(x, {rows, kCols}), nt = F32(norm, {kCols}),
                      gt = F32(gate_bias, {kN}), ut = F32(up_bias, {kN}), yt = F32(y, {rows, kN});
      ASSERT_EQ(nb_swiglu_matmul(context.get(), activation, &xt, &nt, 1e-5f, gm.get(), &gt,
                                 um.get(), &ut, &yt),
                NB_OK)
          << nb_last_error();
      const std::vector<double> rounded = Rounded(context.get(), activation, x, &norm, rows, kCols);
      for (int64_t i = 0; i < rows * kN; ++i) {
        Sum g = Dot(rounded, i / kN, gate, i % kN), u = Dot(rounded, i / kN, up, i % kN);
        g.value += gate_bias[i % kN];
        u.value += up_bias[i % kN];
        g.magnitude += std::abs(gate_bias[i % kN]);
        u.magnitude += std::abs(up_bias[i % kN]);
        const double silu = g.value / (1 + std::exp(-g.value));
        // |silu'| <= 1.1; silu itself and the product round in F32, with an exp that may be a
        // few units off: 16 units of the result.
        const double tolerance = 1.1 * Tolerance(g, kCols) * std::abs(u.value) +
                                 std::abs(silu) * Tolerance(u, kCols) +
                                 Tolerance(g, kCols) * Tolerance(u, kCols) +
                                 16 * kUnit * std::abs(silu * u.value) + 1e-30;
        ASSERT_NEAR(y[i], silu * u.value, tolerance) << "element " << i;
      }
    }
  }
}

// ---------------------------------------------------------------- refusals --

class AbiMatMulRefusals : public ::testing::Test {
 protected:
  AbiMatMulRefusals() {
    xt_ = F32(x_, {2, 16});
    yt_ = F32(y_, {2, 4});
    zt_ = F32(z_, {2, 4});
    bt_ = F32(bias_, {4});
    nt_ = F32(norm_, {16});
    for (nb_projection& p : projections_) p = {a_.get(), nullptr, nullptr, nullptr};
    projections_[0].output = &yt_;
    projections_[1] = {b_.get(), &bt_, nullptr, &zt_};
  }

  MatrixPtr Matrix(const nb_weight_format& format, int64_t rows, int64_t cols) {
    return QuantizeMatrix(context_.get(), format, std::vector<float>(rows * cols, 0.5f), rows,
                          cols);
  }

  void ExpectRefused(std::initializer_list<std::string> parts, int32_t count = 2,
                     int32_t activation = NB_F32, nb_status status = NB_INVALID_ARGUMENT) {
    ExpectFailure(nb_matmul(context_.get(), activation, &xt_, &nt_, epsilon_, projections_, count),
                  status, "nb_matmul", parts);
    EXPECT_EQ(y_, std::vector<float>(32, 5.0f));
    EXPECT_EQ(z_, std::vector<float>(32, 5.0f));
  }

  const ContextPtr context_ = MakeContext(1);
  std::vector<float> x_ = std::vector<float>(32, 1.0f), norm_ = std::vector<float>(16, 1.0f);
  std::vector<float> y_ = std::vector<float>(32, 5.0f), z_ = std::vector<float>(32, 5.0f);
  std::vector<float> bias_ = std::vector<float>(4, 1.0f);
  float epsilon_ = 1e-5f;
  const MatrixPtr a_ = Matrix(Format(NB_I4, NB_E4M3), 4, 16);
  const MatrixPtr b_ = Matrix(Format(NB_E3M2, NB_F32), 4, 16);
  nb_tensor xt_, yt_, zt_, bt_, nt_;
  nb_projection projections_[9] = {};
};

TEST_F(AbiMatMulRefusals, TheCallIsGoodAsItStands) {
  EXPECT_EQ(nb_matmul(context_.get(), NB_F32, &xt_, &nt_, epsilon_, projections_, 2), NB_OK)
      << nb_last_error();
  EXPECT_NE(y_[0], 5);
  EXPECT_NE(z_[7], 5);
  EXPECT_EQ(z_[8], 5);
}

TEST_F(AbiMatMulRefusals, Counts) {
  for (const int32_t count : {0, -1, 9, std::numeric_limits<int32_t>::max()}) {
    ExpectRefused({"count: " + std::to_string(count), "1..8"}, count);
  }
  ExpectFailure(nb_matmul(context_.get(), NB_F32, &xt_, nullptr, 0, nullptr, 1),
                NB_INVALID_ARGUMENT, "nb_matmul", {"projections: NULL"});
}

TEST_F(AbiMatMulRefusals, Matrices) {
  projections_[1].matrix = nullptr;
  ExpectRefused({"projections[1].matrix: NULL"});
  const MatrixPtr other = Matrix(Format(NB_I8, NB_F32), 4, 17);
  projections_[1].matrix = other.get();
  ExpectRefused({"projections[1].matrix: 17 columns but 16"});
}

TEST_F(AbiMatMulRefusals, ActivationsWithoutAKernel) {
  ExpectRefused({"projections[1].matrix: E3M2 codes with I8", "F32, BF16, E4M3"}, 2, NB_I8,
                NB_UNSUPPORTED);
  ExpectRefused({"projections[0].matrix: I4 codes with F16", "F32, BF16, E4M3, I8"}, 2, NB_F16,
                NB_UNSUPPORTED);
  ExpectRefused({"projections[0].matrix: I4 codes with NONE"}, 2, NB_NONE, NB_UNSUPPORTED);
  for (const int32_t bad : {-1, 13, 100, std::numeric_limits<int32_t>::min()}) {
    ExpectRefused({"activation: " + std::to_string(bad)}, 2, bad);
  }
}

// The pairs that exist are exactly those that nibble.h lists.
TEST_F(AbiMatMulRefusals, KernelsThatExist) {
  for (int32_t code = NB_F32; code <= NB_I8; ++code) {
    const bool plain = code <= NB_BF16;
    const MatrixPtr m = Matrix(Format(code, plain ? NB_NONE : NB_F32), 4, 16);
    for (int32_t activation = NB_NONE; activation <= NB_POW2; ++activation) {
      const bool exists = activation == NB_F32 || activation == NB_BF16 || activation == NB_E4M3 ||
                          (activation == NB_I8 &&
                           (code == NB_I4 || code == NB_I8 || code == NB_E2M3));
      const nb_projection p = {m.get(), nullptr, nullptr, &yt_};
      const nb_status status = nb_matmul(context_.get(), activation, &xt_, nullptr, 0, &p, 1);
      EXPECT_EQ(status, exists ? NB_OK : NB_UNSUPPORTED) << code << " with " << activation;
      const nb_status fused = nb_swiglu_matmul(context_.get(), activation, &xt_, nullptr, 0,
                                               m.get(), nullptr, m.get(), nullptr, &yt_);
      EXPECT_EQ(fused, exists ? NB_OK : NB_UNSUPPORTED) << code << " with " << activation;
    }
  }
}

TEST_F(AbiMatMulRefusals, Epsilons) {
  for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    epsilon_ = bad;
    ExpectRefused({"norm_epsilon: "});
  }
  // Without a norm it is not looked at.
  EXPECT_EQ(nb_matmul(context_.get(), NB_F32, &xt_, nullptr, epsilon_, projections_, 2), NB_OK);
}

TEST_F(AbiMatMulRefusals, Overlaps) {
  nb_tensor t = yt_;
  const auto output_at = [&](float* data) {
    t = yt_;
    t.data = data;
    projections_[0].output = &t;
  };
  output_at(x_.data() + 31);
  ExpectRefused({"projections[0].output: overlaps x"});
  output_at(norm_.data() + 12);
  ExpectRefused({"projections[0].output: overlaps norm_weight"});
  output_at(bias_.data() - 7);
  ExpectRefused({"projections[0].output: overlaps a projection's bias"});
  output_at(z_.data() + 7);
  ExpectRefused({"projections[0].output: overlaps another projection's output"});
  projections_[0].output = &yt_;
  nb_tensor residual = yt_;
  residual.data = y_.data() + 1;
  projections_[0].residual = &residual;
  ExpectRefused({"projections[0].output: overlaps its own residual in part"});
  projections_[0].residual = &zt_;
  ExpectRefused({"projections[1].output: overlaps another projection's residual"});
  // The same memory with another stride is not the same elements.
  residual = yt_;
  residual.strides[0] = 5;
  residual.byte_length = 9 * 4;
  projections_[0].residual = &residual;
  ExpectRefused({"projections[0].output: overlaps its own residual in part"});
  // Legal: the residual is the output, and outputs are columns of one buffer.
  nb_tensor left = yt_, right = zt_;
  left.strides[0] = right.strides[0] = 8;
  left.byte_length = right.byte_length = 12 * 4;
  right.data = y_.data() + 4;
  projections_[0] = {a_.get(), nullptr, &left, &left};
  projections_[1].output = &right;
  EXPECT_EQ(nb_matmul(context_.get(), NB_F32, &xt_, &nt_, epsilon_, projections_, 2), NB_OK)
      << nb_last_error();
}

TEST_F(AbiMatMulRefusals, SwiGlu) {
  const auto expect = [&](const nb_matrix* gate, const nb_matrix* up, const nb_tensor* output,
                          std::initializer_list<std::string> parts) {
    ExpectFailure(nb_swiglu_matmul(context_.get(), NB_F32, &xt_, nullptr, 0, gate, &bt_, up,
                                   nullptr, output),
                  NB_INVALID_ARGUMENT, "nb_swiglu_matmul", parts);
  };
  expect(nullptr, a_.get(), &yt_, {"gate: NULL"});
  expect(a_.get(), nullptr, &yt_, {"up: NULL"});
  expect(a_.get(), b_.get(), &yt_, {"up: format E3M2, F32", "I4, E4M3"});
  const MatrixPtr tall = Matrix(Format(NB_I4, NB_E4M3), 5, 16);
  expect(a_.get(), tall.get(), &yt_, {"up: shape [5, 16] but [4, 16]"});
  // A group of 16 over 16 columns is the whole row: the same format.
  const MatrixPtr same = Matrix(Format(NB_I4, NB_E4M3, 16), 4, 16);
  EXPECT_EQ(nb_swiglu_matmul(context_.get(), NB_F32, &xt_, nullptr, 0, a_.get(), &bt_, same.get(),
                             nullptr, &yt_),
            NB_OK)
      << nb_last_error();
  nb_tensor t = yt_;
  t.data = x_.data() + 30;
  expect(a_.get(), a_.get(), &t, {"output: overlaps x"});
  t.data = bias_.data() + 3;
  expect(a_.get(), a_.get(), &t, {"output: overlaps gate_bias"});
}

}  // namespace
}  // namespace nibble
