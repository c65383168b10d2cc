// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/quantize/calibrated_quantize.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels-cpu/memory/buffer.h"
#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/numerics/quantize_row.h"
#include "kernels-cpu/quantize/cholesky.h"
#include "kernels-cpu/quantize/round_block.h"
#include "kernels-cpu/quantize/scale_search.h"
#include "kernels-cpu/quantize/symmetric_update.h"

namespace nibble {
namespace {

constexpr int64_t kBlock = 128;     // columns that are rounded between two products
constexpr float kMoreDamping = 10;  // where the factorization fails
constexpr int kAttempts = 6;

// One call.
class CalibratedCall {
 public:
  CalibratedCall(Workspace& workspace, const WeightFormat& format, const float* w, int64_t stride,
                 int64_t rows, int64_t cols, const CalibratedOptions& options,
                 const CanonicalWeights& out)
      : workspace_(workspace),
        pool_(workspace.pool()),
        format_(format),
        w_(w),
        stride_(stride),
        rows_(rows),
        cols_(cols),
        group_(std::min(format.Group(cols), cols)),
        groups_(format.Groups(cols)),
        options_(options),
        out_(out),
        values_(static_cast<size_t>(rows * groups_) * sizeof(float)) {}

  // "" or the first weight that is not finite. Finds the matrix factor.
  std::string Prepare();

  // Every row by itself.
  void RoundRows(const float* importance);

  // With compensation; "" or why not.
  std::string Compensate(const float* moments);

 private:
  float RowFactor(int64_t r, const float* row, const float* h) {
    if (!format_.HasRowFactors()) return matrix_factor_;
    return out_.factors[r] = FindRowFactor(row, h, cols_, group_, options_.clipping);
  }

  // Finds and stores the scale of group g of row r from the n weights at w.
  void SetScale(int64_t r, int64_t g, const float* w, const float* h, int64_t n, float factor) {
    const GroupScale s = FindGroupScale(format_, w, h, n, factor, options_.clipping);
    const int64_t bytes = format_.ScaleBytes();
    std::memcpy(out_.scales + (r * groups_ + g) * bytes, &s.code, static_cast<size_t>(bytes));
    Values(r)[g] = s.value;
  }

  // The scales of row r, with the factor.
  float* Values(int64_t r) const { return values_.as<float>() + r * groups_; }

  void StoreMatrixFactor() const {
    if (format_.HasMatrixFactor()) out_.factors[0] = matrix_factor_;
  }

  // The codes of row r, one byte each, to the canonical planes. Overwrites codes[cols..cols+2].
  void StoreRow(int64_t r, uint8_t* codes) const {
    const int64_t bytes = format_.CodeRowBytes(cols_);
    uint8_t* to = out_.codes + r * bytes;
    if (format_.code == DType::kI4 || IsSixBit(format_.code)) {
      StorePlanes(codes, cols_, to,
                  IsSixBit(format_.code) ? out_.codes_high + r * format_.HighRowBytes(cols_)
                                         : nullptr);
    } else {
      std::memcpy(to, codes, static_cast<size_t>(bytes));
    }
  }

  bool Factorize(const float* moments);
  void FindStaticScales();
  void Sweep();

  // R_ij of the header, i <= j: the factorization runs over the columns in reverse.
  float R(int64_t i, int64_t j) const {
    return factor_.as<float>()[(cols_ - 1 - i) * cols_ + cols_ - 1 - j];
  }

