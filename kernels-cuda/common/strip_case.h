// SPDX-License-Identifier: Apache-2.0
//
// One product with random operands, run on a device and compared with the F64 reference: what the
// tests of gemm_f6 and gemm_dense and of their mutants (strip_verification.h) share.
//
// Exact cases have operands whose products and sums are all exact in F32 (small integers, scales
// that are powers of two), so that any order of summation gives the same bits: a single wrong bit,
// column or scale shows. Rounded to BF16 they must be the nearest one.
// The others have a tolerance. A result of K terms passes through at most
// K + K/16 + 8 roundings or truncations (a tensor core may cut where F32 rounds) of unit
// u = 2^-23: the error is at most gamma = n u / (1 - n u) times sum|terms| (Higham, Accuracy
// and Stability of Numerical Algorithms, 3.1), bias and residual included; BF16 results add 2^-8
// of themselves, a pair what gemm_test.cc of kernels-cpu derives for SwiGLU.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
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
  bool ends = false;        // activations are 0, biases hard to round: the end alone shows
  bool gates = false;       // activations are 0, the biases of gates from -20 to 20
  bool unscaled = false;    // tokens of eight bits have no scales
};

// Row n's: halfway between two numbers of BF16, or one F32 next to that; infinite, NaN or beyond
// BF16's largest. Of every 32 rows, the four places of a quad meet each kind.
inline float HardToRound(int64_t n) {
  constexpr uint32_t kKinds[] = {0x3F808000u,   // halfway, to the even code below
                                 0x7F800000u,   // infinite
                                 0x3F818000u,   // halfway, to the even code above
                                 0x3F808001u,   // more
                                 0x7FC00000u,   // NaN
                                 0x3F817FFFu,   // less
                                 0x7F7FFFFFu,   // saturates
                                 0x00018000u};  // halfway between subnormal numbers
  const int64_t quad = n / 4, place = n % 4;
  uint32_t bits = kKinds[(quad + 2 * place) % 8];
  if (bits < 0x7F000000u) bits += static_cast<uint32_t>(n / 32 % 64) * 0x20000u;  // other codes
  if ((quad / 2 + place + n / 32) % 2 != 0) bits |= 0x80000000u;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// SwiGLU's gate that multiplies by 128 exactly: 128 / (1 + 2^-184).
constexpr float kOpenGate = 128;

inline std::string Describe(const StripCase& c) {
  return nibble::Describe(c.format, c.n, c.k) + " activation " + std::to_string(int(c.activation)) +
         " tokens " + std::to_string(c.m) + (c.pair ? " pair" : "") + (c.bias ? " bias" : "") +
         (c.residual ? " residual" : "") + (c.in_place ? " in place" : "") +
         (c.bf16_result ? " bf16" : "") + (c.exact ? " exact" : "") + (c.odd ? " odd" : "") +
         (c.ends ? " ends" : "") + (c.gates ? " gates" : "");
}

// Codes and scales for exact cases.
inline CanonicalStorage ExactWeights(std::mt19937_64& random, const WeightFormat& f, int64_t rows,
                                     int64_t cols) {
  CanonicalStorage w = RandomWeights(random, f, rows, cols);
  const int bytes = CodeBytes(f.code);
  if (bytes > 0 && f.code != DType::kI8) {
    for (size_t i = 0; i < w.codes.size(); i += static_cast<size_t>(bytes)) {
      // All bits of a significand; of an F16 more than a BF16 has.
      const int most = f.code == DType::kE4M3   ? 15
                       : f.code == DType::kBF16 ? 255
                       : f.code == DType::kF16  ? 2047
                                                : 8;
      const auto any = static_cast<int>(random() % static_cast<unsigned>(2 * most + 1));
      const auto value = static_cast<float>(any - most);
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
    // All bits of a BF16's significand, as far as F32 then holds the sum.
    const auto bits = static_cast<uint32_t>(random());
    const bool all = f.scale == DType::kBF16 && cols <= 400;
    const float significand = all ? float(128 + bits % 128) / 128 : 1;
    const float value = std::ldexp(significand, static_cast<int>(bits >> 8) % 3 - 1);
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
    const bool codes =
        !c.unscaled && (c.activation == DType::kE4M3 || c.activation == DType::kI8);
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
        // All bits of an E4M3's significand; but products of six-bit codes have a finer last place,
        // those of I8 are larger, and a BF16 scale has all bits of its own.
        const bool all = c.activation == DType::kE4M3 && c.format.scale != DType::kBF16;
        const int most = all                           ? 15
                         : IsSixBit(c.format.code)       ? 2
                         : c.format.code == DType::kI8 ? 4
                                                       : 8;
        float value = c.ends || c.gates ? 0
                      : c.exact ? static_cast<float>(
                                      static_cast<int>(random() % (2 * most + 1)) - most)
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
  const bool truncated = c.truncated || (c.exact && c.activation == DType::kE4M3);
  return nu / (1 - nu) + (truncated ? 2 * 33 * std::exp2(-13) : 0);
}

// A case with its operands and what they should come to; runs on any device, any number of times.
class PreparedStripCase {
 public:
  PreparedStripCase(const GemmFamily& family, std::mt19937_64& random, const StripCase& c)
      : family_(family), c_(c) {
    const auto make = [&] {
      return c.exact ? ExactWeights(random, c.format, c.n, c.k)
                     : RandomWeights(random, c.format, c.n, c.k);
    };
    CanonicalStorage weights[2] = {make(), make()};
    left_ = std::make_unique<StripLeft>(random, c);
    const auto some = [&](int64_t count) {
      std::vector<float> v(static_cast<size_t>(count));
      std::normal_distribution<float> normal(0, 4);
      for (float& x : v) x = c.exact ? std::nearbyint(normal(random)) : normal(random);
      return v;
    };
    stride_ = c.n + (c.odd ? 1 + c.n % 2 : 4 + (4 - c.n % 4) % 4);
    for (int i = 0; i < 2; ++i) biases_[i] = some(c.n);
    // Gates that are open: most, since behind the others nothing shows.
    for (int64_t n = 0; c.pair && c.exact && n < c.n; ++n) {
      if (n % 4 != 3) biases_[0][static_cast<size_t>(n)] += 4096;
    }
    for (int64_t n = 0; c.gates && n < c.n; ++n) {
      biases_[0][static_cast<size_t>(n)] = static_cast<float>(n % 41 - 20) * 0.96875f;
      biases_[1][static_cast<size_t>(n)] = static_cast<float>(1 << n % 5);
    }
    for (int64_t n = 0; c.ends && n < c.n; ++n) {
      biases_[0][static_cast<size_t>(n)] = c.pair ? kOpenGate : HardToRound(n);
      if (c.pair) biases_[1][static_cast<size_t>(n)] = HardToRound(n) / kOpenGate;
    }
    residual_ = some(c.m * stride_);
    for (int i = 0; i < (c.pair ? 2 : 1); ++i) {
      packed_[i] = PackAll(family, c.format, c.n, c.k, weights[i].view());
      for (int64_t m = 0; m < c.m; ++m) {
        for (int64_t n = 0; n < c.n; ++n) {
          products_[i].push_back(ReferenceDot(left_->values[m], c.format, weights[i].view(), n));
        }
      }
    }
  }

  // "" if every element is right, else the first that is not. The elements of the output that no
  // kernel may write are checked as well.
  std::string Check(Device& device) const {
    const StripCase& c = c_;
    const int64_t bytes = c.bf16_result ? 2 : 4;
    std::vector<uint8_t> output(static_cast<size_t>(c.m * stride_ * bytes), 0xA5);
    if (c.in_place) std::memcpy(output.data(), residual_.data(), output.size());
    const StripMemory gate(device, packed_[0]), up(device, packed_[1]);
    const StripMemory left_values(device, left_->memory), left_scales(device, left_->scales);
    const StripMemory bias(device, biases_[0]), up_bias(device, biases_[1]);
    const StripMemory added(device, residual_), result(device, output);
    const StripMemory partial(device, family_.scratch_bytes(device, c.format, c.n, c.k, c.m));
    for (const StripMemory* memory : {&gate, &up, &left_values, &left_scales, &bias, &up_bias,
                                      &added, &result, &partial}) {
      if (!memory->status().ok()) return memory->status().message();
    }
    // Whatever the scratch holds must not reach a result.
    Status status = device.Fill(partial.at(), 0xFF, partial.bytes());
    if (!status.ok()) return status.message();

    const DeviceWeights first{c.format, c.n, c.k, gate.at()}, second{c.format, c.n, c.k, up.at()};
    const GemmLeft a{c.activation, c.m, c.k, left_values.at(), left_->stride,
                     left_->scales.empty() ? 0 : left_scales.at()};
    const GemmResult y{c.bf16_result ? DType::kBF16 : DType::kF32,
                       result.at(),
                       stride_,
                       c.bias ? bias.at() : 0,
                       c.bias && c.pair ? up_bias.at() : 0,
                       c.in_place ? result.at() : c.residual ? added.at() : 0,
                       stride_};
    const Scratch scratch{partial.at(), partial.bytes()};
    status = c.pair ? family_.run_swiglu(device, first, second, a, y, scratch)
                    : family_.run(device, first, a, y, scratch);
    if (status.ok()) {
      status = device.CopyOut(output.data(), result.at(), static_cast<int64_t>(output.size()));
    }
    if (!status.ok()) return Describe(c) + ": " + status.message();
    for (int64_t m = 0; m < c.m; ++m) {
      for (int64_t n = 0; n < stride_; ++n) {
        const std::string problem = Problem(m, n, output.data() + (m * stride_ + n) * bytes);
        if (!problem.empty()) return Describe(c) + ": " + problem;
      }
    }
    return "";
  }

 private:
  // FP8 units of a real device may cut what the emulator's do not by default.
  static bool OnRealDevice() { return std::getenv("NIBBLE_TEST_DEVICE") != nullptr; }
  bool Exact() const {
    return c_.exact && !(OnRealDevice() && c_.activation == DType::kE4M3);
  }

  // Of product 0 or 1: with what is added to it, and how far off it may be.
  double Sum(int which, int64_t m, int64_t n, double* tolerance) const {
    const ReferenceProduct& p = products_[which][static_cast<size_t>(m * c_.n + n)];
    const double b = c_.bias ? biases_[which][static_cast<size_t>(n)] : 0;
    const double r =
        c_.residual || c_.in_place ? residual_[static_cast<size_t>(m * stride_ + n)] : 0;
    *tolerance = Exact() ? 0 : StripGamma(c_) * (p.magnitude + std::fabs(b) + std::fabs(r));
    return p.value + b + r;
  }

  std::string Problem(int64_t m, int64_t n, const uint8_t* at) const {
    if (n >= c_.n) {
      uint8_t before[4] = {0xA5, 0xA5, 0xA5, 0xA5};
      if (c_.in_place) std::memcpy(before, &residual_[static_cast<size_t>(m * stride_ + n)], 4);
      return std::memcmp(at, before, c_.bf16_result ? 2 : 4) == 0
                 ? ""
                 : "wrote beyond row " + std::to_string(m);
    }
    float value;
    if (c_.bf16_result) {
      uint16_t code;
      std::memcpy(&code, at, 2);
      value = DecodeBF16(code);
    } else {
      std::memcpy(&value, at, 4);
    }
    double tolerance;
    double expected = Sum(0, m, n, &tolerance);
    if (c_.pair) {
      double up_tolerance;
      const double u = Sum(1, m, n, &up_tolerance);
      const double silu = expected / (1 + std::exp(-expected));
      tolerance = 1.1 * tolerance * (std::fabs(u) + up_tolerance) +
                  std::fabs(silu) * up_tolerance + 16 * std::exp2(-24) * std::fabs(silu * u) +
                  1e-30;
      expected = silu * u;
    }
    if (c_.bf16_result && ((Exact() && !c_.pair) || c_.ends)) {
      if (c_.ends) tolerance = 0;
      expected = DecodeBF16(EncodeBF16(static_cast<float>(expected)));
    } else if (c_.bf16_result) {
      tolerance += std::exp2(-8) * std::fabs(expected) + 1e-38;
    }
    if (c_.ends && std::isnan(expected)) return std::isnan(value) ? "" : "a NaN is lost";
    if (c_.ends && value == expected) return "";  // infinite, perhaps
    if (m == c_.nan_token) {
      return std::isnan(value) ? "" : "a token of NaN has " + std::to_string(value);
    }
    if (std::fabs(value - expected) <= tolerance) return "";
    return "element (" + std::to_string(m) + ", " + std::to_string(n) + ") is " +
           std::to_string(value) + ", expected " + std::to_string(expected) + " within " +
           std::to_string(tolerance);
  }

  const GemmFamily& family_;
  StripCase c_;
  std::unique_ptr<StripLeft> left_;
  int64_t stride_;
  std::vector<uint8_t> packed_[2];
  std::vector<float> biases_[2], residual_;
  std::vector<ReferenceProduct> products_[2];
};

// Prepares and runs the case.
inline std::string CheckStripCase(Device& device, const GemmFamily& family,
                                  std::mt19937_64& random, const StripCase& c) {
  return PreparedStripCase(family, random, c).Check(device);
}

// Rows of weights by number and a range of them, prepared as a PreparedStripCase is.
class PreparedStripRows {
 public:
  PreparedStripRows(const GemmFamily& family, std::mt19937_64& random, const WeightFormat& f,
                    int64_t rows, int64_t cols)
      : family_(family), format_(f), rows_(rows), cols_(cols), stride_(cols + 3), ids_(5) {
    CanonicalStorage weights = RandomWeights(random, f, rows, cols);
    packed_ = PackAll(family, f, rows, cols, weights.view());
    for (int32_t& id : ids_) id = static_cast<int32_t>(random() % static_cast<uint64_t>(rows));
    for (const bool by_id : {false, true}) {
      for (int64_t i = 0; i < Count(by_id); ++i) {
        const int64_t row = by_id ? ids_[static_cast<size_t>(i)] : First() + i;
        for (int64_t k = 0; k < stride_; ++k) {
          expected_[by_id].push_back(
              k < cols ? static_cast<float>(WeightValue(f, cols, weights.view(), row, k))
                       : kUntouched);
        }
      }
    }
  }

  // "" if every element is exact and nothing else is written.
  std::string Check(Device& device) const {
    const StripMemory packed(device, packed_), ids(device, ids_);
    for (const bool by_id : {false, true}) {
      const std::vector<float>& expected = expected_[by_id];
      std::vector<float> y(expected.size(), kUntouched);
      const StripMemory result(device, y);
      for (const StripMemory* memory : {&packed, &ids, &result}) {
        if (!memory->status().ok()) return memory->status().message();
      }
      Status status = family_.dequantize_rows(device, {format_, rows_, cols_, packed.at()},
                                              by_id ? ids.at() : 0, by_id ? 0 : First(),
                                              Count(by_id), result.at(), stride_);
      if (status.ok()) status = device.CopyOut(y.data(), result.at(), result.bytes());
      if (!status.ok()) return status.message();
      for (size_t i = 0; i < y.size(); ++i) {
        if (std::memcmp(&y[i], &expected[i], 4) != 0) {
          return nibble::Describe(format_, rows_, cols_) + ": element " + std::to_string(i) +
                 " is " + std::to_string(y[i]) + ", expected " + std::to_string(expected[i]);
        }
      }
    }
    return "";
  }

 private:
  static constexpr float kUntouched = 7777;
  int64_t First() const { return rows_ / 2; }
  int64_t Count(bool by_id) const {
    return by_id ? static_cast<int64_t>(ids_.size()) : rows_ - First();
  }

  const GemmFamily& family_;
  WeightFormat format_;
  int64_t rows_, cols_, stride_;
  std::vector<int32_t> ids_;
  std::vector<uint8_t> packed_;
  std::vector<float> expected_[2];
};

// Prepares and runs the rows.
inline std::string CheckStripRows(Device& device, const GemmFamily& family,
                                  std::mt19937_64& random, const WeightFormat& f, int64_t rows,
                                  int64_t cols) {
  return PreparedStripRows(family, random, f, rows, cols).Check(device);
}

}  // namespace nibble::cuda
