// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/numerics/quantize.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#include "kernels-cpu/numerics/fast_encode.h"
#include "kernels-cpu/numerics/formats.h"

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

// One row of the source as F32.
void LoadRow(DType type, const void* weights, int64_t begin, int64_t cols, float* out) {
  if (type == DType::kF32) {
    std::memcpy(out, static_cast<const float*>(weights) + begin, cols * sizeof(float));
    return;
  }
  const uint16_t* source = static_cast<const uint16_t*>(weights) + begin;
  if (type == DType::kBF16) {
    for (int64_t k = 0; k < cols; ++k) {
      const uint32_t bits = static_cast<uint32_t>(source[k]) << 16;
      std::memcpy(out + k, &bits, sizeof(bits));
    }
  } else {
    for (int64_t k = 0; k < cols; ++k) out[k] = DecodeF16(source[k]);
  }
}

float MaxMagnitude(const float* x, int64_t n) {
  // As integers: the magnitudes of finite floats order like their bits, and an integer
  // maximum vectorizes.
  uint32_t best = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof(bits));
    best = std::max(best, bits & 0x7FFFFFFFu);
  }
  float result;
  std::memcpy(&result, &best, sizeof(result));
  return result;
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
  return std::max(1u, Encode(type, ideal));
}

// max(ideal) / divisor, kept positive where max is.
float Factor(float max_ideal, float divisor) {
  if (max_ideal == 0) return 0;
  return std::max(max_ideal / divisor, std::numeric_limits<float>::denorm_min());
}

class RowQuantizer {
 public:
  RowQuantizer(const WeightFormat& format, int64_t cols, const CanonicalWeights& out)
      : format_(format), cols_(cols), group_(format.Group(cols)), groups_(format.Groups(cols)),
        out_(out), codes_(cols) {}

  float Ideal(const float* row, int64_t group) const {
    const int64_t begin = group * group_;
    return MaxMagnitude(row + begin, std::min(group_, cols_ - begin)) / MaxValue(format_.code);
  }

  float MaxIdeal(const float* row) const {
    float best = 0;
    for (int64_t g = 0; g < groups_; ++g) best = std::max(best, Ideal(row, g));
    return best;
  }

  void Quantize(int64_t r, const float* row, float factor) {
    const int64_t scale_bytes = format_.ScaleBytes();
    for (int64_t g = 0; g < groups_; ++g) {
      float ideal = Ideal(row, g);
      if (ideal != 0 && factor != 1) ideal /= factor;
      const uint32_t code = EncodeScale(format_.scale, ideal);
      StoreLittle(out_.scales + (r * groups_ + g) * scale_bytes, scale_bytes, code);
      const int64_t begin = g * group_, end = std::min(begin + group_, cols_);
      EncodeGroup(row, begin, end, ideal == 0 ? 0 : Decode(format_.scale, code) * factor);
    }
    StoreCodes(r);
  }

  void Convert(int64_t r, const float* row) {
    const int64_t bytes = format_.code == DType::kF32 ? 4 : 2;
    uint8_t* to = out_.codes + r * format_.CodeRowBytes(cols_);
    for (int64_t k = 0; k < cols_; ++k) {
      StoreLittle(to + k * bytes, bytes, Encode(format_.code, row[k]));
    }
  }

 private:
  // scale 0: a group of zeros, or one so small that its scale underflowed; codes are 0.
  void EncodeGroup(const float* row, int64_t begin, int64_t end, float scale) {
    if (scale == 0) {
      std::fill(codes_.begin() + begin, codes_.begin() + end, uint8_t{0});
      return;
    }
    switch (format_.code) {  // the type is a constant inside each loop
      case DType::kI4: EncodeLoop<DType::kI4>(row, begin, end, scale); break;
      case DType::kI8: EncodeLoop<DType::kI8>(row, begin, end, scale); break;
      case DType::kE4M3: EncodeLoop<DType::kE4M3>(row, begin, end, scale); break;
      case DType::kE5M2: EncodeLoop<DType::kE5M2>(row, begin, end, scale); break;
      case DType::kE3M2: EncodeLoop<DType::kE3M2>(row, begin, end, scale); break;
      default: EncodeLoop<DType::kE2M3>(row, begin, end, scale);
    }
  }

  template <DType kType>
  void EncodeLoop(const float* row, int64_t begin, int64_t end, float scale) {
    for (int64_t k = begin; k < end; ++k) {
      codes_[k] = static_cast<uint8_t>(FastEncode(kType, row[k] / scale));
    }
  }