  Workspace& workspace_;
  ThreadPool& pool_;
  const WeightFormat format_;
  const float* w_;
  int64_t stride_;
  const int64_t rows_, cols_, group_, groups_;
  const CalibratedOptions options_;
  const CanonicalWeights out_;
  float matrix_factor_ = 1;
  Buffer values_;                // [rows][groups]
  std::vector<int64_t> order_;   // column order_[i] of the matrix is rounded as the i-th
  Buffer permuted_;              // w in that order, where it is not the natural one
  Buffer factor_;                // [cols][cols]
  std::vector<float> diagonal_;  // R_jj^2
};

std::string CalibratedCall::Prepare() {
  std::vector<float> largest(static_cast<size_t>(rows_), 0.0f);
  pool_.Run([&](int thread) {
    const Range range = Share(rows_, thread, pool_.threads());
    for (int64_t r = range.begin; r < range.end; ++r) {
      largest[static_cast<size_t>(r)] = LargestMagnitude(w_ + r * stride_, cols_);
    }
  });
  float amax = 0;
  for (int64_t r = 0; r < rows_; ++r) {
    const float m = largest[static_cast<size_t>(r)];
    amax = std::max(amax, m);
    if (m <= FLT_MAX) continue;
    int64_t k = 0;
    while (std::isfinite(w_[r * stride_ + k])) ++k;
    return "weights: element [" + std::to_string(r) + ", " + std::to_string(k) + "] is " +
           (std::isnan(w_[r * stride_ + k]) ? "NaN" : "infinite") +
           " but a finite number was expected";
  }
  if (format_.HasMatrixFactor()) {
    matrix_factor_ = options_.matrix_factor != 0 ? options_.matrix_factor : FactorOf(amax, 56.0f);
  }
  return "";
}

void CalibratedCall::RoundRows(const float* importance) {
  StoreMatrixFactor();
  const Buffer codes(static_cast<size_t>((cols_ + 3) * pool_.threads()));
  pool_.Run([&](int thread) {
    uint8_t* row_codes = codes.data() + thread * (cols_ + 3);
    const Range range = Share(rows_, thread, pool_.threads());
    for (int64_t r = range.begin; r < range.end; ++r) {
      const float* row = w_ + r * stride_;
      const float factor = RowFactor(r, row, importance);
      for (int64_t g = 0; g < groups_; ++g) {
        const int64_t k = g * group_;
        SetScale(r, g, row + k, importance == nullptr ? nullptr : importance + k,
                 std::min(group_, cols_ - k), factor);
      }
      EncodeRow(format_.code, DType::kF32, row, cols_, group_, Values(r), row_codes);
      StoreRow(r, row_codes);
    }
  });
}

// Fills factor_ and diagonal_. Damping grows where it is too little for F32.
bool CalibratedCall::Factorize(const float* moments) {
  double mean = 0;
  for (int64_t k = 0; k < cols_; ++k) mean += moments[k * cols_ + k];
  mean /= static_cast<double>(cols_);
  if (!(mean > 0)) mean = 1;  // inputs that are all zero: nothing to compensate
  factor_ = Buffer(static_cast<size_t>(cols_ * cols_) * sizeof(float));
  float* a = factor_.as<float>();
  double damping = options_.damping;
  for (int attempt = 0; attempt < kAttempts; ++attempt, damping *= kMoreDamping) {
    pool_.Run([&](int thread) {
      const Range range = Share(cols_, thread, pool_.threads());
      for (int64_t i = range.begin; i < range.end; ++i) {
        const float* from = moments + order_[static_cast<size_t>(cols_ - 1 - i)] * cols_;
        for (int64_t j = 0; j <= i; ++j) {
          a[i * cols_ + j] = from[order_[static_cast<size_t>(cols_ - 1 - j)]];
        }
        a[i * cols_ + i] += static_cast<float>(damping * mean);
      }
    });
    if (!Cholesky(workspace_, a, cols_)) continue;
    diagonal_.resize(static_cast<size_t>(cols_));
    for (int64_t j = 0; j < cols_; ++j) diagonal_[static_cast<size_t>(j)] = R(j, j) * R(j, j);
    return true;
  }
  return false;
}

// Scales of the weights as they are, for groups that are not rounded as one run of columns.
void CalibratedCall::FindStaticScales() {
  std::vector<float> h(static_cast<size_t>(cols_));
  for (int64_t i = 0; i < cols_; ++i) {
    h[static_cast<size_t>(order_[static_cast<size_t>(i)])] = diagonal_[static_cast<size_t>(i)];
  }
  pool_.Run([&](int thread) {
    const Range range = Share(rows_, thread, pool_.threads());
    for (int64_t r = range.begin; r < range.end; ++r) {
      const float* row = w_ + r * stride_;
      const float factor = RowFactor(r, row, h.data());
      for (int64_t g = 0; g < groups_; ++g) {
        const int64_t k = g * group_;
        SetScale(r, g, row + k, h.data() + k, std::min(group_, cols_ - k), factor);
      }
    }
  });
}

void CalibratedCall::Sweep() {
  StoreMatrixFactor();
  const bool natural = !options_.by_magnitude;
  // Scales of a group that is rounded in one run take the compensated weights into account.
  const bool dynamic = natural && group_ <= kBlock;
  const int64_t block = dynamic ? kBlock / group_ * group_ : kBlock;
  // All scales once: row factors come with them.
  FindStaticScales();
  const float* w = w_;
  int64_t stride = stride_;
  if (!natural) {
    permuted_ = Buffer(static_cast<size_t>(rows_ * cols_) * sizeof(float));
    float* to = permuted_.as<float>();
    pool_.Run([&](int thread) {
      const Range range = Share(rows_, thread, pool_.threads());
      for (int64_t r = range.begin; r < range.end; ++r) {
        for (int64_t i = 0; i < cols_; ++i) {
          to[r * cols_ + i] = w_[r * stride_ + order_[static_cast<size_t>(i)]];
        }
      }
    });
    w = to;
    stride = cols_;
  }
  const Buffer sums(static_cast<size_t>(rows_ * cols_) * sizeof(float));
  const Buffer errors(static_cast<size_t>(rows_ * block) * sizeof(float));
  const Buffer codes(static_cast<size_t>(rows_ * (cols_ + 3)));
  std::vector<float> inside(static_cast<size_t>(block * block));
  std::vector<float> inverse(static_cast<size_t>(block));
  Buffer below;
  for (int64_t b = 0; b < cols_; b += block) {
    const int64_t n = std::min(block, cols_ - b), rest = cols_ - b - n;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = i; j < n; ++j) inside[static_cast<size_t>(i * n + j)] = R(b + i, b + j);
      inverse[static_cast<size_t>(i)] = 1 / R(b + i, b + i);
    }
    pool_.Run([&](int thread) {
      float scales[kBlock], target[kBlock];
      const Range range = Share(rows_, thread, pool_.threads());
      for (int64_t r = range.begin; r < range.end; ++r) {
        const float* row = w + r * stride + b;
        float* row_sums = sums.as<float>() + r * cols_ + b;
        // With dynamic scales a group after the other, each scale when its turn comes.
        const int64_t run = dynamic ? group_ : n;
        for (int64_t begin = 0; begin < n; begin += run) {
          const int64_t end = std::min(n, begin + run);
          if (dynamic) {
            PredictBlock(row, inside.data(), inverse.data(), n, begin, end, row_sums, target);
            SetScale(r, (b + begin) / group_, target, diagonal_.data() + b + begin,
                     end - begin, format_.HasRowFactors() ? out_.factors[r] : matrix_factor_);
          }
          for (int64_t i = begin; i < end; ++i) {
            scales[i] = Values(r)[order_[static_cast<size_t>(b + i)] / group_];
          }
          RoundBlock(format_.code, row, scales, inside.data(), inverse.data(), n, begin, end,
                     row_sums, errors.as<float>() + r * n, codes.data() + r * (cols_ + 3) + b);
        }
      }
    });
    if (rest == 0) break;
    if (below.size() == 0) below = Buffer(static_cast<size_t>(rest * block) * sizeof(float));
    float* t = below.as<float>();
    pool_.Run([&](int thread) {
      const Range range = Share(rest, thread, pool_.threads());
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = range.begin; j < range.end; ++j) t[j * n + i] = R(b + i, b + n + j);
      }
    });
    AddProduct(workspace_, errors.as<float>(), n, rows_, PackFloats(pool_, t, rest, n),
               sums.as<float>() + b + n, cols_);
  }
  const Buffer ordered(static_cast<size_t>((cols_ + 3) * pool_.threads()));
  pool_.Run([&](int thread) {
    uint8_t* row = ordered.data() + thread * (cols_ + 3);
    const Range range = Share(rows_, thread, pool_.threads());
    for (int64_t r = range.begin; r < range.end; ++r) {
      const uint8_t* from = codes.data() + r * (cols_ + 3);
      for (int64_t i = 0; i < cols_; ++i) row[order_[static_cast<size_t>(i)]] = from[i];
      StoreRow(r, row);
    }
  });
}

