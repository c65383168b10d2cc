// SPDX-License-Identifier: Apache-2.0
//
// Canonical rows to strips and back (strip_layout.h).
#include <algorithm>
#include <array>
#include <cstring>

#include "kernels-cuda/common/strip_matrix.h"

namespace nibble::cuda {
namespace {

constexpr int kQuadCols = 4;

// Two high bits of four columns, as a canonical byte has them, to their places in a register.
using HighTable = std::array<std::array<uint32_t, 256>, 4>;

HighTable MakeHighTable(DType code) {
  HighTable table{};
  for (int quad = 0; quad < 4; ++quad) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      uint32_t bits = 0;
      for (int c = 0; c < kQuadCols; ++c) {
        const uint32_t two = byte >> (2 * c) & 3;
        bits |= (two >> 1) << SignBit(code, quad, c) | (two & 1) << SecondBit(code, quad, c);
      }
      table[quad][byte] = bits;
    }
  }
  return table;
}

const HighTable& Highs(DType code) {
  static const HighTable e3m2 = MakeHighTable(DType::kE3M2);
  static const HighTable e2m3 = MakeHighTable(DType::kE2M3);
  return code == DType::kE3M2 ? e3m2 : e2m3;
}

uint32_t HighBitsToByte(DType code, int quad, uint32_t high) {
  uint32_t byte = 0;
  for (int c = 0; c < kQuadCols; ++c) {
    const uint32_t two = (high >> SignBit(code, quad, c) & 1) << 1 |
                         (high >> SecondBit(code, quad, c) & 1);
    byte |= two << (2 * c);
  }
  return byte;
}

// Four nibbles, column 0 lowest, to their places for an even quad, and back.
constexpr uint32_t SpreadNibbles(uint32_t four) {
  return (four & 0x000F) | (four & 0x00F0) << 12 | (four & 0x0F00) | (four & 0xF000) << 12;
}
constexpr uint32_t GatherNibbles(uint32_t low) {
  return (low & 0xF) | (low >> 12 & 0xF0) | (low & 0xF00) | (low >> 12 & 0xF000);
}

// The part of a canonical row that a brick holds, whole and with zeros where there is no column.
template <int kBytes>
struct BrickRow {
  const uint8_t* bytes;
  uint8_t padded[kBytes];

  // source: the brick's first byte of the row; columns of `bits` that it has. The bits of other
  // columns are to be ignored: they become zeros.
  void Read(const uint8_t* source, int64_t columns, int bits) {
    bytes = source;
    if (columns * bits >= 8 * kBytes) return;
    std::memset(padded, 0, kBytes);
    std::memcpy(padded, source, static_cast<size_t>(DivUp(columns * bits, 8)));
    if (columns * bits % 8 != 0) {
      padded[columns * bits / 8] &= static_cast<uint8_t>((1 << columns * bits % 8) - 1);
    }
    bytes = padded;
  }
};

constexpr int kBrickRowBytes = 64;   // of any code of 8 bits or more
constexpr int kLowRowBytes = 32, kHighRowBytes = 16;

struct StripRange {
  int64_t first, count;  // rows
};
StripRange RowsOf(int64_t rows, int64_t strip) {
  return {strip * kStripRows, std::min<int64_t>(kStripRows, rows - strip * kStripRows)};
}

void PackSixBitBrick(const WeightFormat& f, int64_t cols, const CanonicalWeights& w,
                     const StripRange& rows, int64_t brick, uint8_t* to) {
  const HighTable& highs = Highs(f.code);
  const int64_t first = brick * BrickCols(f.code);
  BrickRow<kLowRowBytes> low;
  BrickRow<kHighRowBytes> high;
  for (int r = 0; r < rows.count; ++r) {
    const int64_t row = rows.first + r;
    low.Read(w.codes + row * f.CodeRowBytes(cols) + first / 2, cols - first, 4);
    high.Read(w.codes_high + row * f.HighRowBytes(cols) + first / 4, cols - first, 2);
    const int quad = r % 4;
    for (int k = 0; k < BrickCols(f.code); k += kQuadCols) {
      uint16_t nibbles;
      std::memcpy(&nibbles, low.bytes + k / 2, 2);
      uint32_t bits;
      std::memcpy(&bits, to + LowRegisterOffset(r, k), 4);
      bits |= SpreadNibbles(nibbles) << (4 * (quad % 2));
      std::memcpy(to + LowRegisterOffset(r, k), &bits, 4);
      std::memcpy(&bits, to + HighRegisterOffset(r, k), 4);
      bits |= highs[quad][high.bytes[k / 4]];
      std::memcpy(to + HighRegisterOffset(r, k), &bits, 4);
    }
  }
}

void UnpackSixBitBrick(const WeightFormat& f, int64_t cols, const uint8_t* from,
                       const StripRange& rows, int64_t brick, const CanonicalWeights& w) {
  const int64_t first = brick * BrickCols(f.code);
  const int64_t low_bytes = std::min<int64_t>(kLowRowBytes, f.CodeRowBytes(cols) - first / 2);
  const int64_t high_bytes = std::min<int64_t>(kHighRowBytes, f.HighRowBytes(cols) - first / 4);
  uint8_t low[kLowRowBytes], high[kHighRowBytes];
  for (int r = 0; r < rows.count; ++r) {
    const int quad = r % 4;
    for (int k = 0; k < BrickCols(f.code); k += kQuadCols) {
      uint32_t bits;
      std::memcpy(&bits, from + LowRegisterOffset(r, k), 4);
      const uint16_t nibbles = static_cast<uint16_t>(GatherNibbles(bits >> (4 * (quad % 2))));
      std::memcpy(low + k / 2, &nibbles, 2);
      std::memcpy(&bits, from + HighRegisterOffset(r, k), 4);
      high[k / 4] = static_cast<uint8_t>(HighBitsToByte(f.code, quad, bits));
    }
    const int64_t row = rows.first + r;
    std::memcpy(w.codes + row * f.CodeRowBytes(cols) + first / 2, low,
                static_cast<size_t>(low_bytes));
    std::memcpy(w.codes_high + row * f.HighRowBytes(cols) + first / 4, high,
                static_cast<size_t>(high_bytes));
  }
}

