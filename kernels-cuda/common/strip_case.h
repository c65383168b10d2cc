// SPDX-License-Identifier: Apache-2.0
//
// One product with random operands, run on a device and compared with the F64 reference: what the
// tests of gemm_f6 and gemm_dense and of their mutants share.
//
// Exact cases have operands whose products and sums are all exact in F32 (small integers, scales
// that are powers of two), so that any order of summation gives the same bits: a single wrong bit,
// column or scale shows. The others have a tolerance. A result of K terms passes through at most
// K + K/16 + 8 roundings or truncations (a tensor core may cut where F32 rounds) of unit
// u = 2^-23: the error is at most gamma = n u / (1 - n u) times sum|terms| (Higham, Accuracy
// and Stability of Numerical Algorithms, 3.1), bias and residual included; BF16 results add 2^-8
// of themselves, a pair what gemm_test.cc of kernels-cpu derives for SwiGLU.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels-cpu/gemm/gemm_reference.h"
#include "kernels-cpu/gemm/weights_for_test.h"
#include "kernels-cpu/numerics/quantize.h"
#include "kernels-cuda/common/device.h"
#include "kernels-cuda/common/strip_layout.h"
#include "kernels-cuda/common/weights.h"

namespace nibble::cuda {

// Memory of a device, freed with it.
class StripMemory {
 public:
  StripMemory(Device& device, int64_t bytes) : device_(device), bytes_(bytes) {
    status_ = device.Allocate(bytes, &memory_);
  }
  template <class T>
  StripMemory(Device& device, const std::vector<T>& values)
      : StripMemory(device, static_cast<int64_t>(values.size() * sizeof(T))) {
    if (status_.ok() && bytes_ > 0) status_ = device.CopyIn(memory_, values.data(), bytes_);
  }
  ~StripMemory() { device_.Free(memory_); }
  StripMemory(const StripMemory&) = delete;
  StripMemory& operator=(const StripMemory&) = delete;
  DevicePtr at(int64_t byte = 0) const { return memory_ + static_cast<DevicePtr>(byte); }
  int64_t bytes() const { return bytes_; }
  const Status& status() const { return status_; }

