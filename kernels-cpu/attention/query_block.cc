// SPDX-License-Identifier: Apache-2.0
//
// Online softmax (FlashAttention, arXiv 2205.14135) over the blocks of a KV cache.
//
//   for each step of 64 keys:
//     for each block of 16 keys:  K tile -> keys   [P columns][16 lanes = keys]   F32
//                                 S[rows][16]  = Q keys, times the key scales
//     S -> weights exp(S * scale - m), m, l and acc rescaled where the maximum grew
//     for each block of 16 keys:  V tiles -> values [P/16 tiles][16 keys][16 lanes] F32
//                                 acc[rows][P] += (weights times value scales) values
//
// A block is decoded once for all query rows that share the kv head, into the L1 cache
// (P = head_dim padded to 16; at most 16 KiB each for keys and values). Rows are taken 8,
// 4, 2 or 1 at a time with 8 accumulators each time: below 8 rows the accumulators share
// out the columns, so that the latency of the FMA stays hidden.
//
// Shapes: head_dim even, 16..256; any number of query heads and tokens; key_begin a
// multiple of 16.
//
// What must not be read: lanes of keys behind a row's own position (its future, or stale
// bytes of a rewound or unfinished block) may hold anything, NaN included. A lane is a key,
// so such a score stays in its lane and is replaced by -infinity; its value is not even
// multiplied by the weight 0, since 0 * NaN is NaN: each row stops at its last key.
//
// Precision. Scores are F32 sums of head_dim products; with E4M3 queries the products of
// codes (at most 448 * 128) are exact in F32, and the scales multiply the finished sum. The
// argument of exp is <= 0, Exp is within 1 ulp, weights are <= 1 and l >= 1 for a row that
// has seen a finite score, so nothing overflows. A score of NaN or +infinity makes its row
// NaN, as the formula does; the derived bound is with AttentionReference.
#include "kernels-cpu/attention/query_block.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels-cpu/elementwise/elementwise.h"
#include "kernels-cpu/numerics/formats.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/attention/query_block.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "hwy/cache_control.h"
#include "hwy/contrib/math/math-inl.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

