// SPDX-License-Identifier: Apache-2.0
//
// For tests: a tiny model's decode step over a batch of sequences, with all its tensors in memory
// from nb_memory_allocate, made call by call or as a graph, on any device.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "native/tests/abi_test.h"

namespace nibble {

struct GraphDeleter {
  void operator()(nb_graph* g) const { nb_graph_destroy(g); }
};
using GraphPtr = std::unique_ptr<nb_graph, GraphDeleter>;

// Memory of a context's device, filled and read by copies.
class DeviceMemory {
 public:
  DeviceMemory(nb_context* context, int64_t bytes) : context_(context), bytes_(bytes) {
    EXPECT_EQ(nb_memory_allocate(context, bytes, &memory_), NB_OK) << nb_last_error();
  }
  template <class T>
  DeviceMemory(nb_context* context, const std::vector<T>& values)
      : DeviceMemory(context, static_cast<int64_t>(values.size() * sizeof(T))) {
    Write(values);
  }
  ~DeviceMemory() { EXPECT_EQ(nb_memory_free(memory_), NB_OK) << nb_last_error(); }
  DeviceMemory(DeviceMemory&& other) noexcept
      : context_(other.context_), bytes_(other.bytes_), memory_(other.memory_) {
    other.memory_ = nullptr;
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* data() const { return memory_; }
  int64_t bytes() const { return bytes_; }

  template <class T>
  void Write(const std::vector<T>& values) {
    EXPECT_EQ(nb_memory_copy(context_, memory_, values.data(),
                             static_cast<int64_t>(values.size() * sizeof(T))),
              NB_OK)
        << nb_last_error();
  }
  template <class T>
  std::vector<T> Read() const {
    std::vector<T> values(static_cast<size_t>(bytes_) / sizeof(T));
    EXPECT_EQ(nb_memory_copy(context_, values.data(), memory_, bytes_), NB_OK) << nb_last_error();
    return values;
  }
  nb_tensor AsTensor(int32_t dtype, std::initializer_list<int64_t> shape) const {
    nb_tensor t = Tensor(dtype, memory_, shape);
    if (dtype == NB_F64) t.byte_length *= 8;
    EXPECT_LE(t.byte_length, bytes_);
    return t;
  }

 private:
  nb_context* context_;
  int64_t bytes_;
  void* memory_ = nullptr;
};

struct StepScheme {
  const char* name;
  nb_weight_format projections, embedding;
  int32_t activation, cache;
};

inline const StepScheme kStepSchemes[] = {
    {"f32", Format(NB_F32), Format(NB_F32), NB_F32, NB_F32},
    {"bf16", Format(NB_BF16), Format(NB_BF16), NB_BF16, NB_BF16},
    {"w4a8", Format(NB_I4, NB_E4M3, 32), Format(NB_I8, NB_F32), NB_E4M3, NB_I4},
    {"w4a8i", Format(NB_I4, NB_POW2, 32), Format(NB_I8, NB_F32), NB_I8, NB_I4},
    {"w6a16", Format(NB_E3M2, NB_F32), Format(NB_I8, NB_F32), NB_BF16, NB_I8},
};

// One layer, sizes that fill no tile. Every context makes the same weights.
class DecodeStep {
 public:
  static constexpr int64_t kHidden = 72, kInner = 100, kVocabulary = 61, kDim = 64, kHeads = 2,
                           kKvHeads = 1, kCapacity = 40;
  static constexpr int64_t kQ = kHeads * kDim, kKv = kKvHeads * kDim;

  DecodeStep(nb_context* context, const StepScheme& scheme, int64_t sequences)
      : context_(context),
        scheme_(scheme),
        rows_(sequences),
        x_(context, F(kHidden)),
        q_(context, F(kQ)),
        k_(context, F(kKv)),
        v_(context, F(kKv)),
        y_(context, F(kQ)),
        h_(context, F(kInner)),
        angles_(context, F(kDim)),
        logits_(context, F(kVocabulary)),
        ids_(context, rows_ * 4),
        chosen_(context, rows_ * 4),
        uniforms_(context, std::vector<double>(static_cast<size_t>(rows_), 0.37)),
        norm_(context, NormWeights()),
        frequencies_(context, Frequencies()),
        bias_(context, Values(kQ, 0.1f)) {
    wq_ = Pack(scheme.projections, kQ, kHidden);
    wk_ = Pack(scheme.projections, kKv, kHidden);
    wv_ = Pack(scheme.projections, kKv, kHidden);
    wo_ = Pack(scheme.projections, kHidden, kQ);
    gate_ = Pack(scheme.projections, kInner, kHidden);
    up_ = Pack(scheme.projections, kInner, kHidden);
    down_ = Pack(scheme.projections, kHidden, kInner);
    table_ = Pack(scheme.embedding, kVocabulary, kHidden);
    for (int64_t i = 0; i < sequences; ++i) {
      caches_.push_back(MakeCache(context, scheme.cache, 1, kKvHeads, kDim, kCapacity + i));
    }
  }

