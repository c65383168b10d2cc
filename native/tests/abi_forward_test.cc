// SPDX-License-Identifier: Apache-2.0
//
// A tiny LLaMA through the C ABI alone: two layers, grouped-query attention, tied embedding.
#include <cmath>
#include <cstring>

#include "native/tests/canonical_matrix.h"

namespace nibble {
namespace {

struct Sizes {
  static constexpr int64_t kLayers = 2, kHidden = 44, kInner = 76, kHeads = 4, kKvHeads = 2,
                           kDim = 18, kVocabulary = 61, kCapacity = 24;
  static constexpr int64_t kQ = kHeads * kDim, kKv = kKvHeads * kDim;
};
constexpr float kEpsilon = 1e-5f;
const float kScale = 1 / std::sqrt(static_cast<float>(Sizes::kDim));

struct Layer {
  std::vector<float> attention_norm, mlp_norm, q, k, v, o, gate, up, down, q_bias;
};

struct Weights {
  std::vector<Layer> layers;
  std::vector<float> embedding, norm, inverse_frequencies;

  explicit Weights(uint64_t stream) {
    std::mt19937_64 random = TestRandom(stream);
    const auto matrix = [&](int64_t n, int64_t k) {
      return NormalValues(random, n * k, 1 / std::sqrt(static_cast<float>(k)));
    };
    const auto norm_weight = [&] {
      std::vector<float> w = NormalValues(random, Sizes::kHidden, 0.2f);
      for (float& x : w) x += 1;
      return w;
    };
    for (int64_t l = 0; l < Sizes::kLayers; ++l) {
      Layer y;
      y.attention_norm = norm_weight();
      y.mlp_norm = norm_weight();
      y.q = matrix(Sizes::kQ, Sizes::kHidden);
      y.k = matrix(Sizes::kKv, Sizes::kHidden);
      y.v = matrix(Sizes::kKv, Sizes::kHidden);
      y.o = matrix(Sizes::kHidden, Sizes::kQ);
      y.gate = matrix(Sizes::kInner, Sizes::kHidden);
      y.up = matrix(Sizes::kInner, Sizes::kHidden);
      y.down = matrix(Sizes::kHidden, Sizes::kInner);
      y.q_bias = NormalValues(random, Sizes::kQ, 0.1f);
      layers.push_back(std::move(y));
    }
    embedding = NormalValues(random, Sizes::kVocabulary * Sizes::kHidden);
    norm = norm_weight();
    for (int64_t i = 0; i < Sizes::kDim / 2; ++i) {
      inverse_frequencies.push_back(
          std::pow(10000.0f, -2.0f * static_cast<float>(i) / Sizes::kDim));
    }
  }
};

struct Scheme {
  nb_weight_format projections, embedding;
  int32_t activation, cache;
};

const Scheme kF32 = {Format(NB_F32), Format(NB_F32), NB_F32, NB_F32};
const Scheme kW4A8 = {Format(NB_I4, NB_E4M3, 16), Format(NB_I8, NB_F32), NB_E4M3, NB_I4};
const Scheme kW4A8I = {Format(NB_I4, NB_POW2, 32), Format(NB_I8, NB_F32), NB_I8, NB_I4};
const Scheme kW6A16 = {Format(NB_E3M2, NB_F32), Format(NB_I8, NB_F32), NB_BF16, NB_I8};
const Scheme kBf16 = {Format(NB_BF16), Format(NB_BF16), NB_BF16, NB_BF16};

class TinyModel {
 public:
  TinyModel(nb_context* context, const Weights& weights, const Scheme& scheme)
      : context_(context), w_(weights), scheme_(scheme) {
    for (const Layer& l : w_.layers) {
      PackedLayer p;
      p.q = Pack(l.q, Sizes::kQ, Sizes::kHidden);
      p.k = Pack(l.k, Sizes::kKv, Sizes::kHidden);
      p.v = Pack(l.v, Sizes::kKv, Sizes::kHidden);
      p.o = Pack(l.o, Sizes::kHidden, Sizes::kQ);
      p.gate = Pack(l.gate, Sizes::kInner, Sizes::kHidden);
      p.up = Pack(l.up, Sizes::kInner, Sizes::kHidden);
      p.down = Pack(l.down, Sizes::kHidden, Sizes::kInner);
      layers_.push_back(std::move(p));
    }
    embedding_ = QuantizeMatrix(context, scheme.embedding, w_.embedding, Sizes::kVocabulary,
                                Sizes::kHidden);
    cache_ = MakeCache(context, scheme.cache, Sizes::kLayers, Sizes::kKvHeads, Sizes::kDim,
                       Sizes::kCapacity);
  }

