// SPDX-License-Identifier: Apache-2.0
//
// The tile: how codes of any width are laid out for SIMD, shared by the packed weights
// (lane = output row) and the KV cache (keys: lane = token; values: lane = element).
//
// A tile has 16 lanes and any multiple of 16 columns k. Its unit is the 64-byte step:
// one little-endian 32-bit word a lane.
//
//   I4         step = 8 columns. Byte i of a word holds column i in its low nibble and
//              column 4+i in its high nibble, as q + 8.
//                word:  31..28 27..24 23..20 19..16 15..12 11..8  7..4  3..0
//                         k7     k3     k6     k2     k5    k1     k4    k0
//              So (word & 0x0F0F0F0F) is four unsigned bytes of consecutive columns, what
//              VNNI takes, and (word >> s) & 15 is one column for the F32 kernels.
//   I8         step = 4 columns, byte i of a word holds column i, as q + 128.
//   E4M3 E5M2  the same with the code itself.
//   E3M2 E2M3  16 columns = three steps: the low four bits of columns 0..7 as for I4 (not
//              biased), of columns 8..15, then the two high bits of all: bits 8i + 2f of a
//              word are those of column 4f + i, f = 0..3.
//   BF16 F16   step = 2 columns, low half first.
//   F32        step = 1 column.
#pragma once

#include <cstdint>

#include "kernels-cpu/numerics/types.h"

namespace nibble {

inline constexpr int64_t kTileLanes = 16;
inline constexpr int64_t kTileColumns = 16;  // tiles are whole multiples of this

// Bytes of 16 lanes x columns (a multiple of 16).
inline constexpr int64_t TileBytes(DType code, int64_t columns) {
  switch (code) {
    case DType::kI4: return columns * 8;
    case DType::kE3M2:
    case DType::kE2M3: return columns * 12;
    case DType::kI8:
    case DType::kE4M3:
    case DType::kE5M2: return columns * 16;
    case DType::kF16:
    case DType::kBF16: return columns * 32;
    default: return columns * 64;
  }
}

// Stores the code of (lane, column) into a tile whose padding and earlier contents are
// kept. code: I4 as q & 15, I8 as the byte q, other codes as they are, F32 as its bits.
inline void SetTileCode(DType type, uint8_t* tile, int64_t lane, int64_t column, uint32_t code) {
  switch (type) {
    case DType::kI4: {
      uint8_t& b = tile[(column / 8) * 64 + lane * 4 + column % 4];
      const int shift = (column & 4) ? 4 : 0;
      b = static_cast<uint8_t>((b & (0xF0 >> shift)) | (((code ^ 8) & 15) << shift));
      break;
    }
    case DType::kE3M2:
    case DType::kE2M3: {
      uint8_t* block = tile + (column / 16) * 192;
      const int64_t k = column % 16;
      uint8_t& low = block[(k / 8) * 64 + lane * 4 + k % 4];
      const int shift = (k & 4) ? 4 : 0;
      low = static_cast<uint8_t>((low & (0xF0 >> shift)) | ((code & 15) << shift));
      uint8_t& high = block[128 + lane * 4 + k % 4];
      const int bit = 2 * static_cast<int>(k / 4);
      high = static_cast<uint8_t>((high & ~(3 << bit)) | (((code >> 4) & 3) << bit));
      break;
    }
    case DType::kI8: tile[(column / 4) * 64 + lane * 4 + column % 4] = (code ^ 0x80) & 0xFF; break;
    case DType::kE4M3:
    case DType::kE5M2: tile[(column / 4) * 64 + lane * 4 + column % 4] = code & 0xFF; break;
    case DType::kF16:
    case DType::kBF16: {
      uint8_t* p = tile + (column / 2) * 64 + lane * 4 + (column % 2) * 2;
      p[0] = code & 0xFF;
      p[1] = (code >> 8) & 0xFF;
      break;
    }
    default: {
      uint8_t* p = tile + column * 64 + lane * 4;
      for (int i = 0; i < 4; ++i) p[i] = (code >> (8 * i)) & 0xFF;
    }
  }
}

// The inverse of SetTileCode (I4: 0..15, two's complement nibble; I8: the byte).
inline uint32_t GetTileCode(DType type, const uint8_t* tile, int64_t lane, int64_t column) {
  switch (type) {
    case DType::kI4:
      return ((tile[(column / 8) * 64 + lane * 4 + column % 4] >> ((column & 4) ? 4 : 0)) & 15) ^ 8;
    case DType::kE3M2:
    case DType::kE2M3: {
      const uint8_t* block = tile + (column / 16) * 192;
      const int64_t k = column % 16;
      const uint32_t low = block[(k / 8) * 64 + lane * 4 + k % 4] >> ((k & 4) ? 4 : 0);
      const uint32_t high = block[128 + lane * 4 + k % 4] >> (2 * (k / 4));
      return (low & 15) | ((high & 3) << 4);
    }
    case DType::kI8: return tile[(column / 4) * 64 + lane * 4 + column % 4] ^ 0x80;
    case DType::kE4M3:
    case DType::kE5M2: return tile[(column / 4) * 64 + lane * 4 + column % 4];
    case DType::kF16:
    case DType::kBF16: {
      const uint8_t* p = tile + (column / 2) * 64 + lane * 4 + (column % 2) * 2;
      return p[0] | (p[1] << 8);
    }
    default: {
      const uint8_t* p = tile + column * 64 + lane * 4;
      return p[0] | (p[1] << 8) | (p[2] << 16) | (static_cast<uint32_t>(p[3]) << 24);
    }
  }
}

// Fills a tile with codes of value zero.
void ClearTile(DType type, uint8_t* tile, int64_t columns);

// Decodes a tile to F32, [columns][16 lanes], scales not applied: the value of each code.
// SIMD, on the calling thread; out is 64-byte aligned. (numerics/tile_decode-inl.h has the
// same as an inlined loop for kernels that keep the values in registers.)
void DecodeTile(DType type, const uint8_t* tile, int64_t columns, float* out);

}  // namespace nibble
