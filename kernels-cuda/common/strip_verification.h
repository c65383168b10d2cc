// SPDX-License-Identifier: Apache-2.0
//
// The products and rows of weights that the mutation suite runs on broken kernels of strips.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "kernels-cuda/common/strip_case.h"

namespace nibble::cuda {

// For the mutation suite: cases that reach every line of the kernels for weights of this code type
// with these activations, a few milliseconds each in the emulator. All are exact.
inline std::vector<StripCase> StripCases(DType code, DType activation) {
  const bool scaled = !IsUnquantized(code);
  const std::vector<DType> scales =
      scaled ? std::vector<DType>{DType::kF32, DType::kBF16, DType::kF16}
             : std::vector<DType>{DType::kNone};
  const bool f32 = activation == DType::kF32, fp8 = activation == DType::kE4M3;
  // All tokens of a block but one: of FP8 products, which six bits and bytes may become, others.
  const bool bytes = scaled && code != DType::kI8;
  const int64_t tile = f32 ? 63 : fp8 && bytes ? 47 : 31;
  std::vector<StripCase> cases;
  StripCase c;
  c.activation = activation;
  // Short rows: every end of a product by every kernel.
  const int64_t few = f32 ? 8 : 7;
  for (const int64_t m : {int64_t{1}, few, tile, int64_t{70}}) {
    c.m = m;
    for (int i = 0; i < 10; ++i) {
      c.format = {code, scales[static_cast<size_t>(i) % scales.size()], 0};
      c.pair = i >= 5;
      // The last four rows in part, in the first of a warp's two strips or in the second.
      c.n = m <= 8 ? 45 + i % 3 : i % 4 == 1 || i % 4 == 2 ? 45 : 69 + i % 3;
      // A ring of stages that ends at each of them.
      c.k = 64 * (1 + (i + m) % 5) - 10;
      c.bf16_result = i % 2 != 0;
      c.odd = i % 4 >= 2;
      c.bias = i % 5 != 1;
      c.residual = !c.pair && i != 3;
      c.nan_token = m == tile && i == 4 ? 11 : -1;
      c.unscaled = i == 3 || i == 6;
      cases.push_back(c);
    }
    c.unscaled = false;
    c.residual = false;
    c.bias = true;
    c.nan_token = -1;
    c.k = 30;
    c.n = m <= 8 ? 35 : 67;  // all of one strip, of two
    for (int i = 0; i < 4; ++i) {
      c.pair = i >= 2;
      c.odd = i % 2 != 0;
      c.ends = c.bf16_result = true;
      cases.push_back(c);
    }
    c.ends = c.bf16_result = c.odd = false;
    c.n = 41;
    c.gates = true;
    cases.push_back(c);
    c.gates = c.pair = false;
  }
  // Rows that are split, or fill a pipeline several times over, to the last of four warps or not.
  c.format = {code, scales.back(), 0};
  c.bias = true;
  for (const bool pair : {false, true}) {
    c.pair = pair;
    c.residual = !pair;
    for (const auto& [m, k] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1700}, {few, 1700}, {few, 630}, {tile, 450}, {70, 450}}) {
      c.m = m;
      c.n = m <= 8 ? 37 : 71;
      c.k = k;
      cases.push_back(c);
    }
  }
  // Groups of scales: of whole bricks, of two slices and of one, of each type.
  for (const int64_t group : {64, 128, 32, 48, 16}) {
    if (!scaled) break;
    for (const DType scale : scales) {
      c.format = {code, scale, group};
      for (int i = 0; i < 4; ++i) {
        c.pair = i % 2 != 0;
        c.residual = !c.pair;
        const bool tiles = i == 2 || (i == 3 && !f32);
        c.m = tiles ? tile : i == 3 ? 1 : few;
        if (tiles && c.pair && group != 64) continue;
        c.n = tiles ? 71 : 37;
        c.k = tiles ? 200 : scale == DType::kF32 ? 1000 : 330;
        cases.push_back(c);
      }
    }
  }
  // The end of sums that were split.
  c.format = {code, scales.back(), 0};
  c.m = 9;
  c.n = 35;
  c.k = 400;
  c.residual = false;
  c.ends = c.bf16_result = true;
  for (int i = 0; i < 4; ++i) {
    c.pair = i >= 2;
    c.odd = i % 2 != 0;
    cases.push_back(c);
  }
  return cases;
}

// The same for the kernels of F32 activations that take any code, beyond the cases of StripCases
// for one code: what depends on the code.
inline std::vector<StripCase> StripCodeCases(DType code) {
  std::vector<WeightFormat> formats = {{code, DType::kF16, 48}, {code, DType::kBF16, 0}};
  if (IsUnquantized(code)) formats = {{code, DType::kNone, 0}};
  std::vector<StripCase> cases;
  for (const WeightFormat& f : formats) {
    for (const int64_t m : {1, 8, 9}) {
      for (const bool pair : {false, true}) {
        StripCase c;
        c.format = f;
        c.activation = DType::kF32;
        c.m = m;
        c.n = 33;
        c.k = 150;
        c.pair = c.bias = pair;
        cases.push_back(c);
        if (code != DType::kBF16) continue;
        c.k = 1030;  // of one type, in two splits
        cases.push_back(c);
      }
    }
  }
  return cases;
}

using StripVerifications = std::vector<std::function<bool(Device&)>>;

inline void AddStripCases(const GemmFamily& family, const std::vector<StripCase>& from,
                          StripVerifications* cases) {
  std::mt19937_64 random(7 + cases->size());
  for (const StripCase& c : from) {
    const auto prepared = std::make_shared<PreparedStripCase>(family, random, c);
    cases->push_back([prepared](Device& device) { return prepared->Check(device).empty(); });
  }
}

// For the mutation suite: the verification cases of every code type with these activations.
inline StripVerifications StripVerification(const GemmFamily& family,
                                            const std::vector<DType>& codes, DType activation) {
  StripVerifications cases;
  for (const DType code : codes) AddStripCases(family, StripCases(code, activation), &cases);
  return cases;
}

// The same for rows of weights of each code type: a few formats of scales, more columns than one
// pass of a grid takes, none of the four of a thread, one and so on beside the last whole four.
inline StripVerifications StripRowsVerification(const GemmFamily& family,
                                                const std::vector<DType>& codes) {
  StripVerifications cases;
  std::mt19937_64 random(8);
  int64_t cols = 130;
  for (const DType code : codes) {
    std::vector<WeightFormat> formats = {
        {code, DType::kF32, 0}, {code, DType::kBF16, 48}, {code, DType::kF16, 16}};
    if (IsUnquantized(code)) formats = {{code, DType::kNone, 0}};
    for (const WeightFormat& f : formats) {
      const auto prepared = std::make_shared<PreparedStripRows>(family, random, f, 37, cols++);
      cases.push_back([prepared](Device& device) { return prepared->Check(device).empty(); });
    }
  }
  const WeightFormat wide = {codes.front(), DType::kF32, 0};
  const auto prepared = std::make_shared<PreparedStripRows>(family, random, wide, 2, 4200);
  cases.push_back([prepared](Device& device) { return prepared->Check(device).empty(); });
  return cases;
}

}  // namespace nibble::cuda