  // Logits of all tokens, [rows][kVocabulary].
  std::vector<float> Forward(const std::vector<int32_t>& tokens, int64_t start) {
    const auto rows = static_cast<int64_t>(tokens.size());
    std::vector<float> x(rows * Sizes::kHidden), q(rows * Sizes::kQ), k(rows * Sizes::kKv),
        v(rows * Sizes::kKv), y(rows * Sizes::kQ), h(rows * Sizes::kInner),
        angles(rows * Sizes::kDim), logits(rows * Sizes::kVocabulary);
    const nb_tensor xt = F32(x, {rows, Sizes::kHidden}), qt = F32(q, {rows, Sizes::kQ}),
                    kt = F32(k, {rows, Sizes::kKv}), vt = F32(v, {rows, Sizes::kKv}),
                    yt = F32(y, {rows, Sizes::kQ}), ht = F32(h, {rows, Sizes::kInner}),
                    at = F32(angles, {rows, Sizes::kDim}),
                    lt = F32(logits, {rows, Sizes::kVocabulary});
    const nb_tensor ids = Tensor(NB_I32, tokens.data(), {rows});
    const nb_tensor ft = F32(w_.inverse_frequencies, {Sizes::kDim / 2});
    const nb_sequence sequence = {cache_.get(), start, rows};
    Check(nb_embedding(context_, embedding_.get(), &ids, &xt));
    Check(nb_rope_angles(context_, &ft, &sequence, 1, &at));
    for (int32_t i = 0; i < Sizes::kLayers; ++i) {
      const PackedLayer& p = layers_[i];
      const Layer& l = w_.layers[i];
      const nb_tensor attention_norm = F32(l.attention_norm, {Sizes::kHidden});
      const nb_tensor mlp_norm = F32(l.mlp_norm, {Sizes::kHidden});
      const nb_tensor q_bias = F32(l.q_bias, {Sizes::kQ});
      const nb_projection qkv[] = {{p.q.get(), &q_bias, nullptr, &qt},
                                   {p.k.get(), nullptr, nullptr, &kt},
                                   {p.v.get(), nullptr, nullptr, &vt}};
      Check(nb_matmul(context_, scheme_.activation, &xt, &attention_norm, kEpsilon, qkv, 3));
      Check(nb_rope_append(context_, i, &qt, &kt, &vt, &at, &sequence, 1));
      Check(nb_attention(context_, i, &qt, kScale, &sequence, 1, &yt));
      const nb_projection o = {p.o.get(), nullptr, &xt, &xt};
      Check(nb_matmul(context_, scheme_.activation, &yt, nullptr, 0, &o, 1));
      Check(nb_swiglu_matmul(context_, scheme_.activation, &xt, &mlp_norm, kEpsilon,
                             p.gate.get(), nullptr, p.up.get(), nullptr, &ht));
      const nb_projection down = {p.down.get(), nullptr, &xt, &xt};
      Check(nb_matmul(context_, scheme_.activation, &ht, nullptr, 0, &down, 1));
    }
    const nb_tensor norm = F32(w_.norm, {Sizes::kHidden});
    const nb_projection head = {embedding_.get(), nullptr, nullptr, &lt};
    Check(nb_matmul(context_, scheme_.activation, &xt, &norm, kEpsilon, &head, 1));
    return logits;
  }