  // Every sequence at its own position: sequence i is i tokens ahead.
  std::vector<nb_sequence> Sequences(int64_t step) const {
    std::vector<nb_sequence> s;
    for (size_t i = 0; i < caches_.size(); ++i) {
      s.push_back({caches_[i].get(), step + static_cast<int64_t>(i), 1});
    }
    return s;
  }

  // The first tokens of sequence i, so that its cache holds as many as Sequences(0) expects.
  void Prefill() {
    for (int64_t i = 1; i < rows_; ++i) {
      const std::vector<float> q = Values(i * kQ, 1), kv = Values(i * kKv, 1);
      const nb_tensor qt = F32(q, {i, kQ}), kt = F32(kv, {i, kKv});
      const nb_sequence s = {caches_[static_cast<size_t>(i)].get(), 0, i};
      Check(nb_rope_append(context_, 0, &qt, &kt, &kt, nullptr, &s, 1));
    }
  }

  // The calls of one step: from ids to chosen ids, which become the next step's.
  void Calls(const std::vector<nb_sequence>& s) {
    const auto count = static_cast<int32_t>(s.size());
    const nb_tensor x = T(x_, kHidden), q = T(q_, kQ), k = T(k_, kKv), v = T(v_, kKv),
                    y = T(y_, kQ), h = T(h_, kInner), a = T(angles_, kDim),
                    l = T(logits_, kVocabulary);
    const nb_tensor ids = ids_.AsTensor(NB_I32, {rows_}), norm = norm_.AsTensor(NB_F32, {kHidden}),
                    chosen = chosen_.AsTensor(NB_I32, {rows_}),
                    bias = bias_.AsTensor(NB_F32, {kQ}),
                    frequencies = frequencies_.AsTensor(NB_F32, {kDim / 2}),
                    uniforms = uniforms_.AsTensor(NB_F64, {rows_});
    const int32_t type = scheme_.activation;
    Check(nb_embedding(context_, table_.get(), &ids, &x));
    Check(nb_rope_angles(context_, &frequencies, s.data(), count, &a));
    const nb_projection qkv[] = {{wq_.get(), &bias, nullptr, &q},
                                 {wk_.get(), nullptr, nullptr, &k},
                                 {wv_.get(), nullptr, nullptr, &v}};
    Check(nb_matmul(context_, type, &x, &norm, 1e-5f, qkv, 3));
    Check(nb_rope_append(context_, 0, &q, &k, &v, &a, s.data(), count));
    Check(nb_attention(context_, 0, &q, 0.125f, s.data(), count, &y));
    const nb_projection o = {wo_.get(), nullptr, &x, &x};
    Check(nb_matmul(context_, type, &y, nullptr, 0, &o, 1));
    Check(nb_swiglu_matmul(context_, type, &x, &norm, 1e-5f, gate_.get(), nullptr, up_.get(),
                           nullptr, &h));
    const nb_projection down = {down_.get(), nullptr, &x, &x};
    Check(nb_matmul(context_, type, &h, nullptr, 0, &down, 1));
    const nb_projection head = {table_.get(), nullptr, nullptr, &l};
    Check(nb_matmul(context_, type, &x, &norm, 1e-5f, &head, 1));
    const nb_sample_options options = {sizeof(nb_sample_options), 0.8f, 20, 0.95f, 0.01f};
    Check(nb_sample(context_, &l, &options, &uniforms, &chosen));
    Check(nb_memory_copy(context_, ids_.data(), chosen_.data(), rows_ * 4));
  }

  GraphPtr Record(int64_t max_tokens) {
    nb_graph* graph = nullptr;
    Check(nb_graph_begin(context_, max_tokens));
    Calls(Sequences(0));
    Check(nb_graph_end(context_, &graph));
    return GraphPtr(graph);
  }

