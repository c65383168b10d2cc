// SPDX-License-Identifier: Apache-2.0
//
// Rotary embedding (RoPE, arXiv 2104.09864, in the rotate-half pairing of Hugging Face's
// LLaMA) and the quantization of keys and values into the cache.
//
//   angles row  | cos 0 .. cos h-1 | sin 0 .. sin h-1 |           h = head_dim / 2
//   head        | a 0 .. a h-1     | b 0 .. b h-1     |
//   rotated     | a cos - b sin    | b cos + a sin    |
//
// Work is shared out by (sequence, kv head, block of 16 tokens): two tokens of a block may
// share a byte of a value tile (I4), so a block never belongs to two threads. A block that
// starts in an earlier call keeps the codes of its other tokens.
//
// Where the cache has key scales for the layer, a rotated key is divided by them before it is
// stored and a rotated query multiplied: the score is the same but for two roundings of an F32.
//
// Precision: the position is exact in F32 below 2^24; the angle is the F32 product that
// Hugging Face takes, its cosine and sine are computed in F64 and rounded once. A rotated
// element is within 2 * 2^-24 * (|a cos| + |b sin|) of its value.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "kernels-cpu/attention/attention.h"
#include "kernels-cpu/elementwise/elementwise.h"
#include "kernels-cpu/numerics/formats.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/attention/rope_append.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/elementwise/row_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// Rotates one head of 2 * half elements; out may be x.
void RotateHead(const float* x, const float* angles, int64_t half, float* out) {
  const RowF d;
  ForEachVector(half, [&](int64_t i, int64_t count) HWY_ATTR {
    const RowV a = LoadUpTo(x + i, count), b = LoadUpTo(x + half + i, count);
    const RowV cosine = LoadUpTo(angles + i, count), sine = LoadUpTo(angles + half + i, count);
    StoreUpTo(d, hn::NegMulAdd(b, sine, hn::Mul(a, cosine)), out + i, count);
    StoreUpTo(d, hn::MulAdd(a, sine, hn::Mul(b, cosine)), out + half + i, count);
  });
}

// out = x / scales, n elements; out may be x.
void DivideBy(const float* x, const float* scales, int64_t n, float* out) {
  const RowF d;
  ForEachVector(n, [&](int64_t i, int64_t count) HWY_ATTR {
    StoreUpTo(d, hn::Div(LoadUpTo(x + i, count), LoadUpTo(scales + i, count)), out + i, count);
  });
}

void MultiplyBy(const float* scales, int64_t n, float* x) {
  const RowF d;
  ForEachVector(n, [&](int64_t i, int64_t count) HWY_ATTR {
    StoreUpTo(d, hn::Mul(LoadUpTo(x + i, count), LoadUpTo(scales + i, count)), x + i, count);
  });
}

