// SPDX-License-Identifier: Apache-2.0
//
// Row kernels on one thread, in bytes read and written per second: rows of the usual
// model widths (in the caches, as they are in a forward pass).
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels-cpu/elementwise/elementwise.h"

namespace nibble {
namespace {

std::vector<float> Ramp(int64_t n) {
  std::vector<float> x(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(i % 251) / 50 - 2.5f;
  return x;
}

void Report(benchmark::State& state, int64_t bytes_per_element) {
  state.SetBytesProcessed(state.iterations() * state.range(0) * bytes_per_element);
}

void RmsNormRow(benchmark::State& state) {
  const std::vector<float> x = Ramp(state.range(0)), w = Ramp(state.range(0));
  std::vector<float> y(x.size());
  for (auto _ : state) {
    nibble::RmsNormRow(x.data(), w.data(), 1e-5f, state.range(0), y.data());
    benchmark::ClobberMemory();
  }
  Report(state, 12);
}

void QuantizeRowE4M3(benchmark::State& state) {
  const std::vector<float> x = Ramp(state.range(0));
  std::vector<uint8_t> codes(x.size());
  for (auto _ : state) {
    benchmark::DoNotOptimize(nibble::QuantizeRowE4M3(x.data(), state.range(0), codes.data()));
    benchmark::ClobberMemory();
  }
  Report(state, 5);
}

void QuantizeRowI8(benchmark::State& state) {
  const std::vector<float> x = Ramp(state.range(0));
  std::vector<int8_t> codes(x.size());
  for (auto _ : state) {
    benchmark::DoNotOptimize(nibble::QuantizeRowI8(x.data(), state.range(0), codes.data()));
    benchmark::ClobberMemory();
  }
  Report(state, 5);
}

void SwiGluRow(benchmark::State& state) {
  const std::vector<float> gate = Ramp(state.range(0)), up = Ramp(state.range(0));
  std::vector<float> y(gate.size());
  for (auto _ : state) {
    nibble::SwiGluRow(gate.data(), up.data(), state.range(0), y.data());
    benchmark::ClobberMemory();
  }
  Report(state, 12);
}

void AddRow(benchmark::State& state) {
  const std::vector<float> a = Ramp(state.range(0)), b = Ramp(state.range(0));
  std::vector<float> y(a.size());
  for (auto _ : state) {
    nibble::AddRow(a.data(), b.data(), state.range(0), y.data());
    benchmark::ClobberMemory();
  }
  Report(state, 12);
}

BENCHMARK(RmsNormRow)->Arg(2048)->Arg(8192);
BENCHMARK(QuantizeRowE4M3)->Arg(2048)->Arg(8192);
BENCHMARK(QuantizeRowI8)->Arg(2048)->Arg(8192);
BENCHMARK(SwiGluRow)->Arg(2048)->Arg(8192);
BENCHMARK(AddRow)->Arg(2048)->Arg(8192);

}  // namespace
}  // namespace nibble
