// SPDX-License-Identifier: Apache-2.0
//
// One product with random operands, run on a device and compared with the F64 reference: what
// the tests of the kernels and of their mutants share. The tolerance is derived in
// gemm_i4f8_test.cc.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels-cpu/gemm/gemm_reference.h"
#include "kernels-cpu/gemm/weights_for_test.h"
#include "kernels-cuda/common/strip_case.h"
#include "kernels-cuda/gemm_i4f8/plan.h"
#include "kernels-cuda/testing/emulated_device.h"

namespace nibble::cuda::gemm_i4f8 {

// A copy of host values on the device, which tells no test when it fails: a mutant may well have
// lost the device.
class DeviceCopy {
 public:
  template <class T>
  DeviceCopy(Device& device, const std::vector<T>& values) : device_(device) {
    const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(T));
    status_ = device.Allocate(bytes, &memory_);
    if (status_.ok() && bytes > 0) status_ = device.CopyIn(memory_, values.data(), bytes);
  }
  ~DeviceCopy() { device_.Free(memory_); }
  DeviceCopy(const DeviceCopy&) = delete;
  DeviceCopy& operator=(const DeviceCopy&) = delete;

  template <class T>
  Status CopyOut(std::vector<T>& values) {
    if (!status_.ok()) return status_;
    return device_.CopyOut(values.data(), memory_, static_cast<int64_t>(values.size() * sizeof(T)));
  }
  DevicePtr memory() const { return memory_; }

 private:
  Device& device_;
  DevicePtr memory_ = 0;
  Status status_;
};

inline std::mt19937_64 Random(uint64_t stream) {
  return std::mt19937_64(TestSeed() * 0x9E3779B97F4A7C15u + stream);
}