 private:
  Device& device_;
  int64_t bytes_;
  DevicePtr memory_ = 0;
  Status status_;
};

struct StripCase {
  WeightFormat format{DType::kE3M2, DType::kF32, 0};
  DType activation = DType::kBF16;
  int64_t m = 1, n = 32, k = 64;
  bool pair = false, bias = false, residual = false, bf16_result = false;
  bool in_place = false;  // the residual is the output
  bool exact = true;
  bool odd = false;  // output rows of an odd stride, so that nothing is aligned
  bool truncated = false;   // FP8 products are summed as FP8 units do
  int64_t nan_token = -1;   // its activations are NaN
};

inline std::string Describe(const StripCase& c) {
  return nibble::Describe(c.format, c.n, c.k) + " activation " + std::to_string(int(c.activation)) +
         " tokens " + std::to_string(c.m) + (c.pair ? " pair" : "") + (c.bias ? " bias" : "") +
         (c.residual ? " residual" : "") + (c.in_place ? " in place" : "") +
         (c.bf16_result ? " bf16" : "") + (c.exact ? " exact" : "") + (c.odd ? " odd" : "");
}

// Codes and scales for exact cases.
inline CanonicalStorage ExactWeights(std::mt19937_64& random, const WeightFormat& f, int64_t rows,
                                     int64_t cols) {
  CanonicalStorage w = RandomWeights(random, f, rows, cols);
  const int bytes = CodeBytes(f.code);
  if (bytes > 0 && f.code != DType::kI8) {
    for (size_t i = 0; i < w.codes.size(); i += static_cast<size_t>(bytes)) {
      const float value = static_cast<float>(static_cast<int>(random() % 17) - 8);
      uint32_t code;
      if (f.code == DType::kF32) {
        std::memcpy(&code, &value, 4);
      } else {
        code = Encode(f.code, value);
      }
      std::memcpy(w.codes.data() + i, &code, static_cast<size_t>(bytes));
    }
  }
  for (size_t i = 0; i < w.scales.size(); i += static_cast<size_t>(f.ScaleBytes())) {
    const float value = std::ldexp(1.0f, static_cast<int>(random() % 3) - 1);
    uint32_t code;
    if (f.scale == DType::kF32) {
      std::memcpy(&code, &value, 4);
    } else {
      code = Encode(f.scale, value);
    }
    std::memcpy(w.scales.data() + i, &code, static_cast<size_t>(f.ScaleBytes()));
  }
  return w;
}

// Activations as gemm_call.h wants them, garbage where no kernel may look, and their values.
struct StripLeft {
  StripLeft(std::mt19937_64& random, const StripCase& c) {
    const bool codes = c.activation == DType::kE4M3 || c.activation == DType::kI8;
    bytes = c.activation == DType::kF32 ? 4 : c.activation == DType::kBF16 ? 2 : 1;
    stride = c.activation == DType::kF32
                 ? c.k + static_cast<int64_t>(random() % 3)
                 : RoundUp(c.k, 128) + 128 * static_cast<int64_t>(random() % 2);
    memory.assign(static_cast<size_t>(c.m * stride * bytes), 0xFF);
    std::normal_distribution<float> normal(0, 1);
    for (int64_t m = 0; m < c.m; ++m) {
      float scale = 1;
      if (codes) {
        scale = c.exact ? std::ldexp(1.0f, static_cast<int>(random() % 3))
                        : 0.01f + float(random() % 1000) / 3000;
        if (m == c.nan_token) scale = NAN;
        scales.push_back(scale);
      }
      std::vector<double>& row = values.emplace_back();
      const int64_t padded = c.activation == DType::kF32 ? c.k : RoundUp(c.k, 128);
      for (int64_t k = 0; k < padded; ++k) {
        float value = c.exact ? static_cast<float>(static_cast<int>(random() % 17) - 8)
                              : normal(random) * (codes ? 30 : 1);
        if (k >= c.k) value = 0;
        uint32_t code;
        if (m == c.nan_token && !codes && k == c.k / 2) value = NAN;
        if (c.activation == DType::kF32) {
          std::memcpy(&code, &value, 4);
        } else {
          code = Encode(c.activation, value);
          value = Decode(c.activation, code);
        }
        std::memcpy(memory.data() + (m * stride + k) * bytes, &code, static_cast<size_t>(bytes));
        if (k < c.k) row.push_back(static_cast<double>(value) * scale);
      }
    }
  }

