// SPDX-License-Identifier: Apache-2.0
//
// Attention of LLaMA shapes (LLaMA 3.2 1B: heads of 64, LLaMA 3 8B: heads of 128, LLaMA 2 7B:
// as many kv heads as query heads).
//
//   AttentionDecode    one token at the end of `keys` keys. cold = 1: the calls go round layers
//                      that together exceed any processor's caches, as the weights between two
//                      layers push a layer's cache out in a forward pass. cold = 0: one layer
//                      again and again, from whatever cache holds it. Bytes are those of the keys
//                      and values with their scales.
//   AttentionPrefill   `rows` tokens of an empty cache at once; floating-point operations are
//                      4 head_dim for each query and key it may see. Keys and values were
//                      written a moment before in real use, so nothing is made cold.
//   KvAppend           rotation and append of `rows` tokens.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels-cpu/attention/attention.h"

namespace nibble {
namespace {

// More than the last-level cache of any server of one socket.
constexpr int64_t kColdBytes = int64_t{1} << 30;

struct Case {
  DType type;
  int q_heads, kv_heads, dim;
  int64_t tokens, rows;
  bool cold;

  bool operator==(const Case& o) const {
    return type == o.type && q_heads == o.q_heads && kv_heads == o.kv_heads && dim == o.dim &&
           tokens == o.tokens && rows == o.rows && cold == o.cold;
  }
};

// A full cache and queries; every layer holds a copy of the same keys and values.
class Setup {
 public:
  explicit Setup(const Case& c) : c(c) {
    KvCacheShape shape;
    shape.type = c.type;
    shape.kv_heads = c.kv_heads;
    shape.head_dim = c.dim;
    shape.group_size = c.dim;
    shape.capacity = c.tokens;
    const int64_t layer_bytes = KvBlockLayout(shape).bytes * shape.kv_heads *
                                DivUp(shape.capacity, kKvBlockTokens);
    if (c.cold) shape.layers = static_cast<int>(DivUp(kColdBytes, layer_bytes));
    cache = std::make_unique<KvCache>(shape);
    std::minstd_rand random(1);
    std::normal_distribution<float> normal;
    // Values repeat after a while: random numbers cost more than everything else here.
    const auto fill = [&](std::vector<float>& x, size_t n) {
      x.resize(n);
      const size_t fresh = std::min<size_t>(n, 99991);
      for (size_t i = 0; i < fresh; ++i) x[i] = normal(random);
      for (size_t i = fresh; i < n; ++i) x[i] = x[i - fresh];
    };
    std::vector<float> k, v;
    const int64_t width = int64_t{c.kv_heads} * c.dim;
    fill(k, c.tokens * width);
    fill(v, c.tokens * width);
    fill(q, c.rows * c.q_heads * c.dim);
    y.resize(q.size());
    Workspace workspace(2);
    const Sequence s = {cache.get(), 0, c.tokens};
    RopeAppend(workspace, 0, nullptr, 0, c.q_heads, k.data(), width, v.data(), width, nullptr, 0,
               &s, 1);
    for (int layer = 1; layer < shape.layers; ++layer) {
      std::memcpy(cache->Blocks(layer, 0), cache->Blocks(0, 0), layer_bytes);
      cache->SetLength(layer, c.tokens);
    }
    bytes = layer_bytes;
  }

  void Attend(Workspace& workspace) {
    const Sequence s = {cache.get(), c.tokens - c.rows, c.rows};
    const int64_t width = int64_t{c.q_heads} * c.dim;
    Attention(workspace, layer, q.data(), width, c.q_heads, 0.125f, &s, 1, y.data(), width);
    layer = (layer + 1) % cache->shape().layers;
    benchmark::ClobberMemory();
  }

