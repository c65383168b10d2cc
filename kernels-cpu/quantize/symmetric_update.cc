// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/quantize/symmetric_update.h"

#include <algorithm>
#include <vector>

#include "kernels-cpu/gemm/gemm.h"
#include "kernels-cpu/memory/buffer.h"
#include "kernels-cpu/quantize/channel_statistics.h"

namespace nibble {
namespace {

// Rows of a block: large enough that packing and handing out the work are small beside the
// product, small enough that little is computed above the diagonal.
constexpr int64_t kBlock = 512;

}  // namespace

PackedMatrix PackFloats(ThreadPool& pool, const float* values, int64_t rows, int64_t cols) {
  WeightFormat format;
  format.code = DType::kF32;
  CanonicalWeights weights;
  weights.codes = reinterpret_cast<uint8_t*>(const_cast<float*>(values));  // only read
  return PackMatrix(pool, format, rows, cols, weights);
}

void AddProduct(Workspace& workspace, const float* a, int64_t a_stride, int64_t rows,
                const PackedMatrix& b, float* c, int64_t c_stride) {
  const GemmInput input = {DType::kF32, a, rows, b.cols, a_stride};
  const GemmOutput output = {&b, nullptr, c, c_stride, c, c_stride};
  MatMul(workspace, input, &output, 1);
}

void AddSymmetricProduct(Workspace& workspace, const float* a, int64_t n, int64_t cols, float sign,
                         float* c, int64_t c_stride) {
  Buffer negated;
  const float* left = a;
  if (sign < 0) {
    negated = Buffer(static_cast<size_t>(std::min(n, kBlock) * cols) * sizeof(float));
  }
  std::vector<PackedMatrix> blocks;
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t rows = std::min(kBlock, n - i);
    blocks.push_back(PackFloats(workspace.pool(), a + i * cols, rows, cols));
    if (sign < 0) {
      float* to = negated.as<float>();
      const float* from = a + i * cols;
      for (int64_t k = 0; k < rows * cols; ++k) to[k] = -from[k];
      left = to;
    } else {
      left = a + i * cols;
    }
    for (size_t j = 0; j < blocks.size(); ++j) {
      AddProduct(workspace, left, cols, rows, blocks[j],
                 c + i * c_stride + static_cast<int64_t>(j) * kBlock, c_stride);
    }
  }
}

void Transpose(ThreadPool& pool, const float* from, int64_t from_stride, int64_t rows,
               int64_t cols, float* to) {
  constexpr int64_t kTile = 16;
  pool.Run([&](int thread) {
    const Range tiles = Share(DivUp(cols, kTile), thread, pool.threads());
    for (int64_t t = tiles.begin; t < tiles.end; ++t) {
      const int64_t begin = t * kTile, end = std::min(cols, begin + kTile);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t k = begin; k < end; ++k) to[k * rows + r] = from[r * from_stride + k];
      }
    }
  });
}

void AddSecondMoments(Workspace& workspace, const float* x, int64_t stride, int64_t rows,
                      int64_t cols, float* moments) {
  if (rows == 0 || cols == 0) return;
  const Buffer transposed(static_cast<size_t>(rows * cols) * sizeof(float));
  Transpose(workspace.pool(), x, stride, rows, cols, transposed.as<float>());
  AddSymmetricProduct(workspace, transposed.as<float>(), cols, rows, 1, moments, cols);
  ThreadPool& pool = workspace.pool();
  pool.Run([&](int thread) {
    const Range range = Share(cols, thread, pool.threads());
    for (int64_t i = range.begin; i < range.end; ++i) {
      for (int64_t j = i + 1; j < cols; ++j) moments[i * cols + j] = moments[j * cols + i];
    }
  });
}

}  // namespace nibble
