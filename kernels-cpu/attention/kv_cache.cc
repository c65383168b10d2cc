// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/attention/kv_cache.h"

#include <cstring>
#include <limits>
#include <new>

#include "kernels-cpu/numerics/formats.h"

namespace nibble {
namespace {

// Bytes of a block's scales of keys (or of values).
int64_t ScaleBytes(DType type, int64_t groups) {
  switch (type) {
    case DType::kI4: return groups * kKvBlockTokens;
    case DType::kI8: return kKvBlockTokens * static_cast<int64_t>(sizeof(float));
    default: return 0;
  }
}

int64_t CheckedProduct(int64_t a, int64_t b) {
  int64_t product;
  if (__builtin_mul_overflow(a, b, &product)) throw std::bad_alloc();
  return product;
}

std::vector<float> FactorsOrOnes(const float* factors, int layers) {
  if (factors == nullptr) return std::vector<float>(static_cast<size_t>(layers), 1.0f);
  return std::vector<float>(factors, factors + layers);
}

}  // namespace

KvBlockLayout::KvBlockLayout(const KvCacheShape& shape) {
  padded_dim = RoundUp(shape.head_dim, kTileColumns);
  group_dim = shape.type == DType::kI4 ? shape.group_size : shape.head_dim;
  groups = IsUnquantized(shape.type) ? 0 : shape.head_dim / group_dim;
  key_scales = 0;
  value_scales = ScaleBytes(shape.type, groups);
  keys = RoundUp(2 * value_scales, 64);
  values = keys + TileBytes(shape.type, padded_dim);
  bytes = values + (padded_dim / kTileLanes) * TileBytes(shape.type, kKvBlockTokens);
}

KvCache::KvCache(const KvCacheShape& shape, const float* key_factors, const float* value_factors)
    : shape_(shape),
      layout_(shape),
      lengths_(static_cast<size_t>(shape.layers), 0),
      key_factors_(FactorsOrOnes(key_factors, shape.layers)),
      value_factors_(FactorsOrOnes(value_factors, shape.layers)),
      key_scales_(static_cast<size_t>(shape.layers)) {
  if (shape.capacity > std::numeric_limits<int64_t>::max() - kKvBlockTokens) throw std::bad_alloc();
  head_bytes_ = CheckedProduct(DivUp(shape.capacity, kKvBlockTokens), layout_.bytes);
  const int64_t total = CheckedProduct(int64_t{shape.layers} * shape.kv_heads, head_bytes_);
  data_ = Buffer(static_cast<size_t>(total));
}

double KvCache::Scale(const uint8_t* scales, int64_t lane, int64_t element, float factor) const {
  if (shape_.type == DType::kI4) {
    return DecodeE4M3(scales[element / layout_.group_dim * kKvBlockTokens + lane]) * factor;
  }
  if (shape_.type != DType::kI8) return 1;
  float scale;
  std::memcpy(&scale, scales + lane * static_cast<int64_t>(sizeof(float)), sizeof(scale));
  return scale;
}

double KvCache::Key(int layer, int64_t kv_head, int64_t token, int64_t element) const {
  const uint8_t* block = Blocks(layer, kv_head) + token / kKvBlockTokens * layout_.bytes;
  const int64_t lane = token % kKvBlockTokens;
  const uint32_t code = GetTileCode(shape_.type, block + layout_.keys, lane, element);
  return Decode(shape_.type, code) *
         Scale(block + layout_.key_scales, lane, element, key_factor(layer));
}

double KvCache::Value(int layer, int64_t kv_head, int64_t token, int64_t element) const {
  const uint8_t* block = Blocks(layer, kv_head) + token / kKvBlockTokens * layout_.bytes;
  const int64_t column = token % kKvBlockTokens;
  const uint8_t* tile = block + layout_.values +
                        element / kTileLanes * TileBytes(shape_.type, kKvBlockTokens);
  const uint32_t code = GetTileCode(shape_.type, tile, element % kTileLanes, column);
  return Decode(shape_.type, code) *
         Scale(block + layout_.value_scales, column, element, value_factor(layer));
}

}  // namespace nibble
