// SPDX-License-Identifier: Apache-2.0
//
// The kernels against the F64 reference: every format with every activation that has a
// kernel, random and awkward shapes, every SIMD target, 1 to 4 threads.
//
// Tolerance. The kernels sum K products in F32; each term passes through at most K + 6
// roundings (scale, product, sums, token scale, factor, bias, residual), so that the error
// is at most gamma = (K + 6) u / (1 - (K + 6) u) times sum|terms| (Higham, Accuracy and
// Stability of Numerical Algorithms, 3.1), u = 2^-24; bias and residual add their share.
#include "kernels-cpu/gemm/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels-cpu/testing/kernel_test.h"
#include "kernels-cpu/gemm/gemm_kernels.h"
#include "kernels-cpu/gemm/gemm_reference.h"
#include "kernels-cpu/gemm/weights_for_test.h"
#include "kernels-cpu/testing/guarded_buffer.h"

namespace nibble {
namespace {

double Gamma(int64_t cols) {
  const double nu = static_cast<double>(cols + 6) * std::exp2(-24);
  return nu / (1 - nu);
}

struct Case {
  WeightFormat format;
  DType activation;
  int64_t rows, n, k;
  bool norm, bias, residual;
};

std::string Describe(const Case& c) {
  return nibble::Describe(c.format, c.n, c.k) + " activation " + std::to_string(int(c.activation)) +
         " rows " + std::to_string(c.rows) + (c.norm ? " norm" : "") + (c.bias ? " bias" : "") +
         (c.residual ? " residual" : "");
}

// Operands of a case, in memory that ends at guard pages.
struct Operands {
  Operands(std::mt19937_64& random, const Case& c)
      : weights(RandomWeights(random, c.format, c.n, c.k)),
        x(NormalValues(random, c.rows * c.k)),
        norm(NormalValues(random, c.k)),
        bias(NormalValues(random, c.n)),
        residual(NormalValues(random, c.rows * c.n)) {
    if (c.rows > 2) std::fill(x.begin() + c.k, x.begin() + 2 * c.k, 0.0f);  // a row of zeros
  }

  GemmInput input(const Case& c) const {
    return {c.activation, x.data(), c.rows, c.k, c.k, c.norm ? norm.data() : nullptr, 1e-5f};
  }
  GemmOutput output(const Case& c, const PackedMatrix& m, float* y) const {
    return {&m, c.bias ? bias.data() : nullptr, c.residual ? residual.data() : nullptr, c.n, y, c.n};
  }