#ifndef NIBBLE_ATTENTION_QUERY_BLOCK_ONCE
#define NIBBLE_ATTENTION_QUERY_BLOCK_ONCE
namespace nibble {
namespace {

// Where the parts of the scratch lie, in floats.
struct ScratchParts {
  ScratchParts(int64_t rows, int64_t padded_dim) {
    const int64_t padded_rows = RoundUp(rows, 16);
    row_scale = padded_rows * padded_dim;
    row_end = row_scale + padded_rows;
    scores = row_end + 2 * padded_rows;
    panel = scores + padded_rows * kKeyStep;
    weights = panel + padded_dim * kKvBlockTokens;
    total = weights + 8 * kKvBlockTokens;
  }
  int64_t row_scale;  // [rows] what turns a row's sums into scores
  int64_t row_end;    // [rows] as int64_t: the first key that a row must not see
  int64_t scores;     // [rows][kKeyStep]
  int64_t panel;      // one block of decoded keys, or values
  int64_t weights;    // [8][16] weights times value scales
  int64_t total;
};

// Values of all E4M3 codes.
const float* E4M3Values() {
  static const struct Table {
    Table() {
      for (int code = 0; code < 256; ++code) values[code] = DecodeE4M3(static_cast<uint8_t>(code));
    }
    float values[256];
  } table;
  return table.values;
}

// The number of rows taken at once when `left` are left.
int64_t RowChunk(int64_t left) { return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

}  // namespace
}  // namespace nibble
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// exp(x) for x <= 0; NaN stays NaN, -infinity gives 0 (Exp alone turns NaN into 0).
HWY_INLINE VF ExpOrNaN(VF x) {
  return hn::IfThenElse(hn::Eq(x, x), hn::Exp(TileF(), x), x);
}

// The query rows in the order in which the score kernel reads them: chunks of R = 8, 4, 2
// or 1 rows, each [padded_dim columns][R]. Rounds them to E4M3 against a quantized cache;
// row_scale then carries the row's scale.
void PackQueries(const QueryBlock& b, float* packed, float* row_scale) {
  const KvBlockLayout& layout = b.cache->layout();
  const int64_t dim = b.cache->shape().head_dim;
  const float* const table = E4M3Values();
  uint8_t codes[256];
  for (int64_t first = 0; first < b.rows();) {
    const int64_t chunk = RowChunk(b.rows() - first);
    float* out = packed + first * layout.padded_dim;
    for (int64_t r = 0; r < chunk; ++r) {
      const int64_t row = first + r;
      const float* q = b.q + row / b.heads * b.q_stride + row % b.heads * dim;
      if (layout.groups > 0) {
        row_scale[row] = QuantizeRowE4M3(q, dim, codes) * b.scale;
        for (int64_t i = 0; i < dim; ++i) out[i * chunk + r] = table[codes[i]];
      } else {
        row_scale[row] = b.scale;
        for (int64_t i = 0; i < dim; ++i) out[i * chunk + r] = q[i];
      }
      for (int64_t i = dim; i < layout.padded_dim; ++i) out[i * chunk + r] = 0;
    }
    first += chunk;
  }
}

// Decodes `columns` columns of a tile (or of tiles of 16 columns that follow each other) to
// [columns][16 lanes], and asks for the bytes `ahead` of those it reads: the hardware's own
// prefetchers stop at each 4 KiB page, which is every few blocks.
template <DType kType>
HWY_INLINE void DecodePanel(const uint8_t* tile, int64_t columns, int64_t ahead, float* panel) {
  const TileDecoder<kType> decoder;
  constexpr int64_t kChunkBytes = TileBytes(kType, kTileColumns);
  for (int64_t k = 0; k < columns; k += kTileColumns, tile += kChunkBytes) {
    for (int64_t i = 0; i < kChunkBytes; i += 64) hwy::Prefetch(tile + ahead + i);
    for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(TileF())) {
      float* to = panel + k * kTileLanes + lane;
      decoder.Chunk(tile, lane,
                    [&](size_t i, VF v) HWY_ATTR { hn::StoreU(v, TileF(), to + i * kTileLanes); });
    }
  }
}

// The F32 scales of 16 tokens from `lane` on.
template <DType kType>
HWY_INLINE VF LoadTokenScales(const uint8_t* scales, float factor, size_t lane) {
  const TileF df;
  if constexpr (kType == DType::kI4) {
    const TileU du;
    const VU code = hn::PromoteTo(du, hn::LoadU(hn::Rebind<uint8_t, TileF>(), scales + lane));
    const VF value = hn::Mul(SmallFloatMagnitude<3, 7>(code), hn::Set(df, factor));
    const auto is_nan = hn::RebindMask(df, hn::Eq(code, hn::Set(du, 0x7F)));
    return hn::IfThenElse(is_nan, hn::NaN(df), value);
  } else if constexpr (kType == DType::kI8) {
    return hn::LoadU(df, reinterpret_cast<const float*>(scales) + lane);
  } else {
    return hn::Set(df, 1.0f);
  }
}