  void SetIds(const std::vector<int32_t>& ids) { ids_.Write(ids); }
  std::vector<int32_t> Ids() const { return ids_.Read<int32_t>(); }
  std::vector<float> Logits() const { return logits_.Read<float>(); }
  int64_t Length(size_t i) const { return nb_kv_cache_length(caches_[i].get(), 0); }
  nb_context* context() const { return context_; }

 private:
  int64_t F(int64_t cols) const { return rows_ * cols * 4; }
  nb_tensor T(const DeviceMemory& m, int64_t cols) const {
    return m.AsTensor(NB_F32, {rows_, cols});
  }
  std::vector<float> Values(int64_t count, float scale) {
    return NormalValues(random_, count, scale);
  }
  std::vector<float> NormWeights() {
    std::vector<float> w = Values(kHidden, 0.2f);
    for (float& x : w) x += 1;
    return w;
  }
  static std::vector<float> Frequencies() {
    std::vector<float> f;
    for (int64_t i = 0; i < kDim / 2; ++i) {
      f.push_back(std::pow(10000.0f, -2.0f * static_cast<float>(i) / kDim));
    }
    return f;
  }
  MatrixPtr Pack(const nb_weight_format& format, int64_t rows, int64_t cols) {
    return QuantizeMatrix(context_, format,
                          Values(rows * cols, 1 / std::sqrt(static_cast<float>(cols))), rows,
                          cols);
  }
  static void Check(nb_status status) { EXPECT_EQ(status, NB_OK) << nb_last_error(); }