 private:
  struct PackedLayer {
    MatrixPtr q, k, v, o, gate, up, down;
  };
  MatrixPtr Pack(const std::vector<float>& w, int64_t rows, int64_t cols) {
    return QuantizeMatrix(context_, scheme_.projections, w, rows, cols);
  }
  static void Check(nb_status status) { EXPECT_EQ(status, NB_OK) << nb_last_error(); }

  nb_context* context_;
  const Weights& w_;
  Scheme scheme_;
  std::vector<PackedLayer> layers_;
  MatrixPtr embedding_;
  CachePtr cache_;
};

// ------------------------------------------------------------- in plain F64 --

using Row = std::vector<double>;

Row Multiply(const std::vector<float>& w, const Row& x, int64_t rows) {
  const auto cols = static_cast<int64_t>(x.size());
  Row y(rows, 0.0);
  for (int64_t n = 0; n < rows; ++n) {
    for (int64_t k = 0; k < cols; ++k) y[n] += w[n * cols + k] * x[k];
  }
  return y;
}

Row Norm(const Row& x, const std::vector<float>& w) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  const double r = 1 / std::sqrt(squares / static_cast<double>(x.size()) + kEpsilon);
  Row y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * r * w[i];
  return y;
}

void Rotate(Row* x, int64_t position, const Weights& w) {
  const int64_t half = Sizes::kDim / 2;
  for (size_t h = 0; h < x->size(); h += Sizes::kDim) {
    for (int64_t i = 0; i < half; ++i) {
      const double a = static_cast<float>(position) * w.inverse_frequencies[i];
      double &first = (*x)[h + i], &second = (*x)[h + i + half];
      const double f = first * std::cos(a) - second * std::sin(a);
      second = second * std::cos(a) + first * std::sin(a);
      first = f;
    }
  }
}

std::vector<double> ForwardF64(const Weights& w, const std::vector<int32_t>& tokens) {
  std::vector<std::vector<Row>> keys(Sizes::kLayers), values(Sizes::kLayers);
  std::vector<double> logits;
  for (size_t t = 0; t < tokens.size(); ++t) {
    const float* e = w.embedding.data() + tokens[t] * Sizes::kHidden;
    Row x(e, e + Sizes::kHidden);
    for (int64_t l = 0; l < Sizes::kLayers; ++l) {
      const Layer& p = w.layers[l];
      const Row n = Norm(x, p.attention_norm);
      Row q = Multiply(p.q, n, Sizes::kQ), k = Multiply(p.k, n, Sizes::kKv);
      for (int64_t i = 0; i < Sizes::kQ; ++i) q[i] += p.q_bias[i];
      Rotate(&q, static_cast<int64_t>(t), w);
      Rotate(&k, static_cast<int64_t>(t), w);
      keys[l].push_back(k);
      values[l].push_back(Multiply(p.v, n, Sizes::kKv));
      Row y(Sizes::kQ, 0.0);
      for (int64_t h = 0; h < Sizes::kHeads; ++h) {
        const int64_t g = h / (Sizes::kHeads / Sizes::kKvHeads) * Sizes::kDim;
        double total = 0;
        for (size_t s = 0; s <= t; ++s) {
          double score = 0;
          for (int64_t i = 0; i < Sizes::kDim; ++i) {
            score += q[h * Sizes::kDim + i] * keys[l][s][g + i];
          }
          const double a = std::exp(score * kScale);
          total += a;
          for (int64_t i = 0; i < Sizes::kDim; ++i) {
            y[h * Sizes::kDim + i] += a * values[l][s][g + i];
          }
        }
        for (int64_t i = 0; i < Sizes::kDim; ++i) y[h * Sizes::kDim + i] /= total;
      }
      const Row o = Multiply(p.o, y, Sizes::kHidden);
      for (int64_t i = 0; i < Sizes::kHidden; ++i) x[i] += o[i];
      const Row m = Norm(x, p.mlp_norm);
      Row gate = Multiply(p.gate, m, Sizes::kInner);
      const Row up = Multiply(p.up, m, Sizes::kInner);
      for (int64_t i = 0; i < Sizes::kInner; ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
      const Row down = Multiply(p.down, gate, Sizes::kHidden);
      for (int64_t i = 0; i < Sizes::kHidden; ++i) x[i] += down[i];
    }
    const Row row = Multiply(w.embedding, Norm(x, w.norm), Sizes::kVocabulary);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

const std::vector<int32_t> kTokens = {3,  60, 0,  17, 17, 42, 9,  31, 58,
                                      2,  25, 44, 1,  12, 60, 7,  33, 5};

std::vector<float> ForwardInChunks(TinyModel* model, int64_t chunk) {
  std::vector<float> logits;
  for (size_t t = 0; t < kTokens.size(); t += chunk) {
    const std::vector<int32_t> part(kTokens.begin() + t,
                                    kTokens.begin() + std::min(t + chunk, kTokens.size()));
    const std::vector<float> l = model->Forward(part, static_cast<int64_t>(t));
    logits.insert(logits.end(), l.begin(), l.end());
  }
  return logits;
}

TEST(AbiForward, F32AgreesWithF64) {
  const ContextPtr context = MakeContext(2);
  const Weights weights(50);
  const std::vector<double> expected = ForwardF64(weights, kTokens);
  TinyModel model(context.get(), weights, kF32);
  for (const int64_t chunk : {18, 7, 1}) {
    const std::vector<float> logits = ForwardInChunks(&model, chunk);  // rewinds the cache
    ASSERT_EQ(logits.size(), expected.size());
    double worst = 0, largest = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      worst = std::max(worst, std::abs(logits[i] - expected[i]));
      largest = std::max(largest, std::abs(expected[i]));
    }
    // Logits of some tens, through 14 products of up to 76 terms in F32: each product errs
    // by sqrt(K) * 2^-24 of its inputs' norm or so, well below 1e-5 relative in all.
    EXPECT_LT(worst, 1e-5 * largest) << "chunks of " << chunk;
  }
}

// What quantization costs is bounded only loosely here (real models are measured by their
// loss); it must be there, but the logits must remain recognizably the model's.
TEST(AbiForward, QuantizedSchemesFollowF32) {
  const ContextPtr context = MakeContext(2);
  const Weights weights(51);
  const std::vector<double> expected = ForwardF64(weights, kTokens);
  double norm = 0;
  for (const double v : expected) norm += v * v;
  struct Case {
    const char* name;
    Scheme scheme;
    double bound;  // of the relative error in the 2-norm
  };
  // BF16 keeps 8 bits: 2^-9 an operand, over some 20 roundings. E3M2 keeps 3 bits, I4 3 to
  // 4: 2^-4 an operand; independent errors add as the root of the 14 products.
  for (const Case& c : {Case{"bf16", kBf16, 0.03}, Case{"w6a16", kW6A16, 0.25},
                        Case{"w4a8", kW4A8, 0.6}, Case{"w4a8i", kW4A8I, 0.6}}) {
    TinyModel model(context.get(), weights, c.scheme);
    const std::vector<float> logits = model.Forward(kTokens, 0);
    double error = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      error += (logits[i] - expected[i]) * (logits[i] - expected[i]);
    }
    const double relative = std::sqrt(error / norm);
    EXPECT_LT(relative, c.bound) << c.name;
    EXPECT_GT(relative, 1e-5) << c.name << ": nothing was quantized";
  }
}

TEST(AbiForward, TheSameBitsFromAnyNumberOfThreads) {
  const Weights weights(52);
  for (const Scheme& scheme : {kF32, kBf16, kW4A8, kW4A8I, kW6A16}) {
    std::vector<float> expected;
    for (const int32_t threads : {1, 2, 3, 4}) {
      const ContextPtr context = MakeContext(threads);
      TinyModel model(context.get(), weights, scheme);
      const std::vector<float> logits = ForwardInChunks(&model, 5);
      if (threads == 1) expected = logits;
      EXPECT_EQ(logits, expected) << threads << " threads";
    }
  }
}

}  // namespace
}  // namespace nibble