// Quantizes one KV4 group as kv_cache.h defines it: writes n codes (-8..7) and returns the
// E4M3 code of the scale.
uint8_t QuantizeGroupI4(const float* x, int64_t n, float factor, int8_t* codes) {
  const uint32_t bits = LargestMagnitudeBits(x, n);
  if (bits == 0 || bits >= 0x7F800000u) {
    std::memset(codes, 0, static_cast<size_t>(n));
    return bits == 0 ? 0 : 0x7F;
  }
  float amax;
  std::memcpy(&amax, &bits, sizeof(amax));
  const uint8_t scale_code = std::max<uint8_t>(EncodeE4M3(amax / 7.0f / factor), 1);
  const RowF d;
  const RowV scale = hn::Set(d, DecodeE4M3(scale_code) * factor);
  const hn::Rebind<int8_t, RowF> d8;
  ForEachVector(n, [&](int64_t i, int64_t count) HWY_ATTR {
    // The quotient exceeds the range where the scale saturates or was rounded down.
    const RowV q = hn::Div(LoadUpTo(x + i, count), scale);
    const RowV clamped = hn::Max(hn::Min(q, hn::Set(d, 7.0f)), hn::Set(d, -8.0f));
    StoreUpTo(d8, hn::DemoteTo(d8, hn::NearestInt(clamped)), codes + i, count);
  });
  return scale_code;
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(RotateHead);
HWY_EXPORT(QuantizeGroupI4);
HWY_EXPORT(DivideBy);
HWY_EXPORT(MultiplyBy);

namespace {

constexpr int kMaxHeadDim = 256;

// Bits of a head's element as SetTileCode takes them.
uint32_t CodeBits(int8_t code) { return static_cast<uint8_t>(code); }
uint32_t CodeBits(uint16_t code) { return code; }
uint32_t CodeBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// One word a lane and eight columns of I4, as tile.h draws them: codes[0..7] are -8..7.
uint32_t NibbleWord(const int8_t* codes) {
  uint64_t bytes;
  std::memcpy(&bytes, codes, sizeof(bytes));
  bytes = (bytes ^ 0x0808080808080808u) & 0x0F0F0F0F0F0F0F0Fu;
  return static_cast<uint32_t>(bytes) | static_cast<uint32_t>(bytes >> 32) << 4;
}

// Writes a token's key codes, whole words at a time: nobody else shares a key tile's lane.
// codes: [padded_dim], zeros beyond head_dim.
template <DType kType>
void StoreKeyWords(const KvCache& cache, uint8_t* block, int64_t token, const int8_t* codes) {
  static_assert(kType == DType::kI4 || kType == DType::kI8);
  constexpr int64_t kColumns = kType == DType::kI4 ? 8 : 4;  // of a 64-byte step
  uint8_t* to = block + cache.layout().keys + token % kKvBlockTokens * 4;
  for (int64_t i = 0; i < cache.layout().padded_dim; i += kColumns, to += 64) {
    uint32_t word;
    if constexpr (kType == DType::kI4) {
      word = NibbleWord(codes + i);
    } else {
      std::memcpy(&word, codes + i, sizeof(word));
      word ^= 0x80808080u;
    }
    std::memcpy(to, &word, sizeof(word));
  }
}

// Writes one token's codes into the lane of the key tile, or the column of the value
// tiles; zeros beyond head_dim, since the kernel multiplies them (by zero).
template <DType kType, bool kIsKey, class Code>
void StoreCodes(const KvCache& cache, uint8_t* block, int64_t token, const Code* codes) {
  const KvBlockLayout& layout = cache.layout();
  const int64_t slot = token % kKvBlockTokens;
  for (int64_t i = 0; i < layout.padded_dim; ++i) {
    const uint32_t code = i < cache.shape().head_dim ? CodeBits(codes[i]) : 0;
    if constexpr (kIsKey) {
      SetTileCode(kType, block + layout.keys, slot, i, code);
    } else {
      uint8_t* tile =
          block + layout.values + i / kTileLanes * TileBytes(kType, kKvBlockTokens);
      SetTileCode(kType, tile, i % kTileLanes, slot, code);
    }
  }
}

// Quantizes one head of one token and stores codes and scales.
template <bool kIsKey>
void StoreToken(const KvCache& cache, int layer, uint8_t* block, int64_t token, const float* x) {
  const KvBlockLayout& layout = cache.layout();
  const int64_t dim = cache.shape().head_dim;
  uint8_t* scales = block + (kIsKey ? layout.key_scales : layout.value_scales);
  const int64_t slot = token % kKvBlockTokens;
  switch (cache.shape().type) {
    case DType::kI4: {
      int8_t codes[kMaxHeadDim];
      const float factor = kIsKey ? cache.key_factor(layer) : cache.value_factor(layer);
      for (int64_t g = 0; g < layout.groups; ++g) {
        const int64_t begin = g * layout.group_dim;
        scales[g * kKvBlockTokens + slot] = HWY_DYNAMIC_DISPATCH(QuantizeGroupI4)(
            x + begin, layout.group_dim, factor, codes + begin);
      }
      if constexpr (kIsKey) {
        std::memset(codes + dim, 0, static_cast<size_t>(layout.padded_dim - dim));
        return StoreKeyWords<DType::kI4>(cache, block, token, codes);
      }
      return StoreCodes<DType::kI4, kIsKey>(cache, block, token, codes);
    }
    case DType::kI8: {
      int8_t codes[kMaxHeadDim];
      const float scale = QuantizeRowI8(x, dim, codes);
      std::memcpy(scales + slot * static_cast<int64_t>(sizeof(scale)), &scale, sizeof(scale));
      if constexpr (kIsKey) {
        std::memset(codes + dim, 0, static_cast<size_t>(layout.padded_dim - dim));
        return StoreKeyWords<DType::kI8>(cache, block, token, codes);
      }
      return StoreCodes<DType::kI8, kIsKey>(cache, block, token, codes);
    }
    case DType::kBF16: {
      uint16_t codes[kMaxHeadDim];
      for (int64_t i = 0; i < dim; ++i) codes[i] = EncodeBF16(x[i]);
      return StoreCodes<DType::kBF16, kIsKey>(cache, block, token, codes);
    }
    default: return StoreCodes<DType::kF32, kIsKey>(cache, block, token, x);
  }
}

// The operands of one RopeAppend call.
struct AppendCall {
  int layer;
  int64_t kv_heads, head_dim;
  const float* k;
  int64_t k_stride;
  const float* v;
  int64_t v_stride;
  const float* angles;
  int64_t angles_stride;
};

int64_t BlocksTouched(const Sequence& s) {
  if (s.rows == 0) return 0;
  return (s.start + s.rows - 1) / kKvBlockTokens - s.start / kKvBlockTokens + 1;
}

// Appends the tokens of one block of one head. first_row: the sequence's first row of k, v.
void AppendBlock(const AppendCall& call, const Sequence& s, int64_t first_row, int64_t head,
                 int64_t block) {
  const int64_t begin = std::max(s.start, block * kKvBlockTokens);
  const int64_t end = std::min(s.start + s.rows, (block + 1) * kKvBlockTokens);
  uint8_t* bytes = s.cache->Blocks(call.layer, head) + block * s.cache->layout().bytes;
  const int64_t column = head * call.head_dim;
  const float* scales = s.cache->key_scales(call.layer);
  float rotated[kMaxHeadDim];
  for (int64_t token = begin; token < end; ++token) {
    const int64_t row = first_row + token - s.start;
    const float* key = call.k + row * call.k_stride + column;
    if (call.angles != nullptr) {
      HWY_DYNAMIC_DISPATCH(RotateHead)
      (key, call.angles + row * call.angles_stride, call.head_dim / 2, rotated);
      key = rotated;
    }
    if (scales != nullptr) {
      HWY_DYNAMIC_DISPATCH(DivideBy)(key, scales + column, call.head_dim, rotated);
      key = rotated;
    }
    StoreToken<true>(*s.cache, call.layer, bytes, token, key);
    StoreToken<false>(*s.cache, call.layer, bytes, token, call.v + row * call.v_stride + column);
  }
}

// Appends this thread's share of all (sequence, block, head) items.
void AppendShare(const AppendCall& call, const Sequence* sequences, int count, Range share) {
  int64_t base = 0, first_row = 0;
  for (int i = 0; i < count; ++i) {
    const Sequence& s = sequences[i];
    const int64_t items = BlocksTouched(s) * call.kv_heads;
    const int64_t end = std::min(share.end, base + items);
    for (int64_t item = std::max(share.begin, base); item < end; ++item) {
      const int64_t block = s.start / kKvBlockTokens + (item - base) / call.kv_heads;
      AppendBlock(call, s, first_row, (item - base) % call.kv_heads, block);
    }
    base += items;
    first_row += s.rows;
  }
}

}  // namespace

void RopeAngles(Workspace& workspace, const float* inverse_frequencies, int64_t half,
                const Sequence* sequences, int count, float* angles, int64_t stride) {
  int64_t rows = 0;
  for (int i = 0; i < count; ++i) rows += sequences[i].rows;
  workspace.pool().Run([&](int thread) {
    const Range share = Share(rows, thread, workspace.threads());
    int64_t first_row = 0;
    for (int i = 0; i < count; ++i) {
      const Sequence& s = sequences[i];
      const int64_t end = std::min(share.end, first_row + s.rows);
      for (int64_t row = std::max(share.begin, first_row); row < end; ++row) {
        const float position = static_cast<float>(s.start + row - first_row);
        float* out = angles + row * stride;
        for (int64_t j = 0; j < half; ++j) {
          const double angle = position * inverse_frequencies[j];  // an F32 product
          out[j] = static_cast<float>(std::cos(angle));
          out[half + j] = static_cast<float>(std::sin(angle));
        }
      }
      first_row += s.rows;
    }
  });
}

void RopeAppend(Workspace& workspace, int layer, float* q, int64_t q_stride, int64_t q_heads,
                const float* k, int64_t k_stride, const float* v, int64_t v_stride,
                const float* angles, int64_t angles_stride, const Sequence* sequences,
                int count) {
  if (count == 0) return;
  const KvCacheShape& shape = sequences[0].cache->shape();
  const int64_t dim = shape.head_dim;
  const AppendCall call = {layer, shape.kv_heads, dim,    k,            k_stride,
                           v,     v_stride,       angles, angles_stride};
  int64_t rows = 0, items = 0;
  for (int i = 0; i < count; ++i) {
    rows += sequences[i].rows;
    items += BlocksTouched(sequences[i]) * shape.kv_heads;
  }
  if (rows > 0) {
    workspace.pool().Run([&](int thread) {
      AppendShare(call, sequences, count, Share(items, thread, workspace.threads()));
      const Range heads = Share(rows * q_heads, thread, workspace.threads());
      int i = 0;
      int64_t end = sequences[0].rows * q_heads;  // of sequence i
      for (int64_t item = heads.begin; item < heads.end; ++item) {
        while (item >= end) end += sequences[++i].rows * q_heads;
        const float* scales = sequences[i].cache->key_scales(layer);
        if (angles == nullptr && scales == nullptr) continue;
        const int64_t row = item / q_heads, q_head = item % q_heads;
        float* head = q + row * q_stride + q_head * dim;
        if (angles != nullptr) {
          HWY_DYNAMIC_DISPATCH(RotateHead)(head, angles + row * angles_stride, dim / 2, head);
        }
        if (scales != nullptr) {
          const int64_t kv_head = q_head / (q_heads / shape.kv_heads);
          HWY_DYNAMIC_DISPATCH(MultiplyBy)(scales + kv_head * dim, dim, head);
        }
      }
    });
  }
  for (int i = 0; i < count; ++i) {
    sequences[i].cache->SetLength(layer, sequences[i].start + sequences[i].rows);
  }
}

}  // namespace nibble
#endif  // HWY_ONCE
