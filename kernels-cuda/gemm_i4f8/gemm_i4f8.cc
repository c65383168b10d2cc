// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/gemm_i4f8/gemm_i4f8.h"

#include <algorithm>
#include <cstring>

#include "kernels-cuda/gemm_i4f8/layout.h"

namespace nibble::cuda::gemm_i4f8 {
namespace {

// Rows of a block of packing: four tiles, some 100 KiB of a matrix of 4096 columns.
constexpr int64_t kPackRows = 4 * kTileRows;

struct BlockRows {
  int64_t first_tile, end_tile;
};

BlockRows TilesOf(const Layout& layout, int64_t block) {
  const int64_t tiles = kPackRows / kTileRows;
  return {block * tiles, std::min(layout.tiles, (block + 1) * tiles)};
}

bool Knows(const WeightFormat& format) {
  const DType s = format.scale;
  return format.code == DType::kI4 && format.group_size >= 0 && format.group_size % 16 == 0 &&
         (s == DType::kE4M3 || s == DType::kPow2 || s == DType::kF16 || s == DType::kBF16 ||
          s == DType::kF32);
}

}  // namespace

std::string Unsupported(const WeightFormat& format, int64_t rows, int64_t cols, DType activation,
                        int sm) {
  constexpr int64_t kMost = (int64_t{1} << 31) - 1;
  if (!Knows(format)) {
    return "the INT4 kernels take I4 codes with E4M3, POW2, F16, BF16 or F32 scales and groups of "
           "a multiple of 16 columns or the whole row";
  }
  if (rows < 1 || cols < 1 || rows > kMost || cols > kMost) {
    return "the INT4 kernels take 1 to 2147483647 rows and columns, not " + std::to_string(rows) +
           " x " + std::to_string(cols);
  }
  if (activation != DType::kE4M3 && activation != DType::kI8 && activation != DType::kBF16) {
    return "on a CUDA device INT4 weights are multiplied with E4M3, I8 or BF16 activations";
  }
  if (sm < 80) {
    return "the INT4 kernels need compute capability 8.0 or newer, not " +
           std::to_string(sm / 10) + "." + std::to_string(sm % 10);
  }
  return "";
}

int64_t PackedBytes(const WeightFormat& format, int64_t rows, int64_t cols) {
  return Layout(format, rows, cols).bytes();
}

int64_t RowBlocks(int64_t rows) { return DivUp(rows, kPackRows); }

void Pack(const WeightFormat& format, int64_t rows, int64_t cols, const CanonicalWeights& weights,
          int64_t block, uint8_t* packed) {
  const Layout layout(format, rows, cols);
  const BlockRows tiles = TilesOf(layout, block);
  const int64_t row_bytes = format.CodeRowBytes(cols), groups = format.Groups(cols);
  // Everything that is padding stays zero.
  const int64_t tile_bytes = layout.steps * kStepBytes;
  const int64_t scale_tile_bytes = layout.groups * kTileRows * layout.scale_bytes;
  uint8_t* const scales = packed + layout.scales_offset();
  std::memset(packed + tiles.first_tile * tile_bytes, 0,
              static_cast<size_t>((tiles.end_tile - tiles.first_tile) * tile_bytes));
  std::memset(scales + tiles.first_tile * scale_tile_bytes, 0,
              static_cast<size_t>((tiles.end_tile - tiles.first_tile) * scale_tile_bytes));

  const int64_t end = std::min(rows, tiles.end_tile * kTileRows);
  for (int64_t n = tiles.first_tile * kTileRows; n < end; ++n) {
    const uint8_t* codes = weights.codes + n * row_bytes;
    for (int64_t k = 0; k < cols; k += 8) {
      const int64_t bytes = std::min<int64_t>(4, row_bytes - k / 2);
      uint8_t* word = packed + WordOffset(layout.steps, n, k);
      std::memcpy(word, codes + k / 2, static_cast<size_t>(bytes));
      if (cols - k < 8 && cols % 2 != 0) word[bytes - 1] &= 0x0F;  // the bits of no column
    }
    const uint8_t* from = weights.scales + n * groups * layout.scale_bytes;
    uint8_t* to = scales + n / kTileRows * scale_tile_bytes + n % kTileRows * layout.scale_bytes;
    for (int64_t g = 0; g < groups; ++g) {
      std::memcpy(to + g * kTileRows * layout.scale_bytes, from + g * layout.scale_bytes,
                  static_cast<size_t>(layout.scale_bytes));
    }
  }

  uint8_t* const factors = packed + layout.factors_offset();
  if (format.HasMatrixFactor() && block == 0) {
    std::memset(factors, 0, 16);
    std::memcpy(factors, weights.factors, 4);
  }
  if (format.HasRowFactors()) {
    const int64_t first = tiles.first_tile * kTileRows;
    std::memset(factors + first * 4, 0,
                static_cast<size_t>(tiles.end_tile * kTileRows - first) * 4);
    std::memcpy(factors + first * 4, weights.factors + first,
                static_cast<size_t>(end - first) * 4);
  }
}

void Unpack(const WeightFormat& format, int64_t rows, int64_t cols, const uint8_t* packed,
            int64_t block, const CanonicalWeights& weights) {
  const Layout layout(format, rows, cols);
  const BlockRows tiles = TilesOf(layout, block);
  const int64_t row_bytes = format.CodeRowBytes(cols), groups = format.Groups(cols);
  const int64_t scale_tile_bytes = layout.groups * kTileRows * layout.scale_bytes;
  const int64_t first = tiles.first_tile * kTileRows;
  const int64_t end = std::min(rows, tiles.end_tile * kTileRows);
  for (int64_t n = first; n < end; ++n) {
    uint8_t* codes = weights.codes + n * row_bytes;
    for (int64_t k = 0; k < cols; k += 8) {
      std::memcpy(codes + k / 2, packed + WordOffset(layout.steps, n, k),
                  static_cast<size_t>(std::min<int64_t>(4, row_bytes - k / 2)));
    }
    const uint8_t* from = packed + layout.scales_offset() + n / kTileRows * scale_tile_bytes +
                          n % kTileRows * layout.scale_bytes;
    uint8_t* to = weights.scales + n * groups * layout.scale_bytes;
    for (int64_t g = 0; g < groups; ++g) {
      std::memcpy(to + g * layout.scale_bytes, from + g * kTileRows * layout.scale_bytes,
                  static_cast<size_t>(layout.scale_bytes));
    }
  }
  const uint8_t* const factors = packed + layout.factors_offset();
  if (format.HasMatrixFactor() && block == 0) std::memcpy(weights.factors, factors, 4);
  if (format.HasRowFactors()) {
    std::memcpy(weights.factors + first, factors + first * 4, static_cast<size_t>(end - first) * 4);
  }
}

}  // namespace nibble::cuda::gemm_i4f8
