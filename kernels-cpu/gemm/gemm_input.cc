// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/gemm/gemm_input.h"

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

// One row; spare holds cols floats.
void PrepareRow(const GemmInput& input, int64_t row, int64_t stride, float* spare, float* values,
                int8_t* codes, int32_t* sums, float* scale) {
  const int64_t cols = input.cols;
  const float* x = input.x + row * input.stride;
  if (input.norm != nullptr) {
    RmsNormRow(x, input.norm, input.norm_epsilon, cols, spare);
    x = spare;
  }
  *scale = 1.0f;
  switch (input.activation) {
    case DType::kI8: {
      *scale = QuantizeRowI8(x, cols, codes);
      std::memset(codes + cols, 0, static_cast<size_t>(stride - cols));
      for (int64_t b = 0; b < stride / 16; ++b) {
        int32_t sum = 0;
        for (int64_t k = 0; k < 16; ++k) sum += codes[b * 16 + k];
        sums[b] = sum;
      }
      return;
    }
    case DType::kE4M3: {
      static const E4M3Table table;
      // The codes pass through the tail of the row they become, read before overwritten:
      // value k is written at byte 4k, code k is read at byte 3 * stride + k.
      uint8_t* bytes = reinterpret_cast<uint8_t*>(values) + 3 * stride;
      *scale = QuantizeRowE4M3(x, cols, bytes);
      for (int64_t k = 0; k < cols; ++k) {
        const float v = table.value[bytes[k]];
        std::memcpy(values + k, &v, sizeof(v));
      }
      break;
    }
    case DType::kBF16:
      for (int64_t k = 0; k < cols; ++k) values[k] = DecodeBF16(EncodeBF16(x[k]));
      break;
    default: std::memcpy(values, x, static_cast<size_t>(cols) * sizeof(float));
  }
  std::memset(values + cols, 0, static_cast<size_t>(stride - cols) * sizeof(float));
}

}  // namespace

PreparedInput PrepareInput(Workspace& workspace, const GemmInput& input, int64_t begin,
                           int64_t count) {
  const bool integer = input.activation == DType::kI8;
  // Rows a power of two apart would fall into the same few cache sets: one more line.
  const int64_t stride = RoundUp(input.cols, 16) + 16;
  const int64_t row_bytes = integer ? stride + stride / 16 * 4 : stride * 4;
  const int64_t scale_bytes = RoundUp(count * 4, 64);
  const int64_t spare_bytes = input.norm == nullptr ? 0 : RoundUp(input.cols * 4, 64);
  const int threads = workspace.threads();
  uint8_t* memory = workspace.Shared(
      static_cast<size_t>(scale_bytes + count * row_bytes + threads * spare_bytes));
  float* scales = reinterpret_cast<float*>(memory);
  uint8_t* rows = memory + scale_bytes;
  uint8_t* spare = rows + count * row_bytes;

  PreparedInput prepared;
  prepared.rows = count;
  prepared.stride = stride;
  prepared.scales = scales;
  float* values = reinterpret_cast<float*>(rows);
  int8_t* codes = reinterpret_cast<int8_t*>(rows);
  int32_t* sums = reinterpret_cast<int32_t*>(rows + count * stride);
  if (integer) {
    prepared.codes = codes;
    prepared.sums = sums;
  } else {
    prepared.values = values;
  }

  const auto prepare = [&](int thread, int parts) {
    const Range range = Share(count, thread, parts);
    for (int64_t r = range.begin; r < range.end; ++r) {
      PrepareRow(input, begin + r, stride, reinterpret_cast<float*>(spare + thread * spare_bytes),
                 values + r * stride, codes + r * stride, sums + r * (stride / 16), scales + r);
    }
  };
  if (count < 2 * threads) {
    prepare(0, 1);  // a row or two cost less than waking the others
  } else {
    workspace.pool().Run([&](int thread) { prepare(thread, threads); });
  }
  return prepared;
}

}  // namespace nibble