inline int64_t UniformInt(std::mt19937_64& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

inline constexpr DType kActivations[] = {DType::kE4M3, DType::kI8, DType::kBF16};
inline constexpr DType kScaleTypes[] = {DType::kE4M3, DType::kPow2, DType::kF16, DType::kBF16,
                                        DType::kF32};

// With groups of units of 16, 32 and 64 columns, and larger than a row.
inline std::vector<WeightFormat> Formats() {
  std::vector<WeightFormat> formats;
  for (const DType s : kScaleTypes) {
    for (const int64_t group : {0, 16, 32, 48, 64, 96, 128, 192, 1024}) {
      formats.push_back({DType::kI4, s, group});
    }
  }
  return formats;
}

struct Case {
  WeightFormat format{DType::kI4, DType::kE4M3, 128};
  DType activation = DType::kE4M3;
  Plan plan{8, 1};
  bool planned = true;  // false: Run or RunSwiGlu choose
  int64_t rows = 16, cols = 64, tokens = 1;
  bool pair = false, bias = false, residual = false, in_place = false, bf16_result = false;
  bool integers = false;   // operands whose products and sums are exact in F32
  bool ends = false;       // activations are 0, biases hard to round (strip_case.h)
  bool gates = false;      // activations are 0, the biases of gates from -20 to 20
  bool other_scales = false;  // tokens of BF16 have scales, those of eight bits have none
  int64_t nan_token = -1;  // its scale is NaN
};

inline bool HasTokenScales(const Case& c) {
  return (c.activation == DType::kBF16) == c.other_scales;
}

inline std::string Describe(const Case& c) {
  return nibble::Describe(c.format, c.rows, c.cols) + " activation " +
         std::to_string(int(c.activation)) + " tokens " + std::to_string(c.tokens) +
         (c.planned ? " in blocks of " + std::to_string(c.plan.block_tokens) + " splits " +
                          std::to_string(c.plan.splits) +
                          (c.plan.warpgroup ? " by warpgroups" : "")
                    : "") +
         (c.pair ? " pair" : "") + (c.bias ? " bias" : "") + (c.residual ? " residual" : "") +
         (c.bf16_result ? " bf16" : "") + (c.integers ? " exact" : "") + (c.ends ? " ends" : "") +
         (c.gates ? " gates" : "");
}

// The activations as elementwise/ leaves them, with NaN where no kernel may look, and their values.
struct LeftOperand {
  LeftOperand(std::mt19937_64& random, const Case& c)
      : type(c.activation),
        stride(RoundUp(c.cols, 128) + (random() % 2 == 0 ? 128 : 0)),
        bytes(type == DType::kBF16 ? 2 : 1),
        codes(static_cast<size_t>(c.tokens * stride * bytes), 0xFF) {
    std::normal_distribution<float> normal(0, 1);
    for (int64_t m = 0; m < c.tokens; ++m) {
      const float scale = !HasTokenScales(c) ? 1
                          : c.integers         ? std::ldexp(1.0f, int(m % 3) - 1)
                                               : 0.001f + float(random() % 1000) / 3000;
      scales.push_back(m == c.nan_token ? NAN : scale);
      std::vector<double>& row = values.emplace_back();
      for (int64_t k = 0; k < RoundUp(c.cols, 128); ++k) {
        uint32_t code = 0;
        if (k < c.cols) {
          // Of E4M3 all bits of the significand.
          const int most = type == DType::kE4M3 ? 15 : 8;
          const float integer = float(int(random() % unsigned(2 * most + 1)) - most);
          if (type == DType::kBF16) code = Encode(type, c.integers ? integer : normal(random));
          if (type == DType::kI8) code = static_cast<uint8_t>(random());
          if (type == DType::kI8 && c.integers && random() % 8 != 0) {
            code = static_cast<uint8_t>(static_cast<int8_t>(integer));
          }
          if (type == DType::kE4M3) {
            code = c.integers ? Encode(type, integer) : static_cast<uint8_t>(random());
            if ((code & 0x7F) == 0x7F) code ^= 1;
          }
          if (c.ends || c.gates) code = 0;
          row.push_back(double{scales.back()} * Decode(type, code));
        }
        std::memcpy(&codes[static_cast<size_t>((m * stride + k) * bytes)], &code,
                    static_cast<size_t>(bytes));
      }
    }
  }

  DType type;
  int64_t stride, bytes;
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  std::vector<std::vector<double>> values;
};

inline CanonicalStorage CaseWeights(std::mt19937_64& random, const Case& c) {
  CanonicalStorage weights = RandomWeights(random, c.format, c.rows, c.cols);
  if (!c.integers) return weights;
  // POW2 scales of 1 to 8: sums stay below 2^24 up to 2048 columns. The others have all bits of an
  // E4M3's or a BF16's significand, for shorter rows.
  const DType type = c.format.scale;
  for (size_t i = 0; i < weights.scales.size(); i += static_cast<size_t>(c.format.ScaleBytes())) {
    const auto bits = static_cast<uint32_t>(random());
    uint32_t code = bits % 4;
    if (type != DType::kPow2) {
      const float significand = type == DType::kE4M3 ? float(8 + bits % 8) / 8
                                                     : float(128 + bits % 128) / 128;
      const float scale = bits >> 8 & 1 ? significand : significand / 2;
      code = Encode(type, bits >> 9 & 1 && type != DType::kE4M3 ? -scale : scale);
      if (type == DType::kF32) std::memcpy(&code, &scale, 4);
    }
    std::memcpy(&weights.scales[i], &code, static_cast<size_t>(c.format.ScaleBytes()));
  }
  for (size_t i = 0; i < weights.factors.size(); ++i) {
    weights.factors[i] = std::ldexp(1.0f, int(i % 3) + 1);
  }
  return weights;
}

// All of a matrix, in bytes that were `fill` before.
inline std::vector<uint8_t> PackAll(const WeightFormat& f, int64_t rows, int64_t cols,
                                    CanonicalStorage& weights, uint8_t fill) {
  std::vector<uint8_t> packed(static_cast<size_t>(PackedBytes(f, rows, cols)), fill);
  for (int64_t b = RowBlocks(rows) - 1; b >= 0; --b) {
    Pack(f, rows, cols, weights.view(), b, packed.data());
  }
  return packed;
}

// A case with its operands and what they should come to; runs on any device, any number of times.
class PreparedCase {
 public:
  PreparedCase(std::mt19937_64& random, const Case& c)
      : c_(c), x_(random, c), stride_(c.rows + static_cast<int64_t>(random() % 4)) {
    for (int i = 0; i < (c.pair ? 2 : 1); ++i) {
      CanonicalStorage weights = CaseWeights(random, c);
      packed_[i] = PackAll(c.format, c.rows, c.cols, weights, 0xFF);
      for (int64_t n = 0; n < c.rows; ++n) {
        float bias = float(int(random() % 65) - 32) / 8;
        // Most gates are open: behind the others nothing shows.
        if (c.integers && c.pair && i == 0 && n % 4 != 3) bias += 4096;
        bias_[i].push_back(c.gates   ? (i == 0 ? float(n % 41 - 20) * 0.96875f : float(1 << n % 5))
                           : !c.ends ? bias
                           : !c.pair ? HardToRound(n)
                           : i == 0  ? kOpenGate
                                     : HardToRound(n) / kOpenGate);
      }
      for (int64_t m = 0; m < c.tokens; ++m) {
        for (int64_t n = 0; n < c.rows; ++n) {
          products_[i].push_back(
              ReferenceDot(x_.values[static_cast<size_t>(m)], c.format, weights.view(), n));
        }
      }
    }
    const int64_t size = (c.tokens - 1) * stride_ + c.rows;
    for (int64_t i = 0; i < size; ++i) residual_.push_back(float(int(random() % 65) - 32) / 4);
  }

  // Bits of F32 or BF16 results, rows stride() apart.
  Status Run(Device& device, std::vector<uint8_t>* bits) const {
    DeviceCopy codes(device, x_.codes), scales(device, x_.scales);
    DeviceCopy first(device, packed_[0]), second(device, packed_[1]);
    DeviceCopy first_bias(device, bias_[0]), second_bias(device, bias_[1]);
    DeviceCopy residual(device, residual_);
    bits->assign(residual_.size() * (c_.bf16_result ? 2 : 4), kUntouched);
    DeviceCopy result(device, *bits);
    const DeviceWeights matrix{c_.format, c_.rows, c_.cols, first.memory()};
    const DeviceWeights up{c_.format, c_.rows, c_.cols, second.memory()};
    const GemmLeft left{c_.activation, c_.tokens, c_.cols, codes.memory(), x_.stride,
                        HasTokenScales(c_) ? scales.memory() : 0};
    const GemmResult to{c_.bf16_result ? DType::kBF16 : DType::kF32,
                        c_.in_place ? residual.memory() : result.memory(),
                        stride_,
                        c_.bias ? first_bias.memory() : 0,
                        c_.bias && c_.pair ? second_bias.memory() : 0,
                        c_.residual ? residual.memory() : 0,
                        stride_};
    const int64_t bytes = c_.planned
                              ? PlanScratchBytes(c_.plan, c_.rows, c_.tokens, c_.pair)
                              : ScratchBytes(device, c_.format, c_.rows, c_.cols, c_.tokens);
    DeviceCopy scratch(device, std::vector<uint8_t>(static_cast<size_t>(bytes), 0xFF));
    const Scratch partial{scratch.memory(), bytes};
    NIBBLE_CUDA_RETURN_IF_FAILED(
        c_.planned ? RunPlanned(device, c_.plan, matrix, c_.pair ? &up : nullptr, left, to, partial)
        : c_.pair  ? RunSwiGlu(device, matrix, up, left, to, partial)
                   : nibble::cuda::gemm_i4f8::Run(device, matrix, left, to, partial));
    return c_.in_place ? residual.CopyOut(*bits) : result.CopyOut(*bits);
  }

  // "", or what is wrong with bits. fp8_error: what FP8 tensor cores may lose besides, relative
  // to the sum of the magnitudes of all terms.
  std::string Problem(const std::vector<uint8_t>& bits, double fp8_error = 0) const {
    const double nu = static_cast<double>(c_.cols + 8) * std::exp2(-24);
    const double gamma = c_.integers ? 0 : nu / (1 - nu) + fp8_error;
    for (int64_t m = 0; m < c_.tokens; ++m) {
      for (int64_t n = 0; n < stride_; ++n) {
        const size_t i = static_cast<size_t>(m * stride_ + n), bytes = c_.bf16_result ? 2 : 4;
        if (i >= residual_.size()) break;
        uint32_t word = 0;
        std::memcpy(&word, &bits[i * bytes], bytes);
        const std::string where = " at token " + std::to_string(m) + ", row " + std::to_string(n);
        if (n >= c_.rows) {
          uint32_t untouched = kUntouched * (c_.bf16_result ? 0x0101u : 0x01010101u);
          if (c_.in_place) std::memcpy(&untouched, &residual_[i], 4);
          if (word != untouched) return "something written" + where;
          continue;
        }
        if (c_.bf16_result) word <<= 16;
        float y;
        std::memcpy(&y, &word, 4);
        if (m == c_.nan_token) {
          if (!std::isnan(y)) return "no NaN" + where;
          continue;
        }
        double value[2] = {}, tolerance[2] = {};
        for (int j = 0; j < (c_.pair ? 2 : 1); ++j) {
          const ReferenceProduct& p = products_[j][static_cast<size_t>(m * c_.rows + n)];
          const double b = c_.bias ? bias_[j][static_cast<size_t>(n)] : 0;
          const double r = c_.residual ? residual_[i] : 0;
          value[j] = p.value + b + r;
          tolerance[j] = gamma * (p.magnitude + std::fabs(b) + std::fabs(r));
        }
        double expected = value[0], bound = tolerance[0];
        if (c_.pair) {
          // silu(g) u has slope at most 1.1 |u| in g and |silu(g)| <= |g| in u; exp, the division
          // and the product add a few units of rounding.
          const double silu = value[0] / (1 + std::exp(-value[0]));
          expected = silu * value[1];
          bound = 1.1 * tolerance[0] * (std::fabs(value[1]) + tolerance[1]) +
                  std::fabs(silu) * tolerance[1] + 16 * std::exp2(-24) * std::fabs(expected) +
                  1e-30;  // where exp nears F32's largest
        }
        if (c_.ends) bound = 0;
        if (c_.bf16_result && (c_.ends || (c_.integers && !c_.pair))) {
          expected = DecodeBF16(EncodeBF16(static_cast<float>(expected)));
        } else if (c_.bf16_result) {
          bound += std::exp2(-8) * (std::fabs(expected) + bound);
        }
        if (c_.ends && (std::isnan(expected) ? std::isnan(y) : y == expected)) continue;
        if (!(std::fabs(y - expected) <= bound + 1e-37)) {
          return "got " + std::to_string(y) + ", expected " + std::to_string(expected) + " +- " +
                 std::to_string(bound) + where;
        }
      }
    }
    return "";
  }

  // "", or what is wrong with the result on this device.
  std::string Verify(Device& device, double fp8_error = 0) const {
    std::vector<uint8_t> bits;
    const Status status = Run(device, &bits);
    return status.ok() ? Problem(bits, fp8_error) : status.message();
  }

 private:
  static constexpr uint8_t kUntouched = 0x77;
  Case c_;
  LeftOperand x_;
  int64_t stride_;
  std::vector<uint8_t> packed_[2];
  std::vector<float> bias_[2], residual_;
  std::vector<ReferenceProduct> products_[2];
};

}  // namespace nibble::cuda::gemm_i4f8
