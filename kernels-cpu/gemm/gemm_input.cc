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

// Memory of one thread while it prepares a row; each part begins on a cache line.
struct RowScratch {
  RowScratch(uint8_t* memory, int64_t stride)
      : values(reinterpret_cast<float*>(memory)),
        bytes(memory + stride * 4),
        lines{reinterpret_cast<int8_t*>(bytes + RoundUp(stride, 64)),
              reinterpret_cast<int8_t*>(bytes + 2 * RoundUp(stride, 64))},
        sums(reinterpret_cast<int32_t*>(bytes + 3 * RoundUp(stride, 64))),
        rests(reinterpret_cast<RestQuad*>(bytes + 4 * RoundUp(stride, 64))) {}
  static int64_t Bytes(int64_t stride) {
    return stride * 4 + 4 * RoundUp(stride, 64) +
           kMostTileLines / 2 * (stride / 4) * static_cast<int64_t>(sizeof(RestQuad));
  }

  float* values;     // [stride] normalized, then rounded
  uint8_t* bytes;    // [stride] E4M3 codes
  int8_t* lines[2];  // [stride] each: what the kernel multiplies
  int32_t* sums;     // [stride / 16]
  RestQuad* rests;   // [rows of a tile][stride / 4]
};

// DecodeBF16(EncodeBF16(value)), inline for all but the largest values, infinities and NaN.
inline float RoundBF16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7FFFFFFF) >= 0x7F7F0000) return DecodeBF16(EncodeBF16(value));
  bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Writes stride rounded values and returns the row's scale.
float RoundRow(const GemmInput& input, const float* x, int64_t stride, const RowScratch& scratch) {
  const int64_t cols = input.cols;
  float* values = scratch.values;
  float scale = 1.0f;
  switch (input.activation) {
    case DType::kE4M3: {
      static const E4M3Table table;
      scale = QuantizeRowE4M3(x, cols, scratch.bytes);
      for (int64_t k = 0; k < cols; ++k) values[k] = table.value[scratch.bytes[k]];
      break;
    }
    case DType::kBF16:
      for (int64_t k = 0; k < cols; ++k) values[k] = RoundBF16(x[k]);
      break;
    default:
      if (values != x) std::memcpy(values, x, static_cast<size_t>(cols) * sizeof(float));
  }
  std::memset(values + cols, 0, static_cast<size_t>(stride - cols) * sizeof(float));
  return scale;
}

// The parts of a prepared input that are still written to.
struct Parts {
  float* scales;
  float* values;
  uint16_t* pairs;
  int8_t* codes;
  int16_t* words;
  int32_t* sums;
  RowRest* rests;
  uint32_t* rest_counts;
};

class Preparation {
 public:
  Preparation(const GemmInput& input, const PreparedInput& prepared, const Parts& parts,
              int64_t begin, bool quads)
      : input_(input), p_(prepared), parts_(parts), begin_(begin), quads_(quads) {}

  void Tile(int64_t tile, const RowScratch& scratch) const {
    const int64_t rows = p_.RowsOf(tile), first = tile * p_.tile_rows();
    int64_t rests[kMostTileLines];
    for (int64_t r = 0; r < rows; ++r) {
      const float* x = Normalized(begin_ + first + r, scratch);
      if (p_.codes == nullptr && p_.words == nullptr) {
        parts_.scales[first + r] = RoundRow(input_, x, p_.stride, scratch);
        StoreValues(scratch.values, tile, r, rows);
        continue;
      }
      parts_.scales[first + r] = Bytes(x, r, scratch, &rests[r]);
      if (p_.words != nullptr) {
        StoreWords(scratch, tile, r, rows);
      } else {
        for (int64_t d = 0; d < p_.digits; ++d) {
          StoreLine(scratch, scratch.lines[d], tile, r * p_.digits + d, rows * p_.digits);
        }
      }
    }
    if (p_.rests != nullptr) MergeRests(tile, rows, scratch.rests, rests);
  }

