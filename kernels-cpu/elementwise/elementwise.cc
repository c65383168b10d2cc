// SPDX-License-Identifier: Apache-2.0
//
// The whole operators of elementwise.h: the row kernels of rows.cc over all threads.
#include "kernels-cpu/elementwise/elementwise.h"

#include <algorithm>

namespace nibble {
namespace {

// Below this many elements in all, waking other threads costs more than it saves: a fork
// and join takes about a microsecond, in which one core streams some 8,000 elements.
constexpr int64_t kMinParallelElements = 8192;
// Elementwise operators split long rows here, so that one token uses every thread too.
constexpr int64_t kColumnChunk = 2048;

// Calls row(r, thread) for every row, contiguous shares per thread.
template <class Row>
void ForEachRow(Workspace& workspace, int64_t rows, int64_t cols, const Row& row) {
  if (rows <= 1 || workspace.threads() == 1 || rows * cols < kMinParallelElements) {
    for (int64_t r = 0; r < rows; ++r) row(r, 0);
    return;
  }
  workspace.pool().Run([&](int thread) {
    const Range share = Share(rows, thread, workspace.threads());
    for (int64_t r = share.begin; r < share.end; ++r) row(r, thread);
  });
}

// Calls chunk(row, first column, columns) over every row, cut into chunks of columns.
template <class Chunk>
void ForEachChunk(Workspace& workspace, int64_t rows, int64_t cols, const Chunk& chunk) {
  const int64_t chunks = DivUp(cols, kColumnChunk);
  ForEachRow(workspace, rows * chunks, kColumnChunk, [&](int64_t i, int) {
    const int64_t row = i / chunks, begin = (i % chunks) * kColumnChunk;
    chunk(row, begin, std::min(kColumnChunk, cols - begin));
  });
}

}  // namespace

void RmsNorm(Workspace& workspace, const float* x, int64_t x_stride, const float* weight,
             float epsilon, int64_t rows, int64_t cols, float* y, int64_t y_stride) {
  ForEachRow(workspace, rows, cols, [&](int64_t r, int) {
    RmsNormRow(x + r * x_stride, weight, epsilon, cols, y + r * y_stride);
  });
}

void SwiGlu(Workspace& workspace, const float* gate, int64_t gate_stride, const float* up,
            int64_t up_stride, int64_t rows, int64_t cols, float* y, int64_t y_stride) {
  ForEachChunk(workspace, rows, cols, [&](int64_t r, int64_t begin, int64_t n) {
    SwiGluRow(gate + r * gate_stride + begin, up + r * up_stride + begin, n,
              y + r * y_stride + begin);
  });
}

void Add(Workspace& workspace, const float* a, int64_t a_stride, const float* b, int64_t b_stride,
         int64_t rows, int64_t cols, float* y, int64_t y_stride) {
  ForEachChunk(workspace, rows, cols, [&](int64_t r, int64_t begin, int64_t n) {
    AddRow(a + r * a_stride + begin, b + r * b_stride + begin, n, y + r * y_stride + begin);
  });
}

void QuantizeActivations(Workspace& workspace, DType type, const float* x, int64_t x_stride,
                         const float* norm, float epsilon, int64_t rows, int64_t cols,
                         uint8_t* codes, int64_t codes_stride, float* scales) {
  const size_t row_bytes = static_cast<size_t>(RoundUp(std::max<int64_t>(cols, 1), 16)) * 4;
  if (norm != nullptr) workspace.ReservePerThread(row_bytes);
  ForEachRow(workspace, rows, cols, [&](int64_t r, int thread) {
    const float* row = x + r * x_stride;
    if (norm != nullptr) {
      float* normed = reinterpret_cast<float*>(workspace.PerThread(thread));
      RmsNormRow(row, norm, epsilon, cols, normed);
      row = normed;
    }
    uint8_t* out = codes + r * codes_stride;
    scales[r] = type == DType::kE4M3 ? QuantizeRowE4M3(row, cols, out)
                                     : QuantizeRowI8(row, cols, reinterpret_cast<int8_t*>(out));
  });
}

void Embedding(Workspace& workspace, const PackedMatrix& table, const int32_t* ids, int64_t rows,
               float* y, int64_t y_stride) {
  ForEachRow(workspace, rows, table.cols,
             [&](int64_t r, int) { DequantizeRow(table, ids[r], y + r * y_stride); });
}

}  // namespace nibble
