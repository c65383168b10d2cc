// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/numerics/quantize.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#include "kernels-cpu/numerics/fast_encode.h"
#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/numerics/quantize_row.h"

namespace nibble {
namespace {

uint32_t LoadLittle(const uint8_t* p, int64_t bytes) {
  uint32_t value = 0;
  std::memcpy(&value, p, static_cast<size_t>(bytes));
  return value;
}

void StoreLittle(uint8_t* p, int64_t bytes, uint32_t value) {
  std::memcpy(p, &value, static_cast<size_t>(bytes));
}

// The scale code for an ideal scale already divided by its factor; never 0 for a nonzero
// group.
uint32_t EncodeScale(DType type, float ideal) {
  if (type == DType::kPow2) {
    if (ideal == 0) return static_cast<uint8_t>(-9);
    int exponent;
    const float fraction = std::frexp(ideal, &exponent);  // fraction in [0.5, 1)
    if (fraction == 0.5f) --exponent;                     // ideal is itself a power of two
    return static_cast<uint8_t>(std::clamp(exponent, -9, 5));
  }
  if (ideal == 0) return 0;
  return std::max(1u, type == DType::kE4M3 ? FastEncode(type, ideal) : Encode(type, ideal));
}

// Decode for scale codes; the one of every few columns from a table.
float DecodeScale(DType type, uint32_t code) {
  if (type != DType::kE4M3) return Decode(type, code);
  static const std::array<float, 256> table = [] {
    std::array<float, 256> t;
    for (uint32_t c = 0; c < 256; ++c) t[c] = DecodeE4M3(static_cast<uint8_t>(c));
    return t;
  }();
  return table[code];
}

// max(ideal) / divisor, kept positive where max is.
float Factor(float max_ideal, float divisor) {
  if (max_ideal == 0) return 0;
  return std::max(max_ideal / divisor, std::numeric_limits<float>::denorm_min());
}

// The largest of n codes as unsigned integers, shifted left by kShift.
template <class T, int kShift>
T LargestCode(const uint8_t* codes, int64_t n) {
  T best = 0;
  for (int64_t i = 0; i < n; ++i) {
    T code;
    std::memcpy(&code, codes + i * sizeof(T), sizeof(T));
    best = std::max(best, static_cast<T>(code << kShift));
  }
  return best;
}

// Finite, of either sign: shifted left by one, which drops the sign bit, below the code of
// infinity. E4M3, whose readers have no sign: as unsigned integers below the code of NaN, since a
// sign bit makes them larger still.
bool AllScalesValid(DType type, const uint8_t* scales, int64_t n) {
  switch (type) {
    case DType::kE4M3: return LargestCode<uint8_t, 0>(scales, n) < 0x7F;
    case DType::kF16: return LargestCode<uint16_t, 1>(scales, n) < 0xF800;
    case DType::kBF16: return LargestCode<uint16_t, 1>(scales, n) < 0xFF00;
    case DType::kF32: return LargestCode<uint32_t, 1>(scales, n) < 0xFF000000u;
    default: return n == 0;  // exponents are looked at one by one
  }
}

// The canonical parts from row r on.
CanonicalWeights RowsFrom(const WeightFormat& f, int64_t cols, CanonicalWeights w, int64_t r) {
  w.codes += r * f.CodeRowBytes(cols);
  if (w.codes_high != nullptr) w.codes_high += r * f.HighRowBytes(cols);
  if (w.scales != nullptr) w.scales += r * f.Groups(cols) * f.ScaleBytes();
  if (f.HasRowFactors()) w.factors += r;
  return w;
}

// The first problem in row-major order, found by any thread.
class FirstProblem {
 public:
  void Report(int64_t index, const std::string& text) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (index < index_) {
      index_ = index;
      text_ = text;
    }
  }
  const std::string& text() const { return text_; }

 private:
  std::mutex mutex_;
  int64_t index_ = std::numeric_limits<int64_t>::max();
  std::string text_;
};

}  // namespace

WeightQuantizer::WeightQuantizer(const WeightFormat& format, DType type, const void* weights,
                                 int64_t rows, int64_t cols, int64_t stride, int threads)
    : format_(format),
      type_(type),
      weights_(static_cast<const uint8_t*>(weights)),
      rows_(rows),
      cols_(cols),
      stride_(stride),
      group_(format.Group(cols)),
      groups_(std::max<int64_t>(format.Groups(cols), 1)),
      // Allocated here: a worker must not throw.
      scratch_(threads, {std::vector<float>(groups_), std::vector<float>(groups_),
                         std::vector<uint8_t>(cols + 3)}) {}