std::string CalibratedCall::Compensate(const float* moments) {
  for (int64_t i = 0; i < cols_; ++i) {
    const float m = LargestMagnitude(moments + i * cols_, cols_);
    if (m <= FLT_MAX && moments[i * cols_ + i] >= 0) continue;
    return "moments: row " + std::to_string(i) +
           " holds NaN, infinity or a negative square, but x^T x was expected";
  }
  order_.resize(static_cast<size_t>(cols_));
  std::iota(order_.begin(), order_.end(), int64_t{0});
  if (options_.by_magnitude) {
    std::stable_sort(order_.begin(), order_.end(), [&](int64_t a, int64_t b) {
      return moments[a * cols_ + a] > moments[b * cols_ + b];
    });
  }
  if (!Factorize(moments)) return "moments: not positive definite, but x^T x was expected";
  Sweep();
  return "";
}

}  // namespace

std::string QuantizeCalibrated(Workspace& workspace, const WeightFormat& format, const float* w,
                               int64_t stride, int64_t rows, int64_t cols,
                               const float* importance, const float* moments,
                               const CalibratedOptions& options, const CanonicalWeights& out) {
  CalibratedCall call(workspace, format, w, stride, rows, cols, options, out);
  const std::string problem = call.Prepare();
  if (!problem.empty()) return problem;
  if (moments != nullptr) return call.Compensate(moments);
  call.RoundRows(importance);
  return "";
}

}  // namespace nibble
