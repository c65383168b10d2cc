// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/gemm/gemm_input.h"

#include <algorithm>
#include <cstring>

#include "kernels-cpu/elementwise/elementwise.h"
#include "kernels-cpu/numerics/formats.h"

namespace nibble {
namespace {

struct E4M3Table {
  float value[256];
  E4M3Table() {
    for (int code = 0; code < 256; ++code) value[code] = DecodeE4M3(static_cast<uint8_t>(code));
  }
};

// Memory of one thread while it prepares a row.
struct RowScratch {
  float* normalized;  // [cols]
  uint8_t* bytes;     // [stride] codes
  float* values;      // [stride]
};

// The row after normalization.
const float* NormalizedRow(const GemmInput& input, int64_t row, const RowScratch& scratch) {
  const float* x = input.x + row * input.stride;
  if (input.norm == nullptr) return x;
  RmsNormRow(x, input.norm, input.norm_epsilon, input.cols, scratch.normalized);
  return scratch.normalized;
}

// Writes stride rounded values and returns the row's scale.
float RoundRow(const GemmInput& input, const float* x, int64_t stride, uint8_t* bytes,
               float* values) {
  const int64_t cols = input.cols;
  float scale = 1.0f;
  switch (input.activation) {
    case DType::kE4M3: {
      static const E4M3Table table;
      scale = QuantizeRowE4M3(x, cols, bytes);
      for (int64_t k = 0; k < cols; ++k) values[k] = table.value[bytes[k]];
      break;
    }
    case DType::kBF16:
      for (int64_t k = 0; k < cols; ++k) values[k] = DecodeBF16(EncodeBF16(x[k]));
      break;
    default: std::memcpy(values, x, static_cast<size_t>(cols) * sizeof(float));
  }
  std::memset(values + cols, 0, static_cast<size_t>(stride - cols) * sizeof(float));
  return scale;
}

// Writes stride codes and the sums before every 16 of them; returns the row's scale.
float QuantizeRow(const float* x, int64_t cols, int64_t stride, int8_t* codes, uint32_t* sums) {
  const float scale = QuantizeRowI8(x, cols, codes);
  std::memset(codes + cols, 0, static_cast<size_t>(stride - cols));
  sums[0] = 0;
  for (int64_t b = 0; b < stride / 16; ++b) {
    int32_t sum = 0;
    for (int64_t k = 0; k < 16; ++k) sum += codes[b * 16 + k];
    sums[b + 1] = sums[b] + static_cast<uint32_t>(sum);
  }
  return scale;
}

}  // namespace

PreparedInput PrepareInput(Workspace& workspace, const GemmInput& input, int64_t begin,
                           int64_t count) {
  const bool integer = input.activation == DType::kI8;
  const bool tiled = count > kFewRows;
  // Rows a power of two apart would fall into the same few cache sets: one more line.
  const int64_t stride = RoundUp(input.cols, 16) + 16;
  const int64_t stored_rows = tiled ? RoundUp(count, kInputTileRows) : count;
  const int64_t scale_bytes = RoundUp(count * 4, 64);
  const int64_t values_bytes = RoundUp(stored_rows * stride * (integer ? 1 : 4), 64);
  const int64_t sums_bytes = integer ? RoundUp(count * (stride / 16 + 1) * 4, 64) : 0;
  const int64_t scratch_bytes = RoundUp(input.cols * 4, 64) + RoundUp(stride, 64) + stride * 4;
  const int threads = workspace.threads();
  uint8_t* memory = workspace.Shared(static_cast<size_t>(scale_bytes + values_bytes + sums_bytes +
                                                         threads * scratch_bytes));
  float* scales = reinterpret_cast<float*>(memory);
  float* values = reinterpret_cast<float*>(memory + scale_bytes);
  int8_t* codes = reinterpret_cast<int8_t*>(values);
  uint32_t* sums = reinterpret_cast<uint32_t*>(memory + scale_bytes + values_bytes);
  uint8_t* scratches = memory + scale_bytes + values_bytes + sums_bytes;

  PreparedInput prepared;
  prepared.rows = count;
  prepared.stride = stride;
  prepared.scales = scales;
  if (integer) {
    prepared.codes = codes;
    prepared.sums = sums;
  } else {
    prepared.values = values;
  }

  const auto prepare_rows = [&](int thread, int64_t first, int64_t last) {
    uint8_t* own = scratches + thread * scratch_bytes;
    uint8_t* bytes = own + RoundUp(input.cols * 4, 64);
    const RowScratch scratch{reinterpret_cast<float*>(own), bytes,
                             reinterpret_cast<float*>(bytes + RoundUp(stride, 64))};
    for (int64_t r = first; r < last; ++r) {
      const float* x = NormalizedRow(input, begin + r, scratch);
      if (integer) {
        int8_t* row = tiled ? reinterpret_cast<int8_t*>(scratch.bytes) : codes + r * stride;
        scales[r] = QuantizeRow(x, input.cols, stride, row, sums + r * (stride / 16 + 1));
        if (!tiled) continue;
        int8_t* to = codes + (prepared.TiledCodes(r, 0) - prepared.codes);
        for (int64_t k = 0; k < stride; k += 4) std::memcpy(to + k * kInputTileRows, row + k, 4);
      } else {
        float* row = tiled ? scratch.values : values + r * stride;
        scales[r] = RoundRow(input, x, stride, scratch.bytes, row);
        if (!tiled) continue;
        float* to = values + (prepared.TiledValues(r, 0) - prepared.values);
        for (int64_t k = 0; k < stride; ++k) to[k * kInputTileRows] = row[k];
      }
    }
  };
  if (!tiled) {
    prepare_rows(0, 0, count);  // a row or two cost less than waking the others
  } else {
    // Whole tiles: no two threads write to one cache line.
    workspace.pool().Run([&](int thread) {
      const Range tiles = Share(stored_rows / kInputTileRows, thread, threads);
      prepare_rows(thread, tiles.begin * kInputTileRows,
                   std::min(tiles.end * kInputTileRows, count));
    });
  }
  return prepared;
}

}  // namespace nibble