const void* WeightQuantizer::Row(int64_t r) const {
  return weights_ + r * stride_ * (type_ == DType::kF32 ? 4 : 2);
}

// Fills scratch.maxima; false where one is not finite.
bool WeightQuantizer::FindMaxima(int64_t r, Scratch& scratch) const {
  GroupMaxima(type_, Row(r), cols_, group_, scratch.maxima.data());
  bool finite = true;
  for (const float m : scratch.maxima) finite &= m <= FLT_MAX;  // false for NaN
  return finite;
}

std::string WeightQuantizer::Prepare(ThreadPool& pool) {
  const int threads = pool.threads();
  std::vector<float> largest(threads, 0.0f);
  FirstProblem problem;
  pool.Run([&](int thread) {
    const Range range = Share(rows_, thread, threads);
    Scratch& scratch = scratch_[thread];
    for (int64_t r = range.begin; r < range.end; ++r) {
      if (!FindMaxima(r, scratch)) {
        problem.Report(r, Problem(r));
        return;
      }
      for (const float m : scratch.maxima) largest[thread] = std::max(largest[thread], m);
    }
  });
  if (format_.HasMatrixFactor()) {
    const float amax = *std::max_element(largest.begin(), largest.end());
    matrix_factor_ = Factor(amax / MaxValue(format_.code), 56.0f);
  }
  return problem.text();
}

std::string WeightQuantizer::Problem(int64_t row) const {
  for (int64_t k = 0; k < cols_; ++k) {
    float v;
    ConvertRow(DType::kF32, type_, static_cast<const uint8_t*>(Row(row)) +
                                       k * (type_ == DType::kF32 ? 4 : 2), 1, &v);
    if (std::isfinite(v)) continue;
    return "element [" + std::to_string(row) + ", " + std::to_string(k) + "] is " +
           (std::isnan(v) ? "NaN" : "infinite") + " but a finite number was expected";
  }
  return "";
}

int64_t WeightQuantizer::Quantize(int thread, int64_t begin, int64_t end,
                                  const CanonicalWeights& out) {
  Scratch& scratch = scratch_[thread];
  const int64_t row_bytes = format_.CodeRowBytes(cols_), high_bytes = format_.HighRowBytes(cols_);
  const int64_t scale_bytes = format_.ScaleBytes();
  const float largest_code = MaxValue(format_.code);
  for (int64_t r = begin; r < end; ++r) {
    if (!FindMaxima(r, scratch)) return r;
    uint8_t* codes = out.codes + (r - begin) * row_bytes;
    if (IsUnquantized(format_.code)) {
      ConvertRow(format_.code, type_, Row(r), cols_, codes);
      continue;
    }
    float factor = matrix_factor_;
    if (format_.HasRowFactors()) {
      const float amax = *std::max_element(scratch.maxima.begin(), scratch.maxima.end());
      factor = out.factors[r - begin] = Factor(amax / largest_code, 32.0f);
    }
    uint8_t* scales = out.scales + (r - begin) * groups_ * scale_bytes;
    for (int64_t g = 0; g < groups_; ++g) {
      float ideal = scratch.maxima[g] / largest_code;
      if (ideal != 0 && factor != 1) ideal /= factor;
      const uint32_t code = EncodeScale(format_.scale, ideal);
      StoreLittle(scales + g * scale_bytes, scale_bytes, code);
      // 0 for a group of zeros, and where the product underflows: its codes are 0.
      scratch.scales[g] = ideal == 0 ? 0 : DecodeScale(format_.scale, code) * factor;
    }
    const bool planes = format_.code == DType::kI4 || IsSixBit(format_.code);
    uint8_t* bytes = planes ? scratch.codes.data() : codes;
    EncodeRow(format_.code, type_, Row(r), cols_, group_, scratch.scales.data(), bytes);
    if (planes) {
      StorePlanes(bytes, cols_, codes,
                  IsSixBit(format_.code) ? out.codes_high + (r - begin) * high_bytes : nullptr);
    }
  }
  return -1;
}