  CanonicalStorage weights;
  GuardedBuffer<float> x, norm, bias, residual;
};

struct Expected {
  std::vector<double> value, tolerance;
};

Expected Reference(const Case& c, Operands& o) {
  Expected e;
  for (int64_t r = 0; r < c.rows; ++r) {
    const std::vector<double> x = RoundedActivations(o.input(c), r);
    for (int64_t n = 0; n < c.n; ++n) {
      const ReferenceProduct p = ReferenceDot(x, c.format, o.weights.view(), n);
      const double bias = c.bias ? o.bias[n] : 0;
      const double residual = c.residual ? o.residual[r * c.n + n] : 0;
      e.value.push_back(p.value + bias + residual);
      e.tolerance.push_back(Gamma(c.k) * (p.magnitude + std::fabs(bias) + std::fabs(residual)));
    }
  }
  return e;
}

// Scratch that an earlier call left full of NaN (all bits 1) must not reach any result.
void PoisonScratch(Workspace& workspace) {
  constexpr size_t kBytes = 1 << 20;
  workspace.ReservePerThread(kBytes);
  for (int t = 0; t < workspace.threads(); ++t) std::memset(workspace.PerThread(t), 0xFF, kBytes);
  std::memset(workspace.Shared(kBytes), 0xFF, kBytes);
}

void ExpectClose(const GuardedBuffer<float>& y, const Expected& e, const std::string& what) {
  for (size_t i = 0; i < y.size(); ++i) {
    ASSERT_NEAR(y[i], e.value[i], e.tolerance[i] + 1e-40) << what << " element " << i;
  }
}

void Check(std::mt19937_64& random, const Case& c) {
  Operands o(random, c);
  Expected expected;
  ForEachSimdTarget([&] {
    // RMSNorm differs by a rounding between targets, which could flip a code: where it takes
    // part, each target has its own reference.
    if (c.norm || expected.value.empty()) expected = Reference(c, o);
    std::vector<float> first;
    for (const int threads : {1, 3}) {
      Workspace workspace(threads);
      PoisonScratch(workspace);
      const PackedMatrix m = PackMatrix(workspace.pool(), c.format, c.n, c.k, o.weights.view());
      GuardedBuffer<float> y(c.rows * c.n);
      const GemmOutput out = o.output(c, m, y.data());
      MatMul(workspace, o.input(c), &out, 1);
      ExpectClose(y, expected, Describe(c));
      if (first.empty()) first.assign(y.begin(), y.end());
      ASSERT_EQ(std::memcmp(first.data(), y.data(), first.size() * 4), 0)
          << Describe(c) << ": other bits with " << threads << " threads";
    }
  });
}

std::vector<DType> Activations(DType code) {
  std::vector<DType> list;
  for (const DType a : {DType::kF32, DType::kBF16, DType::kE4M3, DType::kI8}) {
    if (HasKernel(code, a)) list.push_back(a);
  }
  return list;
}

TEST(Gemm, EveryFormatAndActivationOnRandomShapes) {
  auto random = TestRandom(31);
  int i = 0;
  for (int round = 0; round < TestRounds(); ++round) {
    for (const WeightFormat& f : AllWeightFormats()) {
      for (const DType a : Activations(f.code)) {
        Check(random, {f, a, UniformInt(random, 1, 40), UniformInt(random, 1, 70),
                       UniformInt(random, 1, 600), i % 2 == 0, i % 3 == 0, i % 4 == 1});
        ++i;
      }
    }
  }
}

TEST(Gemm, ShapesAroundEveryTileEdge) {
  auto random = TestRandom(32);
  const WeightFormat formats[] = {{DType::kI4, DType::kE4M3, 128}, {DType::kI4, DType::kPow2, 32},
                                  {DType::kI8, DType::kF32, 0}, {DType::kE3M2, DType::kF32, 0},
                                  {DType::kF32, DType::kNone, 0}};
  for (const WeightFormat& f : formats) {
    for (const DType a : Activations(f.code)) {
      for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 24, 25, 49}) {
        Check(random, {f, a, rows, 33, 40, false, false, false});
      }
      for (const int64_t rows : {3, 9, 14, 30}) {  // more than a segment of four panels
        Check(random, {f, a, rows, 70, 288, false, false, false});
      }
      for (const int64_t n : {1, 15, 16, 17, 31, 32, 33, 48}) Check(random, {f, a, 5, n, 24, false, true, true});
      for (const int64_t k : {1, 15, 16, 17, 127, 128, 129, 172, 255, 256, 257, 352}) Check(random, {f, a, 2, 18, k, false, false, false});
    }
  }
}

TEST(Gemm, MoreRowsThanABlock) {
  auto random = TestRandom(33);
  Check(random, {{DType::kI4, DType::kE4M3, 32}, DType::kE4M3, 515, 17, 48, true, false, true});
  Check(random, {{DType::kI4, DType::kE4M3, 32}, DType::kI8, 515, 17, 48, false, true, false});
}

