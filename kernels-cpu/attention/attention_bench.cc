// SPDX-License-Identifier: Apache-2.0
//
// Attention of LLaMA shapes: decode in bytes of cache read per second (the caches of all
// layers together exceed the processor's, as they do in a forward pass), prefill in
// floating-point operations per second (4 head_dim for each query and key it may see).
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "kernels-cpu/attention/attention.h"

namespace nibble {
namespace {

// Arguments: type, query heads, kv heads, head size, tokens, threads.
struct Setup {
  explicit Setup(const benchmark::State& state, int layers, int64_t rows)
      : q_heads(state.range(1)), dim(state.range(3)), workspace(static_cast<int>(state.range(5))) {
    KvCacheShape shape;
    shape.type = static_cast<DType>(state.range(0));
    shape.layers = layers;
    shape.kv_heads = static_cast<int>(state.range(2));
    shape.head_dim = static_cast<int>(dim);
    shape.group_size = dim;
    shape.capacity = state.range(4);
    cache.emplace_back(shape);
    std::minstd_rand random(1);
    std::normal_distribution<float> normal;
    const int64_t kv_width = shape.kv_heads * dim;
    std::vector<float> k(shape.capacity * kv_width), v(k.size());
    for (float& x : k) x = normal(random);
    for (float& x : v) x = normal(random);
    q.resize(rows * q_heads * dim);
    for (float& x : q) x = normal(random);
    y.resize(q.size());
    const Sequence s = {&cache[0], 0, shape.capacity};
    for (int layer = 0; layer < layers; ++layer) {
      RopeAppend(workspace, layer, nullptr, 0, q_heads, k.data(), kv_width, v.data(), kv_width,
                 nullptr, 0, &s, 1);
    }
  }

  void Attend(int layer, int64_t start, int64_t rows) {
    const Sequence s = {&cache[0], start, rows};
    Attention(workspace, layer, q.data(), q_heads * dim, q_heads, 0.125f, &s, 1, y.data(),
              q_heads * dim);
    benchmark::ClobberMemory();
  }

  int64_t q_heads, dim;
  Workspace workspace;
  std::vector<KvCache> cache;
  std::vector<float> q, y;
};

void AttentionDecode(benchmark::State& state) {
  constexpr int kLayers = 16;
  Setup setup(state, kLayers, 1);
  int layer = 0;
  for (auto _ : state) {
    setup.Attend(layer, state.range(4) - 1, 1);
    layer = (layer + 1) % kLayers;
  }
  state.SetBytesProcessed(state.iterations() * setup.cache[0].bytes() / kLayers);
}

void AttentionPrefill(benchmark::State& state) {
  const int64_t rows = state.range(4);
  Setup setup(state, 1, rows);
  for (auto _ : state) setup.Attend(0, 0, rows);
  const double pairs = static_cast<double>(setup.q_heads * rows) * (rows + 1) / 2;
  state.counters["FLOP/s"] = benchmark::Counter(
      4.0 * static_cast<double>(setup.dim) * pairs, benchmark::Counter::kIsIterationInvariantRate);
}

void KvAppend(benchmark::State& state) {
  const int64_t rows = state.range(4), width = state.range(2) * state.range(3);
  Setup setup(state, 1, rows);
  const std::vector<float> k(rows * width, 0.5f), angles(rows * state.range(3), 0.7f);
  const Sequence s = {&setup.cache[0], 0, rows};
  for (auto _ : state) {
    RopeAppend(setup.workspace, 0, setup.q.data(), setup.q_heads * setup.dim, setup.q_heads,
               k.data(), width, k.data(), width, angles.data(), setup.dim, &s, 1);
  }
  state.SetItemsProcessed(state.iterations() * rows);
}

constexpr int64_t kTypes[] = {static_cast<int64_t>(DType::kI4), static_cast<int64_t>(DType::kI8),
                              static_cast<int64_t>(DType::kBF16),
                              static_cast<int64_t>(DType::kF32)};

void DecodeShapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"type", "q", "kv", "dim", "tokens", "threads"});
  for (const int64_t type : kTypes) {
    for (const int64_t threads : {1, 2}) {
      b->Args({type, 32, 8, 64, 4096, threads});    // LLaMA 3.2 1B
      b->Args({type, 32, 32, 128, 1024, threads});  // LLaMA 2 7B
    }
  }
}

void PrefillShapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"type", "q", "kv", "dim", "tokens", "threads"});
  for (const int64_t type : kTypes) {
    for (const int64_t threads : {1, 2}) {
      b->Args({type, 32, 8, 64, 512, threads});
      b->Args({type, 32, 32, 128, 512, threads});
    }
  }
}

BENCHMARK(AttentionDecode)->Apply(DecodeShapes)->UseRealTime();
BENCHMARK(AttentionPrefill)->Apply(PrefillShapes)->UseRealTime();
BENCHMARK(KvAppend)->Apply(PrefillShapes)->UseRealTime();

}  // namespace
}  // namespace nibble
