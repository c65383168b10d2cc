// SPDX-License-Identifier: Apache-2.0
//
// The number formats of Nibble and the canonical form of a weight matrix.
#pragma once

#include <cstdint>

namespace nibble {

// The same values as nb_dtype in nibble.h (checked where the two meet).
enum class DType : int32_t {
  kNone = 0,
  kF32 = 1,
  kF16 = 2,
  kBF16 = 3,
  kE4M3 = 4,
  kE5M2 = 5,
  kE3M2 = 6,
  kE2M3 = 7,
  kI4 = 8,
  kI8 = 9,
  kI32 = 10,
  kU8 = 11,
  kPow2 = 12,
};

inline constexpr bool IsSixBit(DType t) { return t == DType::kE3M2 || t == DType::kE2M3; }
inline constexpr bool IsUnquantized(DType t) {
  return t == DType::kF32 || t == DType::kF16 || t == DType::kBF16;
}

inline constexpr int64_t DivUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline constexpr int64_t RoundUp(int64_t a, int64_t b) { return DivUp(a, b) * b; }

// How weights are stored: see nb_weight_format in nibble.h.
struct WeightFormat {
  DType code = DType::kF32;
  DType scale = DType::kNone;
  int64_t group_size = 0;  // 0: the whole row

  int64_t Group(int64_t cols) const { return group_size == 0 ? cols : group_size; }
  int64_t Groups(int64_t cols) const {
    return IsUnquantized(code) || cols == 0 ? 0 : DivUp(cols, Group(cols));
  }
  bool HasMatrixFactor() const { return code == DType::kI4 && scale == DType::kE4M3; }
  bool HasRowFactors() const { return code == DType::kI4 && scale == DType::kPow2; }
  int64_t FactorCount(int64_t rows) const {
    return HasMatrixFactor() ? 1 : HasRowFactors() ? rows : 0;
  }
  // Bytes of one canonical row of each part.
  int64_t CodeRowBytes(int64_t cols) const {
    switch (code) {
      case DType::kI4:
      case DType::kE3M2:
      case DType::kE2M3: return DivUp(cols, 2);
      case DType::kF16:
      case DType::kBF16: return 2 * cols;
      case DType::kF32: return 4 * cols;
      default: return cols;
    }
  }
  int64_t HighRowBytes(int64_t cols) const { return IsSixBit(code) ? DivUp(cols, 4) : 0; }
  int64_t ScaleBytes() const {
    switch (scale) {
      case DType::kE4M3:
      case DType::kPow2: return 1;
      case DType::kF16:
      case DType::kBF16: return 2;
      case DType::kF32: return 4;
      default: return 0;
    }
  }
};

// The canonical, device-neutral form, as nibble.h lays it out; rows are contiguous.
// A view: const weights are only read.
struct CanonicalWeights {
  uint8_t* codes = nullptr;
  uint8_t* codes_high = nullptr;  // six-bit formats only
  uint8_t* scales = nullptr;      // quantized formats only
  float* factors = nullptr;       // WeightFormat::FactorCount of them, or null
};

}  // namespace nibble