// scores[row][16] of kRows packed rows against columns [0, columns) of a key panel, times
// the scales of the keys; added to what is there unless it is the first group.
// Accumulator j belongs to row j % kRows and to columns j / kRows modulo 8 / kRows, which
// makes the packed queries one contiguous stream of 8 a step.
template <int kRows, DType kType>
HWY_INLINE void ScoreRows(const float* q, const float* keys, int64_t columns,
                          const uint8_t* scales, float factor, bool first_group, float* scores) {
  const TileF df;
  constexpr int64_t kStep = 8 / kRows;
  for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(df)) {
    const float* qp = q;
    const float* kp = keys + lane;
    VF s0 = hn::Zero(df), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    for (int64_t c = 0; c < columns; c += kStep, qp += 8, kp += kStep * kTileLanes) {
      s0 = hn::MulAdd(hn::Set(df, qp[0]), hn::LoadU(df, kp), s0);
      s1 = hn::MulAdd(hn::Set(df, qp[1]), hn::LoadU(df, kp + 1 / kRows * 16), s1);
      s2 = hn::MulAdd(hn::Set(df, qp[2]), hn::LoadU(df, kp + 2 / kRows * 16), s2);
      s3 = hn::MulAdd(hn::Set(df, qp[3]), hn::LoadU(df, kp + 3 / kRows * 16), s3);
      s4 = hn::MulAdd(hn::Set(df, qp[4]), hn::LoadU(df, kp + 4 / kRows * 16), s4);
      s5 = hn::MulAdd(hn::Set(df, qp[5]), hn::LoadU(df, kp + 5 / kRows * 16), s5);
      s6 = hn::MulAdd(hn::Set(df, qp[6]), hn::LoadU(df, kp + 6 / kRows * 16), s6);
      s7 = hn::MulAdd(hn::Set(df, qp[7]), hn::LoadU(df, kp + 7 / kRows * 16), s7);
    }
    if constexpr (kRows <= 4) {
      s0 = hn::Add(s0, s4);
      s1 = hn::Add(s1, s5);
      s2 = hn::Add(s2, s6);
      s3 = hn::Add(s3, s7);
    }
    if constexpr (kRows <= 2) {
      s0 = hn::Add(s0, s2);
      s1 = hn::Add(s1, s3);
    }
    if constexpr (kRows == 1) s0 = hn::Add(s0, s1);
    const VF scale = LoadTokenScales<kType>(scales, factor, lane);
    const auto store = [&](int64_t row, VF sum) HWY_ATTR {
      float* to = scores + row * kKeyStep + lane;
      if constexpr (kType == DType::kI4) {
        const VF before = first_group ? hn::Zero(df) : hn::LoadU(df, to);
        hn::StoreU(hn::MulAdd(sum, scale, before), df, to);
      } else if constexpr (kType == DType::kI8) {
        hn::StoreU(hn::Mul(sum, scale), df, to);
      } else {
        hn::StoreU(sum, df, to);
      }
    };
    store(0, s0);
    if constexpr (kRows >= 2) store(1, s1);
    if constexpr (kRows >= 4) {
      store(2, s2);
      store(3, s3);
    }
    if constexpr (kRows >= 8) {
      store(4, s4);
      store(5, s5);
      store(6, s6);
      store(7, s7);
    }
  }
}

// acc[row][16] += sum over tokens [begin, end) of weights[row][token] * values[token][16].
template <int kRows>
HWY_INLINE void AddValues(const float* weights, int64_t begin, int64_t end, const float* values,
                          float* acc, int64_t acc_stride) {
  const TileF df;
  for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(df)) {
    float* a = acc + lane;
    // Rows that kRows leaves out repeat row 0 and are dropped by the compiler.
    const auto row = [&](int r) HWY_ATTR { return (r < kRows ? r : 0) * acc_stride; };
    VF a0 = hn::LoadU(df, a), a1 = hn::LoadU(df, a + row(1)), a2 = hn::LoadU(df, a + row(2)),
       a3 = hn::LoadU(df, a + row(3)), a4 = hn::LoadU(df, a + row(4)),
       a5 = hn::LoadU(df, a + row(5)), a6 = hn::LoadU(df, a + row(6)),
       a7 = hn::LoadU(df, a + row(7));
    for (int64_t t = begin; t < end; ++t) {
      const VF v = hn::LoadU(df, values + t * kTileLanes + lane);
      const float* w = weights + t;
      a0 = hn::MulAdd(hn::Set(df, w[0]), v, a0);
      if constexpr (kRows >= 2) a1 = hn::MulAdd(hn::Set(df, w[16]), v, a1);
      if constexpr (kRows >= 4) {
        a2 = hn::MulAdd(hn::Set(df, w[32]), v, a2);
        a3 = hn::MulAdd(hn::Set(df, w[48]), v, a3);
      }
      if constexpr (kRows >= 8) {
        a4 = hn::MulAdd(hn::Set(df, w[64]), v, a4);
        a5 = hn::MulAdd(hn::Set(df, w[80]), v, a5);
        a6 = hn::MulAdd(hn::Set(df, w[96]), v, a6);
        a7 = hn::MulAdd(hn::Set(df, w[112]), v, a7);
      }
    }
    hn::StoreU(a0, df, a);
    if constexpr (kRows >= 2) hn::StoreU(a1, df, a + row(1));
    if constexpr (kRows >= 4) {
      hn::StoreU(a2, df, a + row(2));
      hn::StoreU(a3, df, a + row(3));
    }
    if constexpr (kRows >= 8) {
      hn::StoreU(a4, df, a + row(4));
      hn::StoreU(a5, df, a + row(5));
      hn::StoreU(a6, df, a + row(6));
      hn::StoreU(a7, df, a + row(7));
    }
  }
}