  Case c;
  std::unique_ptr<KvCache> cache;
  std::vector<float> q, y;
  int layer = 0;
  int64_t bytes;  // of one layer
};

// The setup of a case; kept until another is asked for, since a benchmark starts several times.
Setup& SetupOf(const Case& c) {
  static std::unique_ptr<Setup> last;
  if (last == nullptr || !(last->c == c)) {
    last.reset();
    last = std::make_unique<Setup>(c);
  }
  return *last;
}

const char* TypeName(DType type) {
  switch (type) {
    case DType::kI4: return "kv4";
    case DType::kI8: return "kv8";
    case DType::kBF16: return "kv16";
    default: return "f32";
  }
}

// Arguments: type, query heads, kv heads, head size, keys or rows, threads, cold.
Case DecodeCase(const benchmark::State& state) {
  return {static_cast<DType>(state.range(0)),   static_cast<int>(state.range(1)),
          static_cast<int>(state.range(2)),     static_cast<int>(state.range(3)),
          state.range(4),                       1,
          state.range(6) != 0};
}

void AttentionDecode(benchmark::State& state) {
  Setup& setup = SetupOf(DecodeCase(state));
  Workspace workspace(static_cast<int>(state.range(5)));
  for (auto _ : state) setup.Attend(workspace);
  state.SetBytesProcessed(state.iterations() * setup.bytes);
  state.SetLabel(TypeName(setup.c.type));
}

void AttentionPrefill(benchmark::State& state) {
  Case c = DecodeCase(state);
  c.rows = c.tokens;
  Setup& setup = SetupOf(c);
  Workspace workspace(static_cast<int>(state.range(5)));
  for (auto _ : state) setup.Attend(workspace);
  const double pairs = static_cast<double>(c.q_heads * c.rows) * (c.rows + 1) / 2;
  state.counters["FLOP/s"] = benchmark::Counter(
      4.0 * c.dim * pairs, benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(TypeName(c.type));
}

void KvAppend(benchmark::State& state) {
  Case c = DecodeCase(state);
  c.rows = c.tokens;
  Setup& setup = SetupOf(c);
  Workspace workspace(static_cast<int>(state.range(5)));
  const int64_t width = int64_t{c.kv_heads} * c.dim, q_width = int64_t{c.q_heads} * c.dim;
  const std::vector<float> k(c.rows * width, 0.5f), angles(c.rows * c.dim, 0.7f);
  const Sequence s = {setup.cache.get(), 0, c.rows};
  for (auto _ : state) {
    RopeAppend(workspace, 0, setup.q.data(), q_width, c.q_heads, k.data(), width, k.data(), width,
               angles.data(), c.dim, &s, 1);
  }
  state.SetItemsProcessed(state.iterations() * c.rows);
  state.SetLabel(TypeName(c.type));
}

constexpr int64_t kTypes[] = {static_cast<int64_t>(DType::kI4), static_cast<int64_t>(DType::kI8),
                              static_cast<int64_t>(DType::kBF16),
                              static_cast<int64_t>(DType::kF32)};

void Names(benchmark::internal::Benchmark* b) {
  b->ArgNames({"type", "q", "kv", "dim", "keys", "threads", "cold"});
}

void DecodeShapes(benchmark::internal::Benchmark* b) {
  Names(b);
  for (const int64_t cold : {1, 0}) {
    for (const int64_t keys : {4096, 32768}) {
      if (cold == 0 && keys > 4096) continue;  // far from fitting any level but the last
      for (const int64_t dim : {64, 128}) {
        for (const int64_t type : kTypes) {
          for (const int64_t threads : {1, 2}) b->Args({type, 32, 8, dim, keys, threads, cold});
        }
      }
    }
  }
  for (const int64_t type : kTypes) b->Args({type, 32, 32, 128, 4096, 2, 1});  // LLaMA 2 7B
}

void PrefillShapes(benchmark::internal::Benchmark* b) {
  Names(b);
  for (const int64_t dim : {64, 128}) {
    for (const int64_t rows : {512, 2048}) {
      for (const int64_t type : kTypes) {
        for (const int64_t threads : {1, 2}) b->Args({type, 32, 8, dim, rows, threads, 0});
      }
    }
  }
}

void AppendShapes(benchmark::internal::Benchmark* b) {
  Names(b);
  for (const int64_t rows : {1, 512}) {
    for (const int64_t type : kTypes) b->Args({type, 32, 8, 64, rows, 2, 0});
  }
}

BENCHMARK(AttentionDecode)->Apply(DecodeShapes)->UseRealTime();
BENCHMARK(AttentionPrefill)->Apply(PrefillShapes)->UseRealTime();
BENCHMARK(KvAppend)->Apply(AppendShapes)->UseRealTime();

}  // namespace
}  // namespace nibble