  void StoreCodes(int64_t r) {
    uint8_t* to = out_.codes + r * format_.CodeRowBytes(cols_);
    if (format_.code != DType::kI4 && !IsSixBit(format_.code)) {
      std::memcpy(to, codes_.data(), static_cast<size_t>(cols_));
      return;
    }
    const auto code = [this](int64_t k) { return k < cols_ ? codes_[k] : uint8_t{0}; };
    for (int64_t k = 0; k < cols_; k += 2) {
      to[k / 2] = static_cast<uint8_t>((code(k) & 15) | (code(k + 1) & 15) << 4);
    }
    if (!IsSixBit(format_.code)) return;
    uint8_t* high = out_.codes_high + r * format_.HighRowBytes(cols_);
    for (int64_t k = 0; k < cols_; k += 4) {
      uint32_t bits = 0;
      for (int i = 0; i < 4; ++i) bits |= (code(k + i) >> 4u) << (2 * i);
      high[k / 4] = static_cast<uint8_t>(bits);
    }
  }

  const WeightFormat format_;
  const int64_t cols_, group_, groups_;
  const CanonicalWeights out_;
  std::vector<uint8_t> codes_;
};

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

std::string QuantizeWeights(ThreadPool& pool, const WeightFormat& format, DType type,
                            const void* weights, int64_t rows, int64_t cols, int64_t stride,
                            const CanonicalWeights& out) {
  const bool quantized = !IsUnquantized(format.code);
  const int threads = pool.threads();
  FirstProblem problem;
  std::vector<float> max_ideal(threads, 0.0f);
  // Allocated here: a worker must not throw.
  std::vector<std::vector<float>> buffers(threads, std::vector<float>(cols));
  std::vector<RowQuantizer> quantizers(threads, RowQuantizer(format, cols, out));

  const auto for_each_row = [&](const auto& body) {  // body(thread, row index, row)
    pool.Run([&](int thread) {
      const Range range = Share(rows, thread, threads);
      float* row = buffers[thread].data();
      for (int64_t r = range.begin; r < range.end; ++r) {
        LoadRow(type, weights, r * stride, cols, row);
        if (!body(thread, r, row)) return;
      }
    });
  };

  // The whole matrix is looked at before anything is written.
  for_each_row([&](int thread, int64_t r, const float* row) {
    if (!(MaxMagnitude(row, cols) <= FLT_MAX)) {
      const int64_t k =
          std::find_if(row, row + cols, [](float v) { return !std::isfinite(v); }) - row;
      problem.Report(r * cols + k, "element [" + std::to_string(r) + ", " + std::to_string(k) +
                                       "] is " + (std::isnan(row[k]) ? "NaN" : "infinite") +
                                       " but a finite number was expected");
      return false;
    }
    if (format.HasMatrixFactor()) {
      max_ideal[thread] = std::max(max_ideal[thread], quantizers[thread].MaxIdeal(row));
    }
    return true;
  });
  if (!problem.text().empty()) return problem.text();

  if (format.HasMatrixFactor()) {
    out.factors[0] = Factor(*std::max_element(max_ideal.begin(), max_ideal.end()), 56.0f);
  }
  for_each_row([&](int thread, int64_t r, const float* row) {
    if (!quantized) {
      quantizers[thread].Convert(r, row);
      return true;
    }
    float factor = format.HasMatrixFactor() ? out.factors[0] : 1.0f;
    if (format.HasRowFactors()) {
      factor = out.factors[r] = Factor(quantizers[thread].MaxIdeal(row), 32.0f);
    }
    quantizers[thread].Quantize(r, row, factor);
    return true;
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
  const bool float_codes = format.code == DType::kE4M3 || format.code == DType::kE5M2 ||
                           IsUnquantized(format.code);
  const auto place = [](const char* part, int64_t r, int64_t k) {
    return std::string(part) + "[" + std::to_string(r) + ", " + std::to_string(k) + "] is ";
  };
  pool.Run([&](int thread) {
    const Range range = Share(rows, thread, threads);
    for (int64_t r = range.begin; r < range.end; ++r) {
      if (float_codes) {
        const uint8_t* row = weights.codes + r * row_bytes;
        for (int64_t k = 0; k < cols; ++k) {
          const float value = Decode(format.code, LoadLittle(row + k * element, element));
          if (std::isfinite(value)) continue;
          problem.Report(r, place("codes", r, k) + (std::isnan(value) ? "NaN" : "infinite"));
          return;
        }
      }
      for (int64_t g = 0; g < groups; ++g) {
        const uint32_t code = LoadLittle(weights.scales + (r * groups + g) * scale_bytes, scale_bytes);
        const float scale = Decode(format.scale, code);
        const int exponent = static_cast<int8_t>(code);
        if (format.scale == DType::kPow2 ? exponent >= -9 && exponent <= 5
                                         : std::isfinite(scale) && !std::signbit(scale)) {
          continue;
        }
        problem.Report(r, place("scales", r, g) +
                              (format.scale == DType::kPow2
                                   ? "2^" + std::to_string(exponent) + ", expected 2^-9 to 2^5"
                                   : std::to_string(scale) + ", expected finite and not negative"));
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