// One query block against one type of cache.
template <DType kType>
class BlockAttention {
 public:
  BlockAttention(const QueryBlock& b, float* scratch, const SoftmaxState& state)
      : b_(b), layout_(b.cache->layout()), state_(state) {
    const ScratchParts parts(b.rows(), layout_.padded_dim);
    queries_ = scratch;
    row_scale_ = scratch + parts.row_scale;
    row_end_ = reinterpret_cast<int64_t*>(scratch + parts.row_end);
    scores_ = scratch + parts.scores;
    panel_ = scratch + parts.panel;
    weights_ = scratch + parts.weights;
    blocks_ = b.cache->Blocks(b.layer, b.kv_head);
  }

  void Run() {
    for (int64_t row = 0; row < b_.rows(); ++row) {
      row_end_[row] = std::min(b_.position + row / b_.heads + 1, b_.key_end);
    }
    std::fill_n(state_.max, b_.rows(), -std::numeric_limits<float>::infinity());
    std::fill_n(state_.sum, b_.rows(), 0.0f);
    std::fill_n(state_.acc, b_.rows() * layout_.padded_dim, 0.0f);
    PackQueries(b_, queries_, row_scale_);
    for (int64_t step = b_.key_begin; step < b_.key_end; step += kKeyStep) {
      const int64_t end = std::min(step + kKeyStep, b_.key_end);
      for (int64_t key = step; key < end; key += kKvBlockTokens) Scores(key, key - step);
      for (int64_t row = 0; row < b_.rows(); ++row) Softmax(row, step);
      for (int64_t key = step; key < end; key += kKvBlockTokens) Values(key, key - step);
    }
  }

 private:
  // How far ahead to prefetch while decoding the block of `key`: one step, or nothing
  // (0: what is being read anyway) in the last one.
  int64_t Ahead(int64_t key) const {
    return key + kKeyStep < b_.key_end ? kKeyStep / kKvBlockTokens * layout_.bytes : 0;
  }

  const uint8_t* Block(int64_t key) const {
    return blocks_ + key / kKvBlockTokens * layout_.bytes;
  }

  // How many of the `length` keys from `begin` on a row may see.
  int64_t Visible(int64_t row, int64_t begin, int64_t length) const {
    return std::clamp<int64_t>(row_end_[row] - begin, 0, length);
  }

  void Scores(int64_t key, int64_t column) {
    const uint8_t* block = Block(key);
    DecodePanel<kType>(block + layout_.keys, layout_.padded_dim, Ahead(key), panel_);
    for (int64_t row = 0; row < b_.rows();) {
      const int64_t chunk = RowChunk(b_.rows() - row);
      const float* q = queries_ + row * layout_.padded_dim;
      float* scores = scores_ + row * kKeyStep + column;
      switch (chunk) {
        case 8: ScoreGroups<8>(q, block, scores); break;
        case 4: ScoreGroups<4>(q, block, scores); break;
        case 2: ScoreGroups<2>(q, block, scores); break;
        default: ScoreGroups<1>(q, block, scores); break;
      }
      row += chunk;
    }
  }