  int bytes;
  int64_t stride;
  std::vector<uint8_t> memory;
  std::vector<float> scales;
  std::vector<std::vector<double>> values;
};

inline std::vector<uint8_t> PackAll(const GemmFamily& family, const WeightFormat& f, int64_t rows,
                                    int64_t cols, const CanonicalWeights& weights) {
  std::vector<uint8_t> packed(static_cast<size_t>(family.packed_bytes(f, rows, cols)), 0xFF);
  for (int64_t b = 0; b < family.row_blocks(rows); ++b) {
    family.pack(f, rows, cols, weights, b, packed.data());
  }
  return packed;
}

// Where FP8 units cut products and the sum so far to 13 bits below the largest of the 33, an
// instruction is off by up to 33 * 2^-13 times that one, which is at most the terms' sum of a
// brick; a brick has two instructions.
inline double StripGamma(const StripCase& c) {
  const double nu = static_cast<double>(c.k + c.k / 16 + 8) * std::exp2(-23);
  return nu / (1 - nu) + (c.truncated ? 2 * 33 * std::exp2(-13) : 0);
}

// For the mutation suite: cases that reach every line of the kernels for weights of this code type
// with these activations. Together they take well under a second in the emulator.
inline std::vector<StripCase> VerificationCases(DType code, DType activation) {
  std::vector<WeightFormat> formats = {{code, DType::kF32, 0}};
  if (IsUnquantized(code)) {
    formats = {{code, DType::kNone, 0}};
  } else {
    for (const int64_t group : {64, 32, 48}) {
      formats.push_back({code, group == 32 ? DType::kBF16 : DType::kF16, group});
    }
  }
  std::vector<StripCase> cases;
  for (const WeightFormat& f : formats) {
    StripCase c;
    c.format = f;
    c.activation = activation;
    const bool first = f.group_size == 0;
    c.m = 5, c.n = 45, c.k = first ? 1700 : 700, c.bias = c.residual = true;
    cases.push_back(c);
    c.m = 1, c.n = 64, c.bf16_result = c.odd = true, c.bias = false;
    if (first) cases.push_back(c);
    c = {f, activation, 3, 37, first ? 1300 : 500};
    c.pair = c.bias = true;
    c.exact = false;
    cases.push_back(c);
    c = {f, activation, first ? 70 : 34, 71, 330};
    c.residual = c.odd = true;
    cases.push_back(c);
    c = {f, activation, 20, 40, 130};
    c.pair = c.bf16_result = true;
    c.exact = false;
    if (first) cases.push_back(c);
  }
  return cases;
}

// Runs the case; "" if every element is right, else the first that is not. The elements of the
// output that no kernel may write are checked as well.
inline std::string CheckStripCase(Device& device, const GemmFamily& family,
                                  std::mt19937_64& random, const StripCase& c) {
  const auto make = [&] {
    return c.exact ? ExactWeights(random, c.format, c.n, c.k)
                   : RandomWeights(random, c.format, c.n, c.k);
  };
  CanonicalStorage weights[2] = {make(), make()};
  const StripLeft left(random, c);
  const auto some = [&](int64_t count) {
    std::vector<float> v(static_cast<size_t>(count));
    std::normal_distribution<float> normal(0, 4);
    for (float& x : v) x = c.exact ? std::nearbyint(normal(random)) : normal(random);
    return v;
  };
  const int64_t stride = c.n + (c.odd ? 1 + c.n % 2 : 4 + (4 - c.n % 4) % 4);
  const int64_t bytes = c.bf16_result ? 2 : 4;
  const std::vector<float> biases[2] = {some(c.n), some(c.n)}, residual = some(c.m * stride);
  std::vector<uint8_t> output(static_cast<size_t>(c.m * stride * bytes), 0xA5);
  if (c.in_place) std::memcpy(output.data(), residual.data(), output.size());

  const StripMemory gate(device, PackAll(family, c.format, c.n, c.k, weights[0].view()));
  const StripMemory up(device, PackAll(family, c.format, c.n, c.k, weights[1].view()));
  const StripMemory left_values(device, left.memory), left_scales(device, left.scales);
  const StripMemory bias(device, biases[0]), up_bias(device, biases[1]);
  const StripMemory added(device, residual), result(device, output);
  const StripMemory partial(device, family.scratch_bytes(device, c.format, c.n, c.k, c.m));
  for (const StripMemory* memory : {&gate, &up, &left_values, &left_scales, &bias, &up_bias,
                                    &added, &result, &partial}) {
    if (!memory->status().ok()) return memory->status().message();
  }
  // Whatever the scratch holds must not reach a result.
  Status status = device.Fill(partial.at(), 0xFF, partial.bytes());
  if (!status.ok()) return status.message();

  const DeviceWeights first{c.format, c.n, c.k, gate.at()}, second{c.format, c.n, c.k, up.at()};
  const GemmLeft a{c.activation, c.m, c.k, left_values.at(), left.stride,
                   left.scales.empty() ? 0 : left_scales.at()};
  const GemmResult y{c.bf16_result ? DType::kBF16 : DType::kF32,
                     result.at(),
                     stride,
                     c.bias ? bias.at() : 0,
                     c.bias && c.pair ? up_bias.at() : 0,
                     c.in_place ? result.at() : c.residual ? added.at() : 0,
                     stride};
  const Scratch scratch{partial.at(), partial.bytes()};
  status = c.pair ? family.run_swiglu(device, first, second, a, y, scratch)
                  : family.run(device, first, a, y, scratch);
  if (status.ok()) {
    status = device.CopyOut(output.data(), result.at(), static_cast<int64_t>(output.size()));
  }
  if (!status.ok()) return Describe(c) + ": " + status.message();

  const auto product = [&](int which, int64_t m, int64_t n, double* tolerance) {
    const ReferenceProduct p = ReferenceDot(left.values[m], c.format, weights[which].view(), n);
    const double b = c.bias ? biases[which][n] : 0;
    const double r = c.residual || c.in_place ? residual[m * stride + n] : 0;
    *tolerance = c.exact ? 0 : StripGamma(c) * (p.magnitude + std::fabs(b) + std::fabs(r));
    return p.value + b + r;
  };
  for (int64_t m = 0; m < c.m; ++m) {
    for (int64_t n = 0; n < stride; ++n) {
      const uint8_t* at = output.data() + (m * stride + n) * bytes;
      if (n >= c.n) {
        uint8_t before[4] = {0xA5, 0xA5, 0xA5, 0xA5};
        if (c.in_place) std::memcpy(before, &residual[m * stride + n], 4);
        if (std::memcmp(at, before, static_cast<size_t>(bytes)) != 0) {
          return Describe(c) + ": wrote beyond row " + std::to_string(m);
        }
        continue;
      }
      float value;
      if (c.bf16_result) {
        uint16_t code;
        std::memcpy(&code, at, 2);
        value = DecodeBF16(code);
      } else {
        std::memcpy(&value, at, 4);
      }
      double tolerance;
      double expected = product(0, m, n, &tolerance);
      if (c.pair) {
        double up_tolerance;
        const double u = product(1, m, n, &up_tolerance);
        const double silu = expected / (1 + std::exp(-expected));
        tolerance = 1.1 * tolerance * (std::fabs(u) + up_tolerance) +
                    std::fabs(silu) * up_tolerance + 16 * std::exp2(-24) * std::fabs(silu * u) +
                    1e-30;
        expected = silu * u;
      }
      if (c.bf16_result) tolerance += std::exp2(-8) * std::fabs(expected) + 1e-38;
      if (m == c.nan_token) {
        if (std::isnan(value)) continue;
        return Describe(c) + ": a token of NaN has " + std::to_string(value);
      }
      if (!(std::fabs(value - expected) <= tolerance)) {
        return Describe(c) + ": element (" + std::to_string(m) + ", " + std::to_string(n) +
               ") is " + std::to_string(value) + ", expected " + std::to_string(expected) +
               " within " + std::to_string(tolerance);
      }
    }
  }
  return "";
}

// Dequantizes rows by number and a range of them; "" if every element is exact.
inline std::string CheckStripRows(Device& device, const GemmFamily& family,
                                  std::mt19937_64& random, const WeightFormat& f, int64_t rows,
                                  int64_t cols) {
  CanonicalStorage weights = RandomWeights(random, f, rows, cols);
  const StripMemory packed(device, PackAll(family, f, rows, cols, weights.view()));
  std::vector<int32_t> ids(5);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint64_t>(rows));
  const StripMemory device_ids(device, ids);
  const int64_t stride = cols + 3;
  for (const bool by_id : {true, false}) {
    const int64_t first = rows / 2, count = by_id ? 5 : rows - first;
    std::vector<float> y(static_cast<size_t>(count * stride), 0.5f);
    const StripMemory result(device, y);
    Status status = family.dequantize_rows(device, {f, rows, cols, packed.at()},
                                           by_id ? device_ids.at() : 0, by_id ? 0 : first, count,
                                           result.at(), stride);
    if (status.ok()) status = device.CopyOut(y.data(), result.at(), result.bytes());
    if (!status.ok()) return status.message();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = by_id ? ids[i] : first + i;
      for (int64_t k = 0; k < stride; ++k) {
        const float expected =
            k < cols ? static_cast<float>(WeightValue(f, cols, weights.view(), row, k)) : 0.5f;
        if (std::memcmp(&y[i * stride + k], &expected, 4) != 0) {
          return nibble::Describe(f, rows, cols) + ": element (" + std::to_string(row) + ", " +
                 std::to_string(k) + ") is " + std::to_string(y[i * stride + k]) + ", expected " +
                 std::to_string(expected);
        }
      }
    }
  }
  return "";
}

// Whether the verification cases of every code type with these activations are right.
inline bool VerifyStrips(Device& device, const GemmFamily& family, const std::vector<DType>& codes,
                         DType activation) {
  std::mt19937_64 random(7);
  for (const DType code : codes) {
    for (const StripCase& c : VerificationCases(code, activation)) {
      if (!CheckStripCase(device, family, random, c).empty()) return false;
    }
  }
  return true;
}

}  // namespace nibble::cuda
