// SPDX-License-Identifier: Apache-2.0
//
// With H = sum x x^T + d = L L^T the correction Z = B H^-1, B = W (sum y x^T - sum x x^T), is found
// by two substitutions, each in blocks of 128 columns: the block by itself, row by row, then what
// it means for all columns that follow, as an F32 product.
//
//   U L^T = B    forward:   U_b = B_b L_bb^-T,   B_rest -= U_b L_rest,b^T
//   Z L = U      backward:  Z_b = U_b L_bb^-1,   U_before -= Z_b L_b,before
#include "kernels-cpu/quantize/drift_correction.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "kernels-cpu/memory/buffer.h"
#include "kernels-cpu/quantize/cholesky.h"
#include "kernels-cpu/quantize/scale_search.h"
#include "kernels-cpu/quantize/symmetric_update.h"

namespace nibble {
namespace {

constexpr int64_t kBlock = 128;
constexpr float kMoreDamping = 10;  // where the factorization fails
constexpr int kAttempts = 6;

// Columns b .. b + m - 1 of b_values [rows][cols] by the block of L on the diagonal; -result to out
// [rows][m]. Forward: U_b, else Z_b.
void SolveBlock(ThreadPool& pool, const float* l, int64_t cols, int64_t b, int64_t m, bool forward,
                float* values, int64_t rows, float* out) {
  pool.Run([&](int thread) {
    const Range range = Share(rows, thread, pool.threads());
    for (int64_t r = range.begin; r < range.end; ++r) {
      float* v = values + r * cols + b;
      for (int64_t i = 0; i < m; ++i) {
        // Each solved element is taken from those that wait for it, so that the inner loop has no
        // sum that would have to be reordered.
        const int64_t j = forward ? i : m - 1 - i;
        const float* row = l + (b + j) * cols + b;
        v[j] /= row[j];
        if (forward) {
          for (int64_t k = j + 1; k < m; ++k) v[k] -= v[j] * l[(b + k) * cols + b + j];
        } else {
          for (int64_t k = 0; k < j; ++k) v[k] -= v[j] * row[k];
        }
      }
      for (int64_t i = 0; i < m; ++i) out[r * m + i] = -v[i];
    }
  });
}

// values [rows][cols] := values (L L^T)^-1.
void Solve(Workspace& workspace, const float* l, int64_t cols, float* values, int64_t rows) {
  ThreadPool& pool = workspace.pool();
  const Buffer solved(static_cast<size_t>(rows * kBlock) * sizeof(float));
  const Buffer side(static_cast<size_t>(cols * kBlock) * sizeof(float));
  const int64_t blocks = DivUp(cols, kBlock);
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t b = i * kBlock, m = std::min(kBlock, cols - b), rest = cols - b - m;
    SolveBlock(pool, l, cols, b, m, /*forward=*/true, values, rows, solved.as<float>());
    if (rest == 0) break;
    for (int64_t r = 0; r < rest; ++r) {
      std::memcpy(side.as<float>() + r * m, l + (b + m + r) * cols + b,
                  static_cast<size_t>(m) * sizeof(float));
    }
    AddProduct(workspace, solved.as<float>(), m, rows,
               PackFloats(pool, side.as<float>(), rest, m), values + b + m, cols);
  }
  for (int64_t i = blocks - 1; i >= 0; --i) {
    const int64_t b = i * kBlock, m = std::min(kBlock, cols - b);
    SolveBlock(pool, l, cols, b, m, /*forward=*/false, values, rows, solved.as<float>());
    if (b == 0) break;
    Transpose(pool, l + b * cols, cols, m, b, side.as<float>());
    AddProduct(workspace, solved.as<float>(), m, rows, PackFloats(pool, side.as<float>(), b, m),
               values, cols);
  }
}

// "" or the first row that holds NaN or infinity.
std::string CheckFinite(const char* name, const float* a, int64_t n, bool squares) {
  for (int64_t i = 0; i < n; ++i) {
    const float largest = LargestMagnitude(a + i * n, n);
    if (largest <= FLT_MAX && !(squares && a[i * n + i] < 0)) continue;
    return std::string(name) + ": row " + std::to_string(i) + " holds NaN, infinity" +
           (squares ? " or a negative square, but x^T x was expected"
                    : ", but finite numbers were expected");
  }
  return "";
}

}  // namespace

void AddCrossMoments(Workspace& workspace, const float* x, int64_t x_stride, const float* y,
                     int64_t y_stride, int64_t rows, int64_t cols, float* moments) {
  if (rows == 0 || cols == 0) return;
  ThreadPool& pool = workspace.pool();
  const Buffer left(static_cast<size_t>(rows * cols) * sizeof(float));
  const Buffer right(static_cast<size_t>(rows * cols) * sizeof(float));
  Transpose(pool, x, x_stride, rows, cols, left.as<float>());
  Transpose(pool, y, y_stride, rows, cols, right.as<float>());
  AddProduct(workspace, left.as<float>(), rows, cols,
             PackFloats(pool, right.as<float>(), cols, rows), moments, cols);
}

std::string CorrectDrift(Workspace& workspace, float* w, int64_t stride, int64_t rows,
                         int64_t cols, const float* moments, const float* cross, float damping) {
  std::string problem = CheckFinite("moments", moments, cols, true);
  if (problem.empty()) problem = CheckFinite("cross", cross, cols, false);
  if (!problem.empty()) return problem;
  ThreadPool& pool = workspace.pool();
  const auto by_rows = [&](int64_t count, auto&& row) {
    pool.Run([&](int thread) {
      const Range range = Share(count, thread, pool.threads());
      for (int64_t i = range.begin; i < range.end; ++i) row(i);
    });
  };
  double mean = 0;
  for (int64_t k = 0; k < cols; ++k) mean += moments[k * cols + k];
  mean /= static_cast<double>(cols);
  if (!(mean > 0)) return "";  // inputs that are all zero: nothing to learn from
  Buffer factor(static_cast<size_t>(cols * cols) * sizeof(float));
  float* l = factor.as<float>();
  bool factored = false;
  double share = damping;
  for (int attempt = 0; attempt < kAttempts && !factored; ++attempt, share *= kMoreDamping) {
    by_rows(cols, [&](int64_t i) {
      std::memcpy(l + i * cols, moments + i * cols, static_cast<size_t>(cols) * sizeof(float));
      l[i * cols + i] += static_cast<float>(share * mean);
    });
    factored = Cholesky(workspace, l, cols);
  }
  if (!factored) return "moments: not positive definite, but x^T x was expected";
  const Buffer correction(static_cast<size_t>(rows * cols) * sizeof(float));
  float* z = correction.as<float>();
  std::memset(z, 0, static_cast<size_t>(rows * cols) * sizeof(float));
  {
    // B = W D with D = sum y x^T - sum x x^T; a product takes the transposed right operand, and D^T
    // is cross - moments as they lie.
    const Buffer difference(static_cast<size_t>(cols * cols) * sizeof(float));
    by_rows(cols, [&](int64_t i) {
      float* to = difference.as<float>() + i * cols;
      for (int64_t j = 0; j < cols; ++j) to[j] = cross[i * cols + j] - moments[i * cols + j];
    });
    AddProduct(workspace, w, stride, rows, PackFloats(pool, difference.as<float>(), cols, cols), z,
               cols);
  }
  Solve(workspace, l, cols, z, rows);
  by_rows(rows, [&](int64_t r) {
    for (int64_t k = 0; k < cols; ++k) w[r * stride + k] += z[r * cols + k];
  });
  return "";
}

}  // namespace nibble