  template <int kRows>
  void ScoreGroups(const float* q, const uint8_t* block, float* scores) {
    const uint8_t* scales = block + layout_.key_scales;
    const float factor = b_.cache->key_factor(b_.layer);
    // Smaller groups than the head are whole multiples of 16; the padding of the last
    // columns is zero in queries and keys.
    const int64_t columns = layout_.groups > 1 ? layout_.group_dim : layout_.padded_dim;
    for (int64_t c = 0; c < layout_.padded_dim; c += columns) {
      ScoreRows<kRows, kType>(q + c * kRows, panel_ + c * kTileLanes, columns, scales, factor,
                              c == 0, scores);
      scales += kKvBlockTokens;  // of KV4; other types have one group
    }
  }

  // Turns a row's scores of the step into weights and updates its maximum and sum.
  void Softmax(int64_t row, int64_t step) {
    const TileF df;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
    const int64_t visible = Visible(row, step, kKeyStep);
    if (visible == 0) return;
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    float* s = scores_ + row * kKeyStep;
    const VF scale = hn::Set(df, row_scale_[row]), minus_infinity = hn::Set(df, -kInfinity);
    VF largest = minus_infinity;
    for (int64_t i = 0; i < visible; i += lanes) {
      const auto seen = hn::FirstN(df, static_cast<size_t>(std::min(visible - i, lanes)));
      const VF v = hn::IfThenElse(seen, hn::Mul(hn::LoadU(df, s + i), scale), minus_infinity);
      hn::StoreU(v, df, s + i);
      largest = hn::Max(largest, v);
    }
    const float before = state_.max[row];
    const float now = std::max(before, hn::ReduceMax(df, largest));
    // A row of scores -infinity has no maximum to subtract; its weights are 0.
    const VF shift = hn::Set(df, now == -kInfinity ? 0.0f : now);
    VF sum = hn::Zero(df);
    for (int64_t i = 0; i < visible; i += lanes) {
      const VF weight = ExpOrNaN(hn::Sub(hn::LoadU(df, s + i), shift));
      hn::StoreU(weight, df, s + i);
      sum = hn::Add(sum, weight);
    }
    if (now != before) Rescale(row, hn::GetLane(ExpOrNaN(hn::Sub(hn::Set(df, before), shift))));
    state_.max[row] = now;
    state_.sum[row] += hn::ReduceSum(df, sum);
  }

  void Rescale(int64_t row, float factor) {
    const TileF df;
    state_.sum[row] *= factor;
    float* acc = state_.acc + row * layout_.padded_dim;
    const VF f = hn::Set(df, factor);
    for (int64_t i = 0; i < layout_.padded_dim; i += static_cast<int64_t>(hn::Lanes(df))) {
      hn::StoreU(hn::Mul(hn::LoadU(df, acc + i), f), df, acc + i);
    }
  }

  void Values(int64_t key, int64_t column) {
    const uint8_t* block = Block(key);
    DecodePanel<kType>(block + layout_.values, layout_.padded_dim, Ahead(key), panel_);
    for (int64_t row = 0; row < b_.rows();) {
      const int64_t chunk = RowChunk(b_.rows() - row);
      switch (chunk) {
        case 8: ValueRows<8>(row, key, column, block); break;
        case 4: ValueRows<4>(row, key, column, block); break;
        case 2: ValueRows<2>(row, key, column, block); break;
        default: ValueRows<1>(row, key, column, block); break;
      }
      row += chunk;
    }
  }

  // Rows of one chunk see different numbers of the block's keys only where it crosses the
  // diagonal: what all see is added together, the rest row by row.
  template <int kRows>
  void ValueRows(int64_t row, int64_t key, int64_t column, const uint8_t* block) {
    const int64_t common = Visible(row, key, kKvBlockTokens);  // later rows see as many or more
    const int64_t most = Visible(row + kRows - 1, key, kKvBlockTokens);
    if (most == 0) return;
    const uint8_t* scales = block + layout_.value_scales;
    const int64_t columns = layout_.groups > 1 ? layout_.group_dim : layout_.padded_dim;
    for (int64_t c = 0; c < layout_.padded_dim; c += columns) {
      FoldScales<kRows>(scores_ + row * kKeyStep + column, scales);
      scales += kKvBlockTokens;
      for (int64_t tile = c; tile < c + columns; tile += kTileLanes) {
        const float* values = panel_ + tile * kKvBlockTokens;
        float* acc = state_.acc + row * layout_.padded_dim + tile;
        if (common > 0) AddValues<kRows>(weights_, 0, common, values, acc, layout_.padded_dim);
        if (most == common) continue;
        for (int64_t r = 0; r < kRows; ++r) {
          const int64_t visible = Visible(row + r, key, kKvBlockTokens);
          if (visible > common) {
            AddValues<1>(weights_ + r * kKvBlockTokens, common, visible, values,
                         acc + r * layout_.padded_dim, layout_.padded_dim);
          }
        }
      }
    }
  }

