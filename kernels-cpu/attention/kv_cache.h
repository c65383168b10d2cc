// SPDX-License-Identifier: Apache-2.0
//
// Keys and values of one sequence, all layers, in the layout that the attention kernel
// streams. Tokens are stored in blocks of 16; the blocks of one (layer, kv head) follow
// each other, so that attention reads one sequential stream:
//
//   cache  = | layer 0: head 0 | head 1 | ... | layer 1: head 0 | ...
//   head   = | block 0: tokens 0..15 | block 1: tokens 16..31 | ... |
//   block  = | key scales | value scales | 0..63 unused | key tile | value tiles |
//
//   scales        KV4: [groups][16 tokens] E4M3 codes     KV8: [16 tokens] F32
//                 KV16 and F32: none. Tiles begin on a multiple of 64 bytes.
//   key tile      lane = token, column = element of the head, padded with zeros to P, the
//                 multiple of 16 above head_dim: a vector of scores needs no horizontal
//                 sum, and the key scales of a block are one vector of 16.
//   value tiles   P / 16 of them, lane = element, column = token: a token's weight is
//                 broadcast to 16 elements of the output.
//
// Tiles are as drawn in kernels-cpu/numerics/tile.h. The value of an element:
//
//   KV4    q * (E4M3 scale * factor), the product in brackets rounded to F32; I4 codes;
//          per token, head and group, the scale's code is that of amax/7/factor (never 0
//          for a nonzero group), q = EncodeI4(x / (E4M3 scale * factor))
//   KV8    q * scale; I8 codes; per token and head, scale = amax/127 (QuantizeRowI8)
//   KV16   BF16, to nearest even          F32   itself
//
// A group with a NaN or an infinity has codes 0 and scale NaN.
//
// Memory: layers * kv_heads * ceil(capacity / 16) * BlockBytes, with BlockBytes =
//   KV4  RoundUp(32 * groups, 64) + 16 P      KV8  128 + 32 P
//   KV16 64 P                                 F32  128 P
// Pages are taken from the system when a token is first written to them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels-cpu/memory/buffer.h"
#include "kernels-cpu/numerics/tile.h"
#include "kernels-cpu/numerics/types.h"

namespace nibble {

struct KvCacheShape {
  DType type = DType::kF32;  // kI4, kI8, kBF16 or kF32
  int layers = 1;
  int kv_heads = 1;
  int head_dim = 64;         // even, 16..256
  int64_t capacity = 1;      // tokens
  int64_t group_size = 64;   // kI4 only: a multiple of 16 that divides head_dim, or head_dim

  bool operator==(const KvCacheShape& o) const {
    return type == o.type && layers == o.layers && kv_heads == o.kv_heads &&
           head_dim == o.head_dim && group_size == o.group_size;  // capacities may differ
  }
};

// Tokens of a block: the lanes of a tile.
inline constexpr int64_t kKvBlockTokens = kTileLanes;

// Where the parts of a block begin, in bytes from its start.
struct KvBlockLayout {
  explicit KvBlockLayout(const KvCacheShape& shape);

  int64_t padded_dim;    // P
  int64_t groups;        // scale groups of a head: 1 but for kI4; 0 when unquantized
  int64_t group_dim;     // elements of a group; head_dim unless kI4 has smaller groups
  int64_t key_scales;    // 0
  int64_t value_scales;
  int64_t keys;
  int64_t values;
  int64_t bytes;         // of a block
};

// Not safe for concurrent use while tokens are appended (see RopeAppend); reading from
// several threads at once is.
class KvCache {
 public:
  // An empty cache. shape is already checked. key_factors and value_factors: kI4 only, one
  // F32 factor a layer, positive normal numbers, or null for 1; copied. Throws
  // std::bad_alloc, also when the size overflows.
  explicit KvCache(const KvCacheShape& shape, const float* key_factors = nullptr,
                   const float* value_factors = nullptr);

  const KvCacheShape& shape() const { return shape_; }
  const KvBlockLayout& layout() const { return layout_; }

  // Tokens held in a layer (0-based). Lowering the length drops the last tokens: their
  // bytes stay, and no kernel reads them into a result.
  int64_t length(int layer) const { return lengths_[static_cast<size_t>(layer)]; }
  void SetLength(int layer, int64_t tokens) { lengths_[static_cast<size_t>(layer)] = tokens; }

  // Bytes of memory reserved for keys and values.
  int64_t bytes() const { return static_cast<int64_t>(data_.size()); }

  // The first block of a head; block b begins b * layout().bytes further.
  uint8_t* Blocks(int layer, int64_t kv_head) const {
    return data_.data() + (layer * int64_t{shape_.kv_heads} + kv_head) * head_bytes_;
  }

  float key_factor(int layer) const { return key_factors_[static_cast<size_t>(layer)]; }
  float value_factor(int layer) const { return value_factors_[static_cast<size_t>(layer)]; }

  // What rotated keys of a layer are divided by before they are stored, and queries multiplied
  // with (RopeAppend): [kv_heads][head_dim], or null for ones.
  const float* key_scales(int layer) const {
    const std::vector<float>& scales = key_scales_[static_cast<size_t>(layer)];
    return scales.empty() ? nullptr : scales.data();
  }
  // scales: as above, copied. Only while the layer is empty.
  void SetKeyScales(int layer, const float* scales) {
    std::vector<float>& to = key_scales_[static_cast<size_t>(layer)];
    to.clear();
    if (scales != nullptr) to.assign(scales, scales + shape_.kv_heads * shape_.head_dim);
  }

  // The exact value of one stored element: the definition that tests compare with. Of a key with
  // a scale, the quotient.
  double Key(int layer, int64_t kv_head, int64_t token, int64_t element) const;
  double Value(int layer, int64_t kv_head, int64_t token, int64_t element) const;

 private:
  double Scale(const uint8_t* scales, int64_t lane, int64_t element, float factor) const;

  KvCacheShape shape_;
  KvBlockLayout layout_;
  int64_t head_bytes_ = 0;
  std::vector<int64_t> lengths_;
  std::vector<float> key_factors_, value_factors_;
  std::vector<std::vector<float>> key_scales_;
  Buffer data_;
};

}  // namespace nibble