std::string QuantizeWeights(ThreadPool& pool, const WeightFormat& format, DType type,
                            const void* weights, int64_t rows, int64_t cols, int64_t stride,
                            const CanonicalWeights& out) {
  const int threads = pool.threads();
  WeightQuantizer quantizer(format, type, weights, rows, cols, stride, threads);
  // The whole matrix is looked at before anything is written.
  const std::string problem = quantizer.Prepare(pool);
  if (!problem.empty()) return problem;
  if (format.HasMatrixFactor()) out.factors[0] = quantizer.matrix_factor();
  pool.Run([&](int thread) {
    const Range range = Share(rows, thread, threads);
    if (range.begin < range.end) {
      quantizer.Quantize(thread, range.begin, range.end, RowsFrom(format, cols, out, range.begin));
    }
  });
  return "";
}

std::string CheckCanonical(ThreadPool& pool, const WeightFormat& format, int64_t rows,
                           int64_t cols, const CanonicalWeights& weights) {
  FirstProblem problem;
  const int threads = pool.threads();
  const int64_t groups = format.Groups(cols), scale_bytes = format.ScaleBytes();
  const int64_t row_bytes = format.CodeRowBytes(cols);
  const int64_t element = row_bytes / std::max<int64_t>(cols, 1);
  const auto place = [](const char* part, int64_t r, int64_t k) {
    return std::string(part) + "[" + std::to_string(r) + ", " + std::to_string(k) + "] is ";
  };
  pool.Run([&](int thread) {
    const Range range = Share(rows, thread, threads);
    for (int64_t r = range.begin; r < range.end; ++r) {
      const uint8_t* row = weights.codes + r * row_bytes;
      if (!AllFinite(format.code, row, cols)) {
        for (int64_t k = 0; k < cols; ++k) {
          const float value = Decode(format.code, LoadLittle(row + k * element, element));
          if (std::isfinite(value)) continue;
          problem.Report(r, place("codes", r, k) + (std::isnan(value) ? "NaN" : "infinite"));
          return;
        }
      }
      const uint8_t* scales = weights.scales + r * groups * scale_bytes;
      if (AllScalesValid(format.scale, scales, groups)) continue;
      for (int64_t g = 0; g < groups; ++g) {
        const uint32_t code = LoadLittle(scales + g * scale_bytes, scale_bytes);
        const float scale = Decode(format.scale, code);
        const int exponent = static_cast<int8_t>(code);
        std::string wrong;
        if (format.scale == DType::kPow2) {
          if (exponent >= -9 && exponent <= 5) continue;
          wrong = "2^" + std::to_string(exponent) + ", expected 2^-9 to 2^5";
        } else {
          const bool sign = format.scale == DType::kE4M3;
          if (std::isfinite(scale) && !(sign && std::signbit(scale))) continue;
          wrong = std::to_string(scale) +
                  (sign ? ", expected finite and not negative" : ", expected finite");
        }
        problem.Report(r, place("scales", r, g) + wrong);
        return;
      }
    }
  });
  if (!problem.text().empty()) return problem.text();
  for (int64_t i = 0; i < format.FactorCount(rows); ++i) {
    if (std::isfinite(weights.factors[i]) && !std::signbit(weights.factors[i])) continue;
    return "factors[" + std::to_string(i) + "] is " + std::to_string(weights.factors[i]) +
           ", expected finite and not negative";
  }
  return "";
}

double WeightValue(const WeightFormat& format, int64_t cols, const CanonicalWeights& weights,
                   int64_t row, int64_t col) {
  const uint8_t* codes = weights.codes + row * format.CodeRowBytes(cols);
  if (IsUnquantized(format.code)) {
    const int64_t bytes = format.code == DType::kF32 ? 4 : 2;
    return Decode(format.code, LoadLittle(codes + col * bytes, bytes));
  }
  uint32_t code;
  if (format.code == DType::kI4 || IsSixBit(format.code)) {
    code = (codes[col / 2] >> (4 * (col % 2))) & 15u;
    if (IsSixBit(format.code)) {
      const uint8_t* high = weights.codes_high + row * format.HighRowBytes(cols);
      code |= ((high[col / 4] >> (2 * (col % 4))) & 3u) << 4;
    }
  } else {
    code = codes[col];
  }
  const int64_t index = row * format.Groups(cols) + col / format.Group(cols);
  const double scale = Decode(
      format.scale, LoadLittle(weights.scales + index * format.ScaleBytes(), format.ScaleBytes()));
  const double factor = format.HasMatrixFactor() ? weights.factors[0]
                        : format.HasRowFactors() ? weights.factors[row]
                                                 : 1.0;
  return Decode(format.code, code) * scale * factor;
}

}  // namespace nibble