// Codes of whole bytes: a quad is 4, 8 or 16 bytes; of 16-bit codes its halves stand 8 apart.
void CopyQuad(DType code, const uint8_t* from, uint8_t* to, bool pack) {
  const int bytes = CodeBytes(code);
  const int pieces = bytes == 2 ? 2 : 1, size = bytes == 2 ? 4 : 4 * bytes;
  for (int i = 0; i < pieces; ++i) {
    if (pack) {
      std::memcpy(to + 8 * i, from + size * i, static_cast<size_t>(size));
    } else {
      std::memcpy(to + size * i, from + 8 * i, static_cast<size_t>(size));
    }
  }
}

void PackByteBrick(const WeightFormat& f, int64_t cols, const CanonicalWeights& w,
                   const StripRange& rows, int64_t brick, uint8_t* to) {
  const int bytes = CodeBytes(f.code);
  const int64_t row_bytes = f.CodeRowBytes(cols), first = brick * kBrickRowBytes;
  BrickRow<kBrickRowBytes> source;
  for (int r = 0; r < rows.count; ++r) {
    source.Read(w.codes + (rows.first + r) * row_bytes + first, row_bytes - first, 8);
    for (int k = 0; k < BrickCols(f.code); k += kQuadCols) {
      CopyQuad(f.code, source.bytes + k * bytes, to + CodeOffset(f.code, r, k), true);
    }
  }
}

void UnpackByteBrick(const WeightFormat& f, int64_t cols, const uint8_t* from,
                     const StripRange& rows, int64_t brick, const CanonicalWeights& w) {
  const int bytes = CodeBytes(f.code);
  const int64_t row_bytes = f.CodeRowBytes(cols), first = brick * kBrickRowBytes;
  const int64_t available = std::min<int64_t>(kBrickRowBytes, row_bytes - first);
  uint8_t whole[kBrickRowBytes];
  for (int r = 0; r < rows.count; ++r) {
    for (int k = 0; k < BrickCols(f.code); k += kQuadCols) {
      CopyQuad(f.code, from + CodeOffset(f.code, r, k), whole + k * bytes, false);
    }
    std::memcpy(w.codes + (rows.first + r) * row_bytes + first, whole,
                static_cast<size_t>(available));
  }
}

// Calls copy(canonical, packed, bytes) for every scale of a strip.
template <class Byte, class Copy>
void ForEachScale(const StripLayout& layout, const StripRange& rows, const CanonicalWeights& w,
                  Byte* packed, const Copy& copy) {
  for (int64_t g = 0; g < layout.groups; ++g) {
    for (int64_t r = 0; r < rows.count; ++r) {
      copy(w.scales + ((rows.first + r) * layout.groups + g) * layout.scale_bytes,
           packed + (g * kStripRows + r) * layout.scale_bytes,
           static_cast<size_t>(layout.scale_bytes));
    }
  }
}

}  // namespace

void PackStrip(const WeightFormat& f, int64_t rows, int64_t cols, const CanonicalWeights& weights,
               int64_t strip, uint8_t* packed) {
  const StripLayout layout(f, rows, cols);
  const StripRange range = RowsOf(rows, strip);
  uint8_t* codes = packed + strip * layout.strip_code_bytes;
  std::memset(codes, 0, static_cast<size_t>(layout.strip_code_bytes));
  for (int64_t brick = 0; brick < layout.bricks; ++brick, codes += BrickBytes(f.code)) {
    if (IsSixBit(f.code)) {
      PackSixBitBrick(f, cols, weights, range, brick, codes);
    } else {
      PackByteBrick(f, cols, weights, range, brick, codes);
    }
  }
  uint8_t* scales = packed + layout.scales_offset() + strip * layout.strip_scale_bytes;
  std::memset(scales, 0, static_cast<size_t>(layout.strip_scale_bytes));
  const auto copy = [](const uint8_t* canonical, uint8_t* to, size_t n) {
    std::memcpy(to, canonical, n);
  };
  ForEachScale(layout, range, weights, scales, copy);
}

void UnpackStrip(const WeightFormat& f, int64_t rows, int64_t cols, const uint8_t* packed,
                 int64_t strip, const CanonicalWeights& weights) {
  const StripLayout layout(f, rows, cols);
  const StripRange range = RowsOf(rows, strip);
  const uint8_t* codes = packed + strip * layout.strip_code_bytes;
  for (int64_t brick = 0; brick < layout.bricks; ++brick, codes += BrickBytes(f.code)) {
    if (IsSixBit(f.code)) {
      UnpackSixBitBrick(f, cols, codes, range, brick, weights);
    } else {
      UnpackByteBrick(f, cols, codes, range, brick, weights);
    }
  }
  const uint8_t* scales = packed + layout.scales_offset() + strip * layout.strip_scale_bytes;
  const auto copy = [](uint8_t* canonical, const uint8_t* from, size_t n) {
    std::memcpy(canonical, from, n);
  };
  ForEachScale(layout, range, weights, scales, copy);
}

}  // namespace nibble::cuda