 private:
  // The row after normalization, if there is one.
  const float* Normalized(int64_t row, const RowScratch& scratch) const {
    const float* x = input_.x + row * input_.stride;
    if (input_.norm == nullptr) return x;
    RmsNormRow(x, input_.norm, input_.norm_epsilon, input_.cols, scratch.values);
    return scratch.values;
  }

  // Writes the lines and the rests of row `row` of a tile to scratch; returns its scale.
  float Bytes(const float* x, int64_t row, const RowScratch& scratch, int64_t* rests) const {
    const int64_t cols = input_.cols;
    const size_t padding = static_cast<size_t>(p_.stride - cols);
    if (p_.rests == nullptr) {
      std::memset(scratch.lines[0] + cols, 0, padding);
      return QuantizeRowI8(x, cols, scratch.lines[0]);
    }
    std::memset(scratch.bytes + cols, 0, padding);
    const float scale = QuantizeRowE4M3(x, cols, scratch.bytes);
    *rests = SplitE4M3(scratch.bytes, p_.stride, scratch.lines[0], scratch.lines[1],
                       scratch.rests + row * (p_.stride / 4));
    return scale;
  }

  void StoreValues(const float* from, int64_t tile, int64_t row, int64_t rows) const {
    if (p_.pairs != nullptr) {
      uint16_t* to = parts_.pairs + tile * p_.tile_lines * p_.stride + 2 * row;
      for (int64_t k = 0; k < p_.stride; ++k) to[k / 2 * 2 * rows + k % 2] = EncodeBF16(from[k]);
      return;
    }
    float* to = parts_.values + tile * p_.tile_lines * p_.stride;
    if (quads_) {
      for (int64_t k = 0; k < p_.stride; ++k) to[4 * row + FewRowsOffset(rows, k)] = from[k];
    } else {
      for (int64_t k = 0; k < p_.stride; ++k) to[k * rows + row] = from[k];
    }
  }

  void StoreLine(const RowScratch& scratch, const int8_t* from, int64_t tile, int64_t line,
                 int64_t lines) const {
    int8_t* to = parts_.codes + tile * p_.tile_lines * p_.stride + line * 4;
    for (int64_t k = 0; k < p_.stride; k += 4) std::memcpy(to + k * lines, from + k, 4);
    SumSixteens(from, p_.stride, scratch.sums);
    int32_t* sums = parts_.sums + tile * p_.tile_lines * p_.blocks() + line;
    uint32_t sum = 0;
    *sums = 0;
    for (int64_t b = 0; b < p_.stride / 16; ++b) {
      sum += static_cast<uint32_t>(scratch.sums[b]);
      sums += lines;
      std::memcpy(sums, &sum, sizeof(sum));
    }
  }

  void StoreWords(const RowScratch& scratch, int64_t tile, int64_t row, int64_t rows) const {
    int16_t* to = parts_.words + tile * p_.tile_lines * p_.stride + row * 4;
    for (int64_t k = 0; k < p_.stride; k += 4, to += 4 * rows) {
      for (int64_t i = 0; i < 4; ++i) {
        to[i] = static_cast<int16_t>(256 * scratch.lines[0][k + i] + scratch.lines[1][k + i]);
      }
    }
  }

  // The rests of all rows of a tile, by their columns, then rows. from: [rows][stride / 4].
  void MergeRests(int64_t tile, int64_t rows, const RestQuad* from, const int64_t* counts) const {
    RowRest* to = parts_.rests + tile * p_.most_rests();
    uint32_t* before = parts_.rest_counts + tile * p_.blocks();
    uint32_t count = 0;
    int64_t next[kMostTileLines] = {};
    for (int64_t b = 0; b < p_.blocks(); ++b) {
      before[b] = count;
      for (int64_t r = 0; r < rows; ++r) {
        const RestQuad* row = from + r * (p_.stride / 4);
        for (; next[r] < counts[r] && row[next[r]].column < 16 * (b + 1); ++next[r]) {
          const RestQuad& q = row[next[r]];
          to[count++] = {q, static_cast<int32_t>(r),
                         q.rest[0] + q.rest[1] + q.rest[2] + q.rest[3]};
        }
      }
    }
  }