TEST(Gemm, SeveralOutputsOfOneInputEqualSeparateCalls) {
  auto random = TestRandom(34);
  for (const int64_t rows : {1, 7}) {
    Workspace workspace(3);
    std::vector<PackedMatrix> matrices;
    std::vector<std::vector<float>> together, apart;
    std::vector<GemmOutput> outputs;
    const int64_t k = 80, sizes[] = {70, 16, 33};
    const WeightFormat formats[] = {{DType::kI4, DType::kE4M3, 16}, {DType::kI8, DType::kF32, 0},
                                    {DType::kI4, DType::kF32, 0}};
    for (int i = 0; i < 3; ++i) {
      CanonicalStorage w = RandomWeights(random, formats[i], sizes[i], k);
      matrices.push_back(PackMatrix(workspace.pool(), formats[i], sizes[i], k, w.view()));
      together.emplace_back(rows * sizes[i]);
      apart.emplace_back(rows * sizes[i]);
    }
    const std::vector<float> x = NormalValues(random, rows * k);
    const GemmInput input{DType::kI8, x.data(), rows, k, k};
    for (int i = 0; i < 3; ++i) {
      outputs.push_back({&matrices[i], nullptr, nullptr, 0, together[i].data(), sizes[i]});
      const GemmOutput one{&matrices[i], nullptr, nullptr, 0, apart[i].data(), sizes[i]};
      MatMul(workspace, input, &one, 1);
    }
    MatMul(workspace, input, outputs.data(), 3);
    EXPECT_EQ(together, apart);
  }
}

TEST(Gemm, ResidualMayBeTheOutput) {
  auto random = TestRandom(35);
  const Case c{{DType::kI4, DType::kE4M3, 32}, DType::kE4M3, 6, 40, 64, false, false, true};
  Operands o(random, c);
  const Expected expected = Reference(c, o);
  Workspace workspace(2);
  const PackedMatrix m = PackMatrix(workspace.pool(), c.format, c.n, c.k, o.weights.view());
  const GemmOutput out = o.output(c, m, o.residual.data());
  MatMul(workspace, o.input(c), &out, 1);
  ExpectClose(o.residual, expected, Describe(c));
}

// silu(g) u has slope at most 1.1 |u| in g and |silu(g)| <= |g| in u; exp, the division
// and the product add a few units of rounding.
TEST(Gemm, SwiGluPair) {
  auto random = TestRandom(36);
  for (const DType activation : {DType::kF32, DType::kE4M3, DType::kI8}) {
    for (const int64_t rows : {1, 3, 14}) {
      const Case c{{DType::kI4, DType::kE4M3, 32}, activation, rows, 50, 96, true, true, false};
      Operands gate(random, c), up(random, c);
      std::copy(gate.x.begin(), gate.x.end(), up.x.begin());
      std::copy(gate.norm.begin(), gate.norm.end(), up.norm.begin());
      ForEachSimdTarget([&] {
        const Expected g = Reference(c, gate), u = Reference(c, up);
        Workspace workspace(3);
        PoisonScratch(workspace);
        const PackedMatrix gm = PackMatrix(workspace.pool(), c.format, c.n, c.k, gate.weights.view());
        const PackedMatrix um = PackMatrix(workspace.pool(), c.format, c.n, c.k, up.weights.view());
        GuardedBuffer<float> y(c.rows * c.n);
        SwiGluMatMul(workspace, gate.input(c), gate.output(c, gm, nullptr), up.output(c, um, y.data()));
        for (size_t i = 0; i < y.size(); ++i) {
          const double silu = g.value[i] / (1 + std::exp(-g.value[i]));
          const double tolerance = 1.1 * g.tolerance[i] * (std::fabs(u.value[i]) + u.tolerance[i]) +
                                   std::fabs(silu) * u.tolerance[i] +
                                   16 * std::exp2(-24) * std::fabs(silu * u.value[i]);
          ASSERT_NEAR(y[i], silu * u.value[i], tolerance + 1e-30) << Describe(c) << " element " << i;
        }
      });
    }
  }
}