  // weights_[row][16] = softmax weights times the scales of the values.
  template <int kRows>
  HWY_INLINE void FoldScales(const float* softmax, const uint8_t* scales) {
    const TileF df;
    const float factor = b_.cache->value_factor(b_.layer);
    for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(df)) {
      const VF scale = LoadTokenScales<kType>(scales, factor, lane);
      for (int64_t r = 0; r < kRows; ++r) {
        VF w = hn::LoadU(df, softmax + r * kKeyStep + lane);
        if constexpr (!IsUnquantized(kType)) w = hn::Mul(w, scale);
        hn::StoreU(w, df, weights_ + r * kKvBlockTokens + lane);
      }
    }
  }

  const QueryBlock& b_;
  const KvBlockLayout& layout_;
  const SoftmaxState state_;
  const uint8_t* blocks_;
  float* queries_;
  float* row_scale_;
  int64_t* row_end_;
  float* scores_;
  float* panel_;
  float* weights_;
};

void AttendQueryBlock(const QueryBlock& block, float* scratch, const SoftmaxState& state) {
  switch (block.cache->shape().type) {
    case DType::kI4: return BlockAttention<DType::kI4>(block, scratch, state).Run();
    case DType::kI8: return BlockAttention<DType::kI8>(block, scratch, state).Run();
    case DType::kBF16: return BlockAttention<DType::kBF16>(block, scratch, state).Run();
    default: return BlockAttention<DType::kF32>(block, scratch, state).Run();
  }
}

void MergeStates(const SoftmaxState* states, int64_t count, int64_t row, int64_t padded_dim,
                 int64_t head_dim, float* y) {
  const TileF df;
  float max = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < count; ++i) max = std::max(max, states[i].max[row]);
  const VF shift = hn::Set(df, std::isinf(max) && max < 0 ? 0.0f : max);
  // The weight of a state, recomputed below rather than stored: there may be many.
  const auto weight = [&](int64_t i) HWY_ATTR {
    return ExpOrNaN(hn::Sub(hn::Set(df, states[i].max[row]), shift));
  };
  VF sum = hn::Zero(df);
  for (int64_t i = 0; i < count; ++i) {
    sum = hn::MulAdd(weight(i), hn::Set(df, states[i].sum[row]), sum);
  }
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  for (int64_t c = 0; c < head_dim; c += lanes) {
    VF total = hn::Zero(df);
    for (int64_t i = 0; i < count; ++i) {
      const VF acc = hn::LoadU(df, states[i].acc + row * padded_dim + c);
      total = hn::MulAdd(weight(i), acc, total);
    }
    const VF mean = hn::Div(total, sum);
    if (c + lanes <= head_dim) {
      hn::StoreU(mean, df, y + c);
    } else {
      hn::StoreN(mean, df, y + c, static_cast<size_t>(head_dim - c));
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(AttendQueryBlock);
HWY_EXPORT(MergeStates);

int64_t QueryBlockScratch(int64_t rows, int64_t padded_dim) {
  return ScratchParts(rows, padded_dim).total;
}

void AttendQueryBlock(const QueryBlock& block, float* scratch, const SoftmaxState& state) {
  HWY_DYNAMIC_DISPATCH(AttendQueryBlock)(block, scratch, state);
}

void MergeStates(const SoftmaxState* states, int64_t count, int64_t row, int64_t padded_dim,
                 int64_t head_dim, float* y) {
  HWY_DYNAMIC_DISPATCH(MergeStates)(states, count, row, padded_dim, head_dim, y);
}

}  // namespace nibble
#endif  // HWY_ONCE
