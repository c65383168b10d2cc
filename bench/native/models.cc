// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <iostream>
#include <memory>
#include <sstream>

#include "bench/native/llama_step.h"
#include "bench/native/sections.h"

namespace nibble::bench {
namespace {

constexpr int64_t kPrefill = 512;
constexpr int64_t kDecode = 64;
constexpr int64_t kDecodeBehindContext = 8;
constexpr int64_t kDecodeToWarmUp = 2;
constexpr int kRounds = 3;

// Token ids without a pattern that a cache or prefetcher could learn.
std::vector<int32_t> Tokens(int64_t count, int64_t vocabulary) {
  std::vector<int32_t> tokens(count);
  uint64_t state = 1;
  for (int32_t& t : tokens) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    t = static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocabulary));
  }
  return tokens;
}

// Seconds of decoding `count` tokens one by one behind `position` tokens.
double DecodeSeconds(LlamaStep& step, const std::vector<int32_t>& tokens, int64_t count,
                     int64_t position) {
  const double begin = Now();
  for (int64_t i = 0; i < count; ++i) step.Forward(&tokens[i], 1, position + i);
  return Now() - begin;
}

struct Subject {
  const Model& model;
  const Scheme& scheme;
  const LlamaWeights& weights;
};

class Measurement {
 public:
  Measurement(Run& run, Json& json, const Subject& subject, Limits& limits, nb_context* context,
              int64_t capacity)
      : run_(run),
        json_(json),
        subject_(subject),
        limits_(limits),
        threads_(nb_context_threads(context)),
        prefill_(run.options.smoke ? 8 : kPrefill),
        tokens_(Tokens(prefill_, subject.model.vocabulary())),
        step_(context, subject.model, subject.scheme, subject.weights, capacity, prefill_) {}

  void Prefill() {
    const Timing timing = Measure({run_.options.smoke ? 1 : kRounds, 0},
                                  [&] { step_.Forward(tokens_.data(), prefill_, 0); });
    double weights = 0;
    for (const Matrix& m : subject_.model.matrices) {
      if (m.name != "head") weights += static_cast<double>(m.n) * static_cast<double>(m.k);
    }
    // The projections alone: the head serves one token, attention is a small part at this length.
    const double operations = 2.0 * weights * subject_.model.layers * prefill_;
    const Rates rates = limits_.Now();
    Write("prefill", prefill_, 0, timing, 1,
          static_cast<double>(subject_.weights.bytes_per_token()), operations, rates);
  }

  void Decode(int64_t context) {
    const int64_t count = run_.options.smoke ? 2 : context == 0 ? kDecode : kDecodeBehindContext;
    if (context > 0) step_.FillCache(context);
    const Timing timing =
        Measure({run_.options.smoke ? 1 : kRounds, 0},
                [&] { DecodeSeconds(step_, tokens_, kDecodeToWarmUp, context); },
                [&] { DecodeSeconds(step_, tokens_, count, context); });
    const Rates rates = limits_.Now();
    // The middle token stands for all: the cache grows by one each time.
    const double cached = static_cast<double>(context) + static_cast<double>(count) / 2;
    const double bytes = static_cast<double>(subject_.weights.bytes_per_token()) +
                         cached * step_.cache_bytes_per_token();
    Write("decode", count, context, timing, count, bytes, 0, rates);
  }

 private:
  void Write(const char* phase, int64_t tokens, int64_t context, const Timing& timing,
             int64_t passes, double bytes, double operations, const Rates& rates) {
    const int32_t activation = subject_.scheme.projections->activation;
    const Bound bound = rates.Limit(bytes, operations, activation);
    json_.BeginObject()
        .Field("model", subject_.model.name)
        .Field("scheme", subject_.scheme.name)
        .Field("cache", TypeName(subject_.scheme.cache))
        .Field("phase", phase)
        .Field("threads", threads_)
        .Field("tokens", tokens)
        .Field("context", context);
    timing.Write(json_);
    json_.Field("tokens_per_s", static_cast<double>(tokens) / timing.median)
        .Field("weight_bytes", subject_.weights.bytes_per_token())
        .Field("bytes_per_pass", bytes)
        .Field("read_limit_gb_per_s", rates.read / 1e9)
        .Field("arithmetic_limit_gops", rates.Arithmetic(activation) / 1e9)
        .Field("bound", bound.memory ? "memory" : "arithmetic")
        .Field("share_of_limit", bound.limit_seconds * static_cast<double>(passes) / timing.median)
        .EndObject();
  }