  const GemmInput& input_;
  const PreparedInput& p_;
  const Parts& parts_;
  int64_t begin_;
  bool quads_;  // values lie in quads
};

}  // namespace

PreparedInput PrepareInput(Workspace& workspace, const GemmInput& input, Operand operand,
                           int64_t begin, int64_t count) {
  const bool bytes = operand == Operand::kBytes, words = operand == Operand::kWords;
  const bool rests = (bytes || words) && input.activation == DType::kE4M3;
  const int64_t element_bytes = bytes ? 1 : words || operand == Operand::kPairs ? 2 : 4;
  PreparedInput p;
  p.rows = count;
  // Rows a power of two apart would fall into the same few cache sets: one more line.
  p.stride = RoundUp(input.cols, 16) + 16;
  p.digits = bytes && rests ? 2 : 1;
  p.unit = rests ? kE4M3DigitUnit : 1.0f;
  if (bytes && p.lines() <= kMostTileLines) {
    p.tile_lines = p.lines();
  } else if (p.lines() <= kBlockLines) {
    p.tile_lines = DivUp(count, p.tiles()) * p.digits;
  }

  int64_t size = 0;
  const auto take = [&](int64_t part) {
    const int64_t offset = size;
    size += RoundUp(part, 64);
    return offset;
  };
  const int threads = workspace.threads();
  const int64_t scales_at = take(count * 4);
  const int64_t lines_at = take(p.lines() * p.stride * element_bytes);
  const int64_t sums_at = take(bytes ? p.lines() * p.blocks() * 4 + 64 : 0);
  const int64_t counts_at = take(rests ? p.tiles() * p.blocks() * 4 : 0);
  const int64_t rests_at = take(
      rests ? p.tiles() * p.most_rests() * static_cast<int64_t>(sizeof(RowRest)) : 0);
  const int64_t scratch_bytes = RoundUp(RowScratch::Bytes(p.stride), 64);
  const int64_t scratch_at = take(threads * scratch_bytes);
  uint8_t* memory = workspace.Shared(static_cast<size_t>(size));

  const Parts parts = {reinterpret_cast<float*>(memory + scales_at),
                       reinterpret_cast<float*>(memory + lines_at),
                       reinterpret_cast<uint16_t*>(memory + lines_at),
                       reinterpret_cast<int8_t*>(memory + lines_at),
                       reinterpret_cast<int16_t*>(memory + lines_at),
                       reinterpret_cast<int32_t*>(memory + sums_at),
                       reinterpret_cast<RowRest*>(memory + rests_at),
                       reinterpret_cast<uint32_t*>(memory + counts_at)};
  p.scales = parts.scales;
  if (bytes) {
    p.codes = parts.codes;
    p.sums = parts.sums;
  } else if (words) {
    p.words = parts.words;
  } else if (operand == Operand::kPairs) {
    p.pairs = parts.pairs;
  } else {
    p.values = parts.values;
  }
  if (rests) {
    p.rests = parts.rests;
    p.rest_counts = parts.rest_counts;
  }

  const bool quads = operand == Operand::kQuads || count <= kFewRows;
  const Preparation preparation(input, p, parts, begin, quads);
  const auto prepare = [&](int thread, int64_t first, int64_t last) {
    const RowScratch scratch(memory + scratch_at + thread * scratch_bytes, p.stride);
    for (int64_t t = first; t < last; ++t) preparation.Tile(t, scratch);
  };
  if (p.tiles() == 1) {
    prepare(0, 0, 1);  // few rows cost less than waking the others
  } else {
    workspace.pool().Run([&](int thread) {
      const Range tiles = Share(p.tiles(), thread, threads);
      prepare(thread, tiles.begin, tiles.end);
    });
  }
  return p;
}

}  // namespace nibble
