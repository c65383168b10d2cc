// SPDX-License-Identifier: Apache-2.0
#include "bench/native/llama_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "bench/native/random_weights.h"

namespace nibble::bench {
namespace {
constexpr float kEpsilon = 1e-5f;
constexpr float kRopeTheta = 500000;
}  // namespace

LlamaWeights::LlamaWeights(nb_context* context, const Model& model, const Scheme& scheme) {
  layers.resize(model.layers);
  const auto fill = [&](const char* name, MatrixPtr Layer::*member) {
    const Matrix& m = model.matrix(name);
    const RandomMatrix random(scheme.projections->format, m.n, m.k);
    for (Layer& layer : layers) {
      layer.*member = random.Pack(context);
      bytes_ += PackedBytes((layer.*member).get());
    }
  };
  fill("q", &Layer::q);
  fill("k", &Layer::k);
  fill("v", &Layer::v);
  fill("o", &Layer::o);
  fill("gate", &Layer::gate);
  fill("up", &Layer::up);
  fill("down", &Layer::down);
  head = RandomMatrix(scheme.head->format, model.vocabulary(), model.hidden()).Pack(context);
  bytes_ += PackedBytes(head.get());
}

std::vector<float>& LlamaStep::Buffer(int64_t size) {
  memory_.emplace_back(size);
  return memory_.back();
}

nb_tensor LlamaStep::Scratch(int64_t cols) {
  return F32(Buffer(max_rows_ * cols).data(), max_rows_, cols);
}

LlamaStep::LlamaStep(nb_context* context, const Model& model, const Scheme& scheme,
                     const LlamaWeights& weights, int64_t capacity, int64_t max_rows)
    : context_(context),
      model_(model),
      scheme_(scheme),
      capacity_(capacity),
      max_rows_(max_rows),
      head_(weights.head.get()),
      ids_(max_rows),
      norm_(model.hidden(), 1.0f),
      logits_(model.vocabulary()) {
  nb_kv_cache_options options = {};
  options.struct_size = sizeof options;
  options.type = scheme.cache;
  options.layers = model.layers;
  options.kv_heads = model.kv_heads;
  options.head_dim = model.head_dim;
  options.capacity = capacity;
  nb_kv_cache* cache = nullptr;
  Check(nb_kv_cache_create(context, &options, &cache));
  cache_.reset(cache);

  const int64_t queries = int64_t{model.heads} * model.head_dim;
  const int64_t keys = int64_t{model.kv_heads} * model.head_dim;
  ids_t_ = Tensor(NB_I32, 4, ids_.data(), max_rows);
  x_ = Scratch(model.hidden());
  q_ = Scratch(queries);
  k_ = Scratch(keys);
  v_ = Scratch(keys);
  attended_ = Scratch(queries);
  hidden_ = Scratch(model.inner());
  angles_ = Scratch(model.head_dim);
  norm_t_ = F32(norm_.data(), model.hidden());
  logits_t_ = F32(logits_.data(), 1, model.vocabulary());
  std::vector<float>& frequencies = Buffer(model.head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(kRopeTheta, -2.0f * static_cast<float>(i) / model.head_dim);
  }
  frequencies_ = F32(frequencies.data(), model.head_dim / 2);

  for (const LlamaWeights::Layer& w : weights.layers) {
    layers_.push_back({{{w.q.get(), nullptr, nullptr, &q_},
                        {w.k.get(), nullptr, nullptr, &k_},
                        {w.v.get(), nullptr, nullptr, &v_}},
                       {w.o.get(), nullptr, &x_, &x_},
                       {w.down.get(), nullptr, &x_, &x_},
                       w.gate.get(),
                       w.up.get()});
  }
}

void LlamaStep::Forward(const int32_t* tokens, int64_t rows, int64_t position) {
  if (rows < 1 || rows > max_rows_) throw std::runtime_error("Forward: too many tokens");
  std::copy_n(tokens, rows, ids_.begin());
  for (nb_tensor* t :
       {&ids_t_, &x_, &q_, &k_, &v_, &attended_, &hidden_, &angles_}) {
    SetRows(*t, rows);
  }
  const nb_sequence sequence = {cache_.get(), position, rows};
  const float scale = 1 / std::sqrt(static_cast<float>(model_.head_dim));
  const int32_t activation = scheme_.projections->activation;
  nb_context* const c = context_;

  Check(nb_embedding(c, head_, &ids_t_, &x_));
  Check(nb_rope_angles(c, &frequencies_, &sequence, 1, &angles_));
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const int32_t index = static_cast<int32_t>(i);
    Check(nb_matmul(c, activation, &x_, &norm_t_, kEpsilon, layer.qkv, 3));
    Check(nb_rope_append(c, index, &q_, &k_, &v_, &angles_, &sequence, 1));
    Check(nb_attention(c, index, &q_, scale, &sequence, 1, &attended_));
    Check(nb_matmul(c, activation, &attended_, nullptr, 0, &layer.o, 1));
    Check(nb_swiglu_matmul(c, activation, &x_, &norm_t_, kEpsilon, layer.gate, nullptr, layer.up,
                           nullptr, &hidden_));
    Check(nb_matmul(c, activation, &hidden_, nullptr, 0, &layer.down, 1));
  }
  // The last token alone needs logits.
  nb_tensor last = x_;
  last.data = static_cast<float*>(x_.data) + (rows - 1) * model_.hidden();
  SetRows(last, 1);
  const nb_projection head = {head_, nullptr, nullptr, &logits_t_};
  Check(nb_matmul(c, scheme_.head->activation, &last, &norm_t_, kEpsilon, &head, 1));
}

void LlamaStep::FillCache(int64_t position) {
  const std::vector<float> keys = RandomValues(max_rows_ * k_.shape[1], 2);
  const std::vector<float> values = RandomValues(max_rows_ * v_.shape[1], 3);
  std::vector<float> queries(max_rows_ * q_.shape[1]);
  for (int64_t done = 0; done < position; done += max_rows_) {
    const int64_t rows = std::min(max_rows_, position - done);
    const nb_sequence sequence = {cache_.get(), done, rows};
    const nb_tensor q = F32(queries.data(), rows, q_.shape[1]),
                    k = F32(keys.data(), rows, k_.shape[1]),
                    v = F32(values.data(), rows, v_.shape[1]);
    for (int layer = 0; layer < model_.layers; ++layer) {
      Check(nb_rope_append(context_, layer, &q, &k, &v, nullptr, &sequence, 1));
    }
  }
}

double LlamaStep::cache_bytes_per_token() const {
  return static_cast<double>(nb_kv_cache_bytes(cache_.get())) / static_cast<double>(capacity_);
}

}  // namespace nibble::bench
