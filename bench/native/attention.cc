// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "bench/native/random_weights.h"
#include "bench/native/sections.h"

namespace nibble::bench {
namespace {

const int32_t kCaches[] = {NB_I4, NB_I8, NB_BF16};
constexpr int64_t kPrefill = 512;

// Caches of as many layers as exceed the processor's caches, full of random tokens.
class Setup {
 public:
  Setup(const Run& run, const Model& model, int32_t type, int64_t tokens, int64_t queries)
      : model_(model),
        context_(NewContext(run.options.threads)),
        width_(int64_t{model.heads} * model.head_dim),
        q_(RandomValues(queries * width_, 1)),
        y_(queries * width_),
        sequence_{nullptr, tokens - queries, queries} {
    nb_kv_cache_options options = {};
    options.struct_size = sizeof options;
    options.type = type;
    options.layers = 1;
    options.kv_heads = model.kv_heads;
    options.head_dim = model.head_dim;
    options.capacity = tokens;
    layer_bytes_ = nb_kv_cache_bytes(Create(options).get());
    if (queries == 1) {
      layers_ = static_cast<int>(run.options.cold_bytes() / layer_bytes_) + 1;
    }
    options.layers = layers_;
    cache_ = Create(options);
    sequence_.cache = cache_.get();

    const int64_t kv_width = int64_t{model.kv_heads} * model.head_dim;
    const std::vector<float> k = RandomValues(tokens * kv_width, 2);
    const std::vector<float> v = RandomValues(tokens * kv_width, 3);
    std::vector<float> q(tokens * width_);
    const nb_tensor qt = F32(q.data(), tokens, width_), kt = F32(k.data(), tokens, kv_width),
                    vt = F32(v.data(), tokens, kv_width);
    const nb_sequence all = {cache_.get(), 0, tokens};
    for (int layer = 0; layer < layers_; ++layer) {
      Check(nb_rope_append(context_.get(), layer, &qt, &kt, &vt, nullptr, &all, 1));
    }
  }

  void Attend() {
    const nb_tensor in = F32(q_.data(), sequence_.rows, width_);
    const nb_tensor out = F32(y_.data(), sequence_.rows, width_);
    Check(nb_attention(context_.get(), layer_, &in, 1 / std::sqrt(float(model_.head_dim)),
                       &sequence_, 1, &out));
    layer_ = (layer_ + 1) % layers_;
  }

  int64_t layer_bytes() const { return layer_bytes_; }
  int layers() const { return layers_; }

 private:
  CachePtr Create(const nb_kv_cache_options& options) const {
    nb_kv_cache* cache = nullptr;
    Check(nb_kv_cache_create(context_.get(), &options, &cache));
    return CachePtr(cache);
  }

  const Model& model_;
  ContextPtr context_;
  int64_t width_;
  std::vector<float> q_, y_;
  nb_sequence sequence_;
  int64_t layer_bytes_ = 0;
  int layers_ = 1;
  CachePtr cache_;
  int layer_ = 0;
};

void RunOne(Run& run, Json& json, const Model& model, int32_t type, int64_t tokens,
            int64_t queries) {
  const char* phase = queries == 1 ? "decode" : "prefill";
  run.progress(std::string("attention ") + phase + " " + model.name + " kv " + TypeName(type) +
               " " + std::to_string(tokens) + " tokens");
  Setup setup(run, model, type, tokens, queries);
  const Timing timing = Measure(run.options.effort(3, queries == 1 ? 0.15 : 0.3),
                                [&] { setup.Attend(); });
  const Rates rates = run.limits.Now();
  // Every query sees the tokens up to its own: a product with the key, and one with the value.
  const double first = static_cast<double>(tokens - queries + 1);
  const double pairs = queries * (first + static_cast<double>(tokens)) / 2;
  const double operations = 4.0 * model.head_dim * model.heads * pairs;
  const double bytes = static_cast<double>(setup.layer_bytes());
  // Against the quantized caches the query is E4M3.
  const int32_t arithmetic = type == NB_BF16 ? NB_BF16 : NB_E4M3;
  const Bound bound = rates.Limit(bytes, operations, arithmetic);
  json.BeginObject()
      .Field("kernel", std::string("attention_kv_") + TypeName(type))
      .Field("phase", phase)
      .Field("model", model.name)
      .Field("heads", model.heads)
      .Field("kv_heads", model.kv_heads)
      .Field("head_dim", model.head_dim)
      .Field("queries", queries)
      .Field("tokens", tokens)
      .Field("cache_bytes", setup.layer_bytes())
      .Field("layers", setup.layers());
  timing.Write(json);
  json.Field("gb_per_s", bytes / timing.median / 1e9)
      .Field("gops", operations / timing.median / 1e9)
      .Field("read_limit_gb_per_s", rates.read / 1e9)
      .Field("arithmetic_limit_gops", rates.Arithmetic(arithmetic) / 1e9)
      .Field("bound", bound.memory ? "memory" : "arithmetic")
      .Field("share_of_limit", bound.limit_seconds / timing.median)
      .EndObject();
}

}  // namespace

void RunAttention(Run& run, Json& json) {
  json.BeginArray();
  for (const Model& model : run.list.models) {
    if (!Options::Wants(run.options.models, model.name)) continue;
    for (const int32_t type : kCaches) {
      for (const int64_t tokens : run.list.keys) RunOne(run, json, model, type, tokens, 1);
      const int64_t prefill = run.options.smoke ? 16 : kPrefill;
      RunOne(run, json, model, type, prefill, prefill);
    }
  }
  json.EndArray();
}

}  // namespace nibble::bench
