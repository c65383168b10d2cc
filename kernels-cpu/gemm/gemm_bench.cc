// SPDX-License-Identifier: Apache-2.0
//
// Products at the shapes of Llama-3.2-1B's feed-forward block. Decode cycles through
// enough matrices that each comes from memory, as in a forward pass; "bytes/s" is packed
// weight bytes. "FLOP/s" counts a multiply-add as two.
//
//   kernels_cpu_benchmarks --benchmark_filter=gemm --benchmark_repetitions=5
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "kernels-cpu/gemm/gemm.h"
#include "kernels-cpu/gemm/weights_for_test.h"

namespace nibble {
namespace {

constexpr int64_t kColdBytes = int64_t{256} << 20;  // more than any cache here

struct Setup {
  const char* name;
  WeightFormat format;
  DType activation;
};

const Setup kSetups[] = {
    {"a8f_w4", {DType::kI4, DType::kE4M3, 128}, DType::kE4M3},
    {"a8i_w4", {DType::kI4, DType::kE4M3, 128}, DType::kI8},
    {"a16_w6e3m2", {DType::kE3M2, DType::kF32, 0}, DType::kBF16},
    {"a8f_w6e3m2", {DType::kE3M2, DType::kF32, 0}, DType::kE4M3},
    {"a8i_w8i", {DType::kI8, DType::kF32, 0}, DType::kI8},
    {"a16_bf16", {DType::kBF16, DType::kNone, 0}, DType::kBF16},
    {"f32_f32", {DType::kF32, DType::kNone, 0}, DType::kF32},
};

void MatMulBench(benchmark::State& state, const Setup& setup, int64_t rows, int64_t n, int64_t k) {
  Workspace workspace(AvailableThreads());
  std::mt19937_64 random(1);
  CanonicalStorage weights = RandomWeights(random, setup.format, n, k);
  std::vector<PackedMatrix> matrices;
  do {
    matrices.push_back(PackMatrix(workspace.pool(), setup.format, n, k, weights.view()));
  } while (rows <= 16 &&
           matrices.back().packed_bytes() * static_cast<int64_t>(matrices.size()) < kColdBytes);
  std::vector<float> x(rows * k), y(rows * n);
  for (float& v : x) v = std::normal_distribution<float>()(random);
  const GemmInput input{setup.activation, x.data(), rows, k, k};
  size_t next = 0;
  for (auto _ : state) {
    const GemmOutput out{&matrices[next++ % matrices.size()], nullptr, nullptr, 0, y.data(), n};
    MatMul(workspace, input, &out, 1);
    benchmark::ClobberMemory();
  }
  const double calls = static_cast<double>(state.iterations());
  state.counters["bytes/s"] =
      benchmark::Counter(calls * matrices[0].packed_bytes(), benchmark::Counter::kIsRate);
  state.counters["FLOP/s"] = benchmark::Counter(calls * 2 * rows * n * k, benchmark::Counter::kIsRate);
}

const bool registered = [] {
  for (const Setup& setup : kSetups) {
    for (const int64_t rows : {1, 4, 8, 512}) {
      benchmark::RegisterBenchmark(
          ("gemm_f32_" + std::string(setup.name) + "_tile16/rows:" + std::to_string(rows)).c_str(),
          [&setup, rows](benchmark::State& s) { MatMulBench(s, setup, rows, 8192, 2048); })
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
  return true;
}();

}  // namespace
}  // namespace nibble
