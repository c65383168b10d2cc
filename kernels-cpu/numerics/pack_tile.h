// SPDX-License-Identifier: Apache-2.0
//
// Canonical codes of 16 rows to one tile (tile.h), whole vectors at a time: what
// SetTileCode does code by code.
#pragma once

#include <cstdint>

#include "kernels-cpu/numerics/tile.h"
#include "kernels-cpu/numerics/types.h"

namespace nibble {

// Writes TileBytes(type, columns rounded up to 16) bytes, padding columns with codes of
// value zero. codes[lane]: the canonical bytes of one row (nb_weight_format in nibble.h)
// from the tile's first column on, which is a multiple of 16 within the row; columns (from
// 1) of them are read, and no byte beyond; unused bits of the last byte are ignored. A lane
// without a row is all zero bytes. high: the upper planes, read for six-bit types only.
// SIMD, on the calling thread.
void PackTile(DType type, const uint8_t* const codes[kTileLanes],
              const uint8_t* const high[kTileLanes], int64_t columns, uint8_t* tile);

}  // namespace nibble
