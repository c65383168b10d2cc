// SPDX-License-Identifier: Apache-2.0
//
// The tile: every code in every position, stored, read back and decoded on every target.
#include "kernels-cpu/numerics/tile.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels-cpu/testing/kernel_test.h"
#include "kernels-cpu/testing/guarded_buffer.h"
#include "kernels-cpu/numerics/formats.h"

namespace nibble {
namespace {

const DType kTypes[] = {DType::kI4,   DType::kI8,   DType::kE4M3, DType::kE5M2, DType::kE3M2,
                        DType::kE2M3, DType::kBF16, DType::kF16,  DType::kF32};

int CodeBits(DType type) {
  if (type == DType::kI4) return 4;
  if (IsSixBit(type)) return 6;
  if (type == DType::kBF16 || type == DType::kF16) return 16;
  return type == DType::kF32 ? 32 : 8;
}

// A code of a finite value; runs through all of them for types of up to 8 bits.
uint32_t FiniteCode(DType type, uint32_t i) {
  if (type == DType::kF32) return 0x3F800000u + i * 12345u % 0x01000000u + (i % 2 << 31);
  uint32_t code = CodeBits(type) == 16 ? i * 40503u & 0xFFFF : i & ((1u << CodeBits(type)) - 1);
  const float value = Decode(type, code);
  return value - value == 0 ? code : 0;  // infinity and NaN: not in weights
}

TEST(Tile, EveryPositionKeepsItsCodeAndNoOther) {
  constexpr int64_t kColumns = 48;
  for (const DType type : kTypes) {
    std::vector<uint8_t> tile(static_cast<size_t>(TileBytes(type, kColumns)), 0xA5);
    for (uint32_t round = 0; round < 2; ++round) {  // the second overwrites the first
      for (int64_t k = 0; k < kColumns; ++k) {
        for (int64_t lane = 0; lane < kTileLanes; ++lane) {
          SetTileCode(type, tile.data(), lane, k, FiniteCode(type, uint32_t(k * 16 + lane) + 7 * round));
        }
      }
      for (int64_t k = 0; k < kColumns; ++k) {
        for (int64_t lane = 0; lane < kTileLanes; ++lane) {
          ASSERT_EQ(GetTileCode(type, tile.data(), lane, k),
                    FiniteCode(type, uint32_t(k * 16 + lane) + 7 * round))
              << "type " << int(type) << " lane " << lane << " column " << k;
        }
      }
    }
  }
}

TEST(Tile, ClearedTilesAreZero) {
  for (const DType type : kTypes) {
    std::vector<uint8_t> tile(static_cast<size_t>(TileBytes(type, 16)), 0xFF);
    ClearTile(type, tile.data(), 16);
    for (int64_t k = 0; k < 16; ++k) {
      for (int64_t lane = 0; lane < 16; ++lane) {
        EXPECT_EQ(GetTileCode(type, tile.data(), lane, k), 0u);
      }
    }
  }
}

TEST(Tile, DecodesEveryCodeOnEveryTarget) {
  constexpr int64_t kColumns = 32;  // 512 positions: every code of 8 bits twice
  for (const DType type : kTypes) {
    GuardedBuffer<uint8_t> tile(TileBytes(type, kColumns));
    for (int64_t k = 0; k < kColumns; ++k) {
      for (int64_t lane = 0; lane < kTileLanes; ++lane) {
        SetTileCode(type, tile.data(), lane, k, FiniteCode(type, uint32_t(lane * kColumns + k)));
      }
    }
    ForEachSimdTarget([&] {
      std::vector<float> out(static_cast<size_t>(kColumns * kTileLanes), -1.0f);
      DecodeTile(type, tile.data(), kColumns, out.data());
      for (int64_t k = 0; k < kColumns; ++k) {
        for (int64_t lane = 0; lane < kTileLanes; ++lane) {
          const uint32_t code = FiniteCode(type, uint32_t(lane * kColumns + k));
          ASSERT_EQ(out[k * kTileLanes + lane], Decode(type, code))
              << "type " << int(type) << " code " << code << " lane " << lane << " column " << k;
        }
      }
    });
  }
}

}  // namespace
}  // namespace nibble