  nb_context* context_;
  StepScheme scheme_;
  int64_t rows_;
  std::mt19937_64 random_ = TestRandom(811);
  DeviceMemory x_, q_, k_, v_, y_, h_, angles_, logits_, ids_, chosen_, uniforms_, norm_,
      frequencies_, bias_;
  MatrixPtr wq_, wk_, wv_, wo_, gate_, up_, down_, table_;
  std::vector<CachePtr> caches_;
};

// What `steps` steps give: the chosen ids and the logits of each.
struct StepResults {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<float>> logits;
};

inline StepResults RunSteps(nb_context* context, const StepScheme& scheme, int64_t sequences,
                            int steps, bool graph) {
  DecodeStep step(context, scheme, sequences);
  StepResults results;
  std::vector<int32_t> first;
  for (int64_t i = 0; i < sequences; ++i) first.push_back(static_cast<int32_t>(7 * i + 3));
  step.Prefill();
  const GraphPtr recorded = graph ? step.Record(0) : nullptr;
  step.SetIds(first);
  for (int i = 0; i < steps; ++i) {
    const std::vector<nb_sequence> s = step.Sequences(i);
    if (graph) {
      EXPECT_EQ(nb_graph_launch(context, recorded.get(), s.data(), static_cast<int32_t>(s.size())),
                NB_OK)
          << nb_last_error();
    } else {
      step.Calls(s);
    }
    results.ids.push_back(step.Ids());
    results.logits.push_back(step.Logits());
    for (size_t q = 0; q < s.size(); ++q) {
      EXPECT_EQ(step.Length(q), i + 1 + static_cast<int64_t>(q)) << scheme.name;
    }
  }
  return results;
}

// A graph's steps have the bits of the calls made one by one.
inline void ExpectGraphRepeatsCalls(nb_context* context, const StepScheme& scheme) {
  for (const int64_t sequences : {1, 3}) {
    const StepResults calls = RunSteps(context, scheme, sequences, 5, false);
    const StepResults graph = RunSteps(context, scheme, sequences, 5, true);
    for (size_t i = 0; i < calls.ids.size(); ++i) {
      EXPECT_EQ(graph.ids[i], calls.ids[i]) << scheme.name << ", step " << i;
      ASSERT_EQ(graph.logits[i].size(), calls.logits[i].size());
      EXPECT_EQ(std::memcmp(graph.logits[i].data(), calls.logits[i].data(),
                            calls.logits[i].size() * sizeof(float)),
                0)
          << scheme.name << ", step " << i;
      for (const int32_t id : calls.ids[i]) {
        EXPECT_TRUE(id >= 0 && id < DecodeStep::kVocabulary) << id;
      }
    }
    // One sequence alone may repeat a token, and then itself: its values are all the same.
    if (sequences > 1) {
      EXPECT_NE(calls.logits.front(), calls.logits.back()) << "nothing moves";
    }
  }
}

// What graphs refuse; other: another context of the same device.
inline void ExpectGraphRefusals(nb_context* context, nb_context* other) {
  DecodeStep step(context, kStepSchemes[0], 2);
  step.Prefill();
  nb_graph* graph = nullptr;
  ExpectFailure(nb_graph_end(context, &graph), NB_INVALID_ARGUMENT, "nb_graph_end",
                {"not recording"});
  ExpectFailure(nb_graph_begin(context, -1), NB_INVALID_ARGUMENT, "nb_graph_begin",
                {"max_tokens: -1"});
  ASSERT_EQ(nb_graph_begin(context, 8), NB_OK);
  ExpectFailure(nb_graph_begin(context, 8), NB_INVALID_ARGUMENT, "nb_graph_begin",
                {"records a graph"});
  ExpectFailure(nb_synchronize(context), NB_INVALID_ARGUMENT, "nb_synchronize",
                {"records a graph"});
  void* memory = nullptr;
  ExpectFailure(nb_memory_allocate(context, 16, &memory), NB_INVALID_ARGUMENT,
                "nb_memory_allocate", {"records a graph"});
  const std::vector<float> w(16, 1.0f);
  const nb_tensor wt = F32(w, {4, 4});
  const nb_weight_format f32 = Format(NB_F32);
  nb_matrix* matrix = nullptr;
  ExpectFailure(nb_matrix_quantize(context, &f32, &wt, &matrix), NB_INVALID_ARGUMENT,
                "nb_matrix_quantize", {"records a graph"});
  std::vector<float> sum(16);
  const nb_tensor st = F32(sum, {4, 4});
  ExpectFailure(nb_add(context, &wt, &wt, &st), NB_INVALID_ARGUMENT, "nb_add",
                {"a: in ordinary memory", "nb_memory_allocate"});
  const std::vector<nb_sequence> s = step.Sequences(0);
  step.Calls(s);
  // Another batch than that of the calls so far; what fails leaves no trace.
  DeviceMemory angles(other, 2 * DecodeStep::kDim * 4);
  DeviceMemory frequencies(other, DecodeStep::kDim * 2);
  const nb_tensor at = angles.AsTensor(NB_F32, {2, DecodeStep::kDim});
  const nb_tensor ft = frequencies.AsTensor(NB_F32, {DecodeStep::kDim / 2});
  const nb_sequence one = {s[0].cache, 0, 2};
  ExpectFailure(nb_rope_angles(context, &ft, &one, 1, &at), NB_INVALID_ARGUMENT, "nb_rope_angles",
                {"count: 1 but 2"});
  const nb_sequence swapped[] = {{s[0].cache, 0, 0}, {s[1].cache, 0, 2}};
  ExpectFailure(nb_rope_angles(context, &ft, swapped, 2, &at), NB_INVALID_ARGUMENT,
                "nb_rope_angles", {"sequences[0]: other rows"});
  ASSERT_EQ(nb_graph_end(context, &graph), NB_OK) << nb_last_error();
  const GraphPtr owner(graph);

  const auto launch = [&](std::vector<nb_sequence> list, const char* part) {
    ExpectFailure(nb_graph_launch(context, graph, list.data(), static_cast<int32_t>(list.size())),
                  NB_INVALID_ARGUMENT, "nb_graph_launch", {part});
  };
  launch({s[0]}, "count: 1 but 2");
  launch({s[1], s[0]}, "sequences[0].cache: another cache");
  launch({s[0], {s[1].cache, 1, 2}}, "sequences[1].rows: 2 but 1");
  launch({s[0], {s[1].cache, 3, 1}}, "sequences[1].start: 3 but at most 1");
  launch({s[0], {s[1].cache, -1, 1}}, "sequences[1].start: -1");
  launch({s[0], {s[1].cache, 8, 1}}, "at most 8 was expected: max_tokens");
  ExpectFailure(nb_graph_launch(other, graph, s.data(), 2), NB_INVALID_ARGUMENT,
                "nb_graph_launch", {"graph: recorded by another context"});
  ExpectFailure(nb_graph_launch(context, nullptr, s.data(), 2), NB_INVALID_ARGUMENT,
                "nb_graph_launch", {"graph: NULL"});
  EXPECT_EQ(step.Length(0), 0) << "a refused launch appended";
  step.SetIds({1, 2});
  EXPECT_EQ(nb_graph_launch(context, graph, s.data(), 2), NB_OK) << nb_last_error();
  EXPECT_EQ(step.Length(0), 1);
  EXPECT_EQ(step.Length(1), 2);
}

}  // namespace nibble