  Run& run_;
  Json& json_;
  Subject subject_;
  Limits& limits_;
  int threads_;
  int64_t prefill_;
  std::vector<int32_t> tokens_;
  LlamaStep step_;
};

int64_t Capacity(const Run& run) {
  int64_t most = kPrefill;
  for (const int64_t context : run.list.contexts) most = std::max(most, context + kDecode);
  return most;
}

// Calls body for each model and scheme that is wanted; schemes with the same weights stand next
// to each other in the list and share them.
template <class Body>
void ForEach(Run& run, nb_context* context, const Body& body) {
  for (const Model& model : run.list.models) {
    const bool chosen = run.options.models.empty()
                            ? run.options.full || &model == &run.list.models.front()
                            : run.options.models.count(model.name) > 0;
    if (!chosen) continue;
    std::unique_ptr<LlamaWeights> weights;
    const Scheme* made_for = nullptr;
    for (const Scheme& scheme : run.list.schemes) {
      if (!Options::Wants(run.options.schemes, scheme.name)) continue;
      run.progress(model.name + " " + scheme.name);
      try {
        const bool same = made_for != nullptr &&
                          made_for->projections->format.code_type ==
                              scheme.projections->format.code_type &&
                          made_for->projections->format.scale_type ==
                              scheme.projections->format.scale_type &&
                          made_for->projections->format.group_size ==
                              scheme.projections->format.group_size &&
                          made_for->head->format.code_type == scheme.head->format.code_type;
        if (!same) {
          weights.reset();
          weights = std::make_unique<LlamaWeights>(context, model, scheme);
          made_for = &scheme;
        }
        body(Subject{model, scheme, *weights});
      } catch (const Unsupported& e) {
        run.skipped.push_back("model " + model.name + " " + scheme.name + ": " + e.what());
      }
    }
  }
}

}  // namespace

void RunModels(Run& run, Json& json) {
  const ContextPtr context = NewContext(run.options.threads);
  json.BeginArray();
  ForEach(run, context.get(), [&](const Subject& subject) {
    Measurement m(run, json, subject, run.limits, context.get(), Capacity(run));
    m.Prefill();
    for (const int64_t tokens : run.list.contexts) m.Decode(tokens);
  });
  json.EndArray();
}

void RunThreads(Run& run, Json& json) {
  const ContextPtr context = NewContext(run.options.threads);
  json.BeginArray();
  ForEach(run, context.get(), [&](const Subject& subject) {
    for (int threads = 1; threads <= run.options.threads; ++threads) {
      run.progress(subject.model.name + " " + subject.scheme.name + " " +
                   std::to_string(threads) + " threads");
      // The limit, too, is that of so many threads.
      Limits limits(threads, run.options.smoke);
      const ContextPtr some = NewContext(threads);
      Measurement m(run, json, subject, limits, some.get(), kPrefill);
      m.Prefill();
      m.Decode(0);
    }
  });
  json.EndArray();
}

void ServeDecode(const Model& model, const Scheme& scheme, int threads) {
  const ContextPtr context = NewContext(threads);
  const LlamaWeights weights(context.get(), model, scheme);
  constexpr int64_t kMost = 4096;
  LlamaStep step(context.get(), model, scheme, weights, kMost, 1);
  const std::vector<int32_t> tokens = Tokens(kMost, model.vocabulary());
  std::printf("{\"ready\": true, \"weight_bytes\": %lld}\n",
              static_cast<long long>(weights.bytes_per_token()));
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string what;
    int64_t count = 0;
    if (!(words >> what >> count) || what != "decode" || count < 1 || count > kMost) {
      throw std::runtime_error("standard input: \"" + line + "\" given, expected \"decode N\", N " +
                               "1 to " + std::to_string(kMost));
    }
    std::printf("{\"tokens\": %lld, \"seconds\": %.9g}\n", static_cast<long long>(count),
                DecodeSeconds(step, tokens, count, 0));
    std::fflush(stdout);
  }
}

}  // namespace nibble::bench