// Beside one large element the others are small or subnormal codes of E4M3: their rests
// (e4m3_digits.h) fill whole segments.
TEST(Gemm, SmallActivationsBesideAnOutlier) {
  auto random = TestRandom(38);
  for (const DType code : {DType::kI4, DType::kI8, DType::kE2M3, DType::kE3M2}) {
    for (const int64_t rows : {1, 5, 6, 7, 12, 14, 50}) {
      const Case c{{code, DType::kF32, 0}, DType::kE4M3, rows, 70, 272, false, true, false};
      Operands o(random, c);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t k = 0; k < c.k; ++k) o.x[r * c.k + k] *= std::exp2(-10.0f - float(r % 8));
        o.x[r * c.k + r % c.k] = 4;
      }
      const Expected expected = Reference(c, o);
      ForEachSimdTarget([&] {
        Workspace workspace(2);
        PoisonScratch(workspace);
        const PackedMatrix m = PackMatrix(workspace.pool(), c.format, c.n, c.k, o.weights.view());
        GuardedBuffer<float> y(c.rows * c.n);
        const GemmOutput out = o.output(c, m, y.data());
        MatMul(workspace, o.input(c), &out, 1);
        ExpectClose(y, expected, Describe(c));
      });
    }
  }
}

// Integer sums are exact and are scaled segment after segment, whatever rows stand beside: a
// token's logits do not depend on the batch that it is decoded in.
TEST(Gemm, IntegerProductsOfARowDoNotDependOnTheRowsBeside) {
  auto random = TestRandom(39);
  const WeightFormat formats[] = {{DType::kI4, DType::kE4M3, 32}, {DType::kI8, DType::kF32, 0},
                                  {DType::kE2M3, DType::kF32, 0}, {DType::kE3M2, DType::kF32, 0}};
  for (const WeightFormat& f : formats) {
    for (const DType a : {DType::kE4M3, DType::kI8}) {
      if (!HasKernel(f.code, a)) continue;
      const Case c{f, a, 50, 70, 288, false, true, false};
      Operands o(random, c);
      for (int64_t i = 0; i < c.rows * c.k; ++i) {
        if (i % 7 == 0) o.x[i] *= 1e-4f;  // rests
      }
      ForEachSimdTarget([&] {
        Workspace workspace(2);
        const PackedMatrix m = PackMatrix(workspace.pool(), c.format, c.n, c.k, o.weights.view());
        if (f.code == DType::kE3M2 && WordUnitKernel() == nullptr) return;  // F32 sums
        std::vector<float> all(c.rows * c.n);
        const GemmOutput out = o.output(c, m, all.data());
        MatMul(workspace, o.input(c), &out, 1);
        for (const int64_t rows : {1, 2, 5, 6, 7, 8, 12, 13, 16, 24, 25, 26}) {
          std::vector<float> some(rows * c.n);
          const GemmOutput part = o.output(c, m, some.data());
          GemmInput input = o.input(c);
          input.rows = rows;
          MatMul(workspace, input, &part, 1);
          ASSERT_EQ(std::memcmp(some.data(), all.data(), some.size() * 4), 0)
              << Describe(c) << ": other bits as " << rows << " rows";
        }
      });
    }
  }
}

TEST(Gemm, NaNStaysInItsRow) {
  auto random = TestRandom(37);
  for (const DType a : {DType::kF32, DType::kBF16, DType::kE4M3, DType::kI8}) {
    const Case c{{DType::kI4, DType::kE4M3, 32}, a, 6, 20, 64, false, false, false};
    Operands o(random, c);
    o.x[3 * c.k + 5] = NAN;
    Workspace workspace(2);
    const PackedMatrix m = PackMatrix(workspace.pool(), c.format, c.n, c.k, o.weights.view());
    GuardedBuffer<float> y(c.rows * c.n);
    const GemmOutput out = o.output(c, m, y.data());
    MatMul(workspace, o.input(c), &out, 1);
    for (int64_t i = 0; i < c.rows * c.n; ++i) EXPECT_EQ(std::isnan(y[i]), i / c.n == 3) << i;
  }
}

}  // namespace
}  // namespace nibble
