// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/numerics/tile_decode.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/numerics/tile_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {

template <DType kType>
void DecodeAll(const uint8_t* tile, int64_t columns, float* out) {
  const TileF df;
  const TileDecoder<kType> decoder;
  for (int64_t k = 0; k < columns; k += kTileColumns) {
    const uint8_t* chunk = tile + TileBytes(kType, k);
    for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(df)) {
      float* to = out + k * kTileLanes + lane;
      decoder.Chunk(chunk, lane, [&](size_t i, VF v) { hn::StoreU(v, df, to + i * kTileLanes); });
    }
  }
}

}  // namespace

void DecodeTileTarget(DType type, const uint8_t* tile, int64_t columns, float* out) {
  switch (type) {
    case DType::kI4: return DecodeAll<DType::kI4>(tile, columns, out);
    case DType::kI8: return DecodeAll<DType::kI8>(tile, columns, out);
    case DType::kE4M3: return DecodeAll<DType::kE4M3>(tile, columns, out);
    case DType::kE5M2: return DecodeAll<DType::kE5M2>(tile, columns, out);
    case DType::kE3M2: return DecodeAll<DType::kE3M2>(tile, columns, out);
    case DType::kE2M3: return DecodeAll<DType::kE2M3>(tile, columns, out);
    case DType::kBF16: return DecodeAll<DType::kBF16>(tile, columns, out);
    case DType::kF16: return DecodeAll<DType::kF16>(tile, columns, out);
    default: return DecodeAll<DType::kF32>(tile, columns, out);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(DecodeTileTarget);

void DecodeTile(DType type, const uint8_t* tile, int64_t columns, float* out) {
  HWY_DYNAMIC_DISPATCH(DecodeTileTarget)(type, tile, columns, out);
}

void ClearTile(DType type, uint8_t* tile, int64_t columns) {
  // The biased integer types have a zero that is not all bits 0.
  const int zero = type == DType::kI4 ? 0x88 : type == DType::kI8 ? 0x80 : 0;
  std::memset(tile, zero, static_cast<size_t>(TileBytes(type, columns)));
}

}  // namespace nibble
#endif
