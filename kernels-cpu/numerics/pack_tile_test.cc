// SPDX-License-Identifier: Apache-2.0
//
// PackTile against SetTileCode: every type, every code, every number of columns, on every
// target, with rows flush against a guard page and set bits where no column is.
#include "kernels-cpu/numerics/pack_tile.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "kernels-cpu/numerics/tile.h"
#include "kernels-cpu/testing/guarded_array.h"
#include "kernels-cpu/testing/kernel_test.h"

namespace nibble {
namespace {

const DType kTypes[] = {DType::kI4,   DType::kI8,   DType::kE4M3, DType::kE5M2, DType::kE3M2,
                        DType::kE2M3, DType::kBF16, DType::kF16,  DType::kF32};

int CodeBits(DType type) {
  switch (type) {
    case DType::kI4: return 4;
    case DType::kE3M2:
    case DType::kE2M3: return 6;
    case DType::kBF16:
    case DType::kF16: return 16;
    case DType::kF32: return 32;
    default: return 8;
  }
}

// Runs through all codes of up to 8 bits within 256 calls; any bits beyond.
uint32_t CodeAt(DType type, int64_t i) {
  const int bits = CodeBits(type);
  const auto n = static_cast<uint32_t>(i);
  return bits > 8 ? (n * 2654435761u) >> (32 - bits) : (n * 37u) & ((1u << bits) - 1);
}

// 16 rows in canonical form, each in memory of its own that ends at a guard page.
struct Rows {
  Rows(DType type, int64_t columns, int64_t lanes) {
    const WeightFormat f{type, DType::kNone, 0};
    for (int64_t lane = 0; lane < kTileLanes; ++lane) {
      // 0xA5 fills the arrays, so that the bits of no column are set.
      arrays.push_back(std::make_unique<GuardedArray>(f.CodeRowBytes(columns), Flush::kEnd));
      arrays.push_back(std::make_unique<GuardedArray>(f.HighRowBytes(columns), Flush::kEnd));
      codes[lane] = arrays[2 * lane]->data();
      high[lane] = arrays[2 * lane + 1]->data();
      if (lane >= lanes) {
        std::memset(arrays[2 * lane]->data(), 0, arrays[2 * lane]->size());
        std::memset(arrays[2 * lane + 1]->data(), 0, arrays[2 * lane + 1]->size());
        continue;
      }
      for (int64_t k = 0; k < columns; ++k) Set(type, lane, k, CodeAt(type, k * 16 + lane));
    }
  }

  void Set(DType type, int64_t lane, int64_t k, uint32_t code) {
    uint8_t* low = arrays[2 * lane]->data();
    const int bits = CodeBits(type);
    if (bits >= 8) {
      std::memcpy(low + k * bits / 8, &code, bits / 8);
      return;
    }
    const int shift = 4 * (k % 2);
    low[k / 2] = static_cast<uint8_t>((low[k / 2] & ~(15 << shift)) | (code & 15) << shift);
    if (bits == 4) return;
    uint8_t& h = arrays[2 * lane + 1]->data()[k / 4];
    const int pair = 2 * (k % 4);
    h = static_cast<uint8_t>((h & ~(3 << pair)) | (code >> 4) << pair);
  }

  std::vector<std::unique_ptr<GuardedArray>> arrays;
  const uint8_t* codes[kTileLanes];
  const uint8_t* high[kTileLanes];
};

TEST(PackTile, IsSetTileCodeForEveryCodeColumnAndLane) {
  for (const DType type : kTypes) {
    std::vector<int64_t> sizes;
    for (int64_t columns = 1; columns <= 70; ++columns) sizes.push_back(columns);
    for (const int64_t columns : {127, 128, 129, 255, 256}) sizes.push_back(columns);
    for (const int64_t columns : sizes) {
      for (const int64_t lanes : {int64_t{1}, columns % 16 + 1, kTileLanes}) {
        const Rows rows(type, columns, lanes);
        const int64_t bytes = TileBytes(type, RoundUp(columns, kTileColumns));
        std::vector<uint8_t> expected(bytes);
        ClearTile(type, expected.data(), RoundUp(columns, kTileColumns));
        for (int64_t lane = 0; lane < lanes; ++lane) {
          for (int64_t k = 0; k < columns; ++k) {
            SetTileCode(type, expected.data(), lane, k, CodeAt(type, k * 16 + lane));
          }
        }
        ForEachSimdTarget([&] {
          const GuardedArray tile(bytes, Flush::kEnd);
          PackTile(type, rows.codes, rows.high, columns, tile.data());
          ASSERT_EQ(std::memcmp(tile.data(), expected.data(), bytes), 0)
              << "type " << int(type) << " columns " << columns << " lanes " << lanes;
        });
      }
    }
  }
}

}  // namespace
}  // namespace nibble
