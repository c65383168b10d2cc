// SPDX-License-Identifier: Apache-2.0
//
// Online softmax (FlashAttention, arXiv 2205.14135) over the blocks of a KV cache.
//
//   for each step of 128 keys (64 where there are many rows):
//     S[rows][keys] = Q keys, times the key scales    score_integer-inl.h, score_float-inl.h
//     S -> weights 2^(S * scale - m) times value scales; m, l and acc rescaled where the
//          maximum grew                               softmax-inl.h
//     acc[rows][P] += weights values                  values-inl.h
//
// P = head_dim padded to 16. Few rows (decode: the query heads that share a kv head) are
// bound by the reading of the cache and by its decoding: codes go from the cache's bytes
// through registers straight into the multiplications of all rows, and the next step is
// fetched meanwhile. Many rows (prefill) are bound by the multiplications: what takes
// instructions to decode is decoded once a step for all rows, into a panel of 64 keys. A long
// step for few rows makes the work that comes once a step rare; a short one for many rows
// keeps their weights and the panel near the first-level cache.
//
// Shapes: head_dim even, 16..256; any number of query heads and tokens; key_begin a
// multiple of 16.
//
// What must not be read: lanes of keys behind a row's own position (its future, or stale
// bytes of a rewound or unfinished block) may hold anything, NaN included. A lane is a key,
// so such a score stays in its lane and gets the weight 0. Of KV4 and KV8 only the scales can
// be NaN, and they are not multiplied there; values of KV16 and f32 are looked at (ValueTail).
//
// Precision: each of the three files states its part; the sum of them is the bound of
// AttentionReference. Weights and l are held 2^40 times as large: weights are at most 2^40 but for
// rounding, and l at least that for a row that has seen a finite score (softmax-inl.h). A score of NaN or +infinity makes its row NaN, as the
// formula does.
#include "kernels-cpu/attention/query_block.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels-cpu/attention/fetch_ahead.h"
#include "kernels-cpu/elementwise/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/attention/query_block.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/attention/decode_block-inl.h"
#include "kernels-cpu/attention/score_float-inl.h"
#include "kernels-cpu/attention/score_integer-inl.h"
#include "kernels-cpu/attention/softmax-inl.h"
#include "kernels-cpu/attention/values-inl.h"

#ifndef NIBBLE_ATTENTION_QUERY_BLOCK_ONCE
#define NIBBLE_ATTENTION_QUERY_BLOCK_ONCE
namespace nibble {
namespace {

// Rows up to which codes are decoded in registers: beyond it a panel costs less than the
// decoding again for every four rows.
constexpr int64_t kFewRows = 8;
constexpr int64_t kFewRowsStep = 128;  // keys of a step
constexpr int64_t kManyRowsStep = 64;

int64_t StepKeys(int64_t rows) { return rows <= kFewRows ? kFewRowsStep : kManyRowsStep; }

// Where the parts of the scratch lie, in floats; each a multiple of 16. A group of scales has
// at least 16 columns, which bounds their number by P / 16.
struct ScratchParts {
  ScratchParts(int64_t rows, int64_t padded_dim) {
    const int64_t padded_rows = RoundUp(rows, 16), step = StepKeys(rows);
    const int64_t groups = padded_dim / 16;
    row_scale = padded_rows * padded_dim;
    row_end = row_scale + padded_rows;
    rest_row = row_end + 2 * padded_rows;
    row_sums = rest_row + padded_rows;
    starts = row_sums + padded_rows * 16;
    rest_starts = starts + 2 * padded_rows * groups;
    scores = rest_starts + 2 * padded_rows * groups;
    key_scales = scores + padded_rows * step;
    value_scales = key_scales + groups * step;
    folded = value_scales + groups * step;
    panel = folded + kFewRows * step;
    total = panel + padded_dim * kManyRowsStep;
  }
  int64_t row_scale;     // [rows] what turns a row's sums into scores
  int64_t row_end;       // [rows] as int64_t: the first key that a row must not see
  int64_t rest_row;      // [rest rows] as int32_t: the row
  int64_t row_sums;      // [rows][16] sums of weights
  int64_t starts;        // where integer sums start: see score_integer-inl.h
  int64_t rest_starts;
  int64_t scores;        // [rows][step]
  int64_t key_scales;    // [groups][step]
  int64_t value_scales;  // [groups][step]
  int64_t folded;        // [8][step] weights times the value scales of one of several groups
  int64_t panel;         // decoded keys, or values
  int64_t total;
};

// The number of rows taken at once when `left` are left.
int64_t RowChunk(int64_t left) { return left >= 4 ? 4 : left >= 2 ? 2 : 1; }

}  // namespace
}  // namespace nibble
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {  // the same names in other files are other functions

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
    rest_row_ = reinterpret_cast<int32_t*>(scratch + parts.rest_row);
    row_sums_ = scratch + parts.row_sums;
    starts_ = reinterpret_cast<int32_t*>(scratch + parts.starts);
    rest_starts_ = reinterpret_cast<int32_t*>(scratch + parts.rest_starts);
    scores_ = scratch + parts.scores;
    key_scales_ = scratch + parts.key_scales;
    value_scales_ = scratch + parts.value_scales;
    folded_ = scratch + parts.folded;
    panel_ = scratch + parts.panel;
    step_keys_ = StepKeys(b.rows());
    columns_ = layout_.groups > 1 ? layout_.group_dim : layout_.padded_dim;
  }

  void Run() {
    const int64_t rows = b_.rows();
    for (int64_t row = 0; row < rows; ++row) {
      row_end_[row] = std::min(b_.position + row / b_.heads + 1, b_.key_end);
    }
    std::fill_n(state_.max, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(row_sums_, rows * kTileLanes, 0.0f);
    std::fill_n(state_.acc, rows * layout_.padded_dim, 0.0f);
    PackQueries();
    const uint8_t* blocks = b_.cache->Blocks(b_.layer, b_.kv_head);
    for (int64_t key = b_.key_begin; key < b_.key_end; key += step_keys_) {
      step_ = key;
      blocks_ = blocks + key / kKvBlockTokens * layout_.bytes;
      count_ = DivUp(std::min(step_keys_, b_.key_end - key), kKvBlockTokens);
      next_ = NextStep();
      if constexpr (kQuantized) LoadScales();
      Scores();
      Softmax();
      Values();
    }
    for (int64_t row = 0; row < rows; ++row) {
      const TileF df;
      VF sum = hn::Zero(df);
      for (int64_t i = 0; i < kTileLanes; i += static_cast<int64_t>(hn::Lanes(df))) {
        sum = hn::Add(sum, hn::LoadU(df, row_sums_ + row * kTileLanes + i));
      }
      state_.sum[row] = hn::ReduceSum(df, sum);
    }
  }

 private:
  static constexpr bool kQuantized = kType == DType::kI4 || kType == DType::kI8;

  bool ManyRows() const { return b_.rows() > kFewRows; }

  // ---- fetching ahead ----

  // The first byte of the next step's blocks, which may be another head's; where there is none,
  // of this one's.
  const uint8_t* NextStep() const {
    const int64_t step_bytes = step_keys_ / kKvBlockTokens * layout_.bytes;
    if (step_ + step_keys_ < b_.key_end) return blocks_ + step_bytes;
    return b_.next != nullptr ? b_.next : blocks_;
  }

  // What is fetched with the scores of the blocks from i on: from its beginning as many bytes
  // as the step's keys have; with the values as many as those, behind them; and with the scales
  // what is left, at most a line with each block and group.
  FetchAhead FetchWithScores(int64_t i) const {
    return {next_ + i * (layout_.values - layout_.keys)};
  }
  FetchAhead FetchWithValues() const {
    return {next_ + count_ * (layout_.values - layout_.keys)};
  }
  FetchAhead FetchWithScales(int64_t i) const {
    return {next_ + count_ * (layout_.bytes - layout_.keys) + 64 * i};
  }

  // ---- queries ----

  // The query rows in the order in which the score kernels read them: chunks of 4, 2 or 1
  // rows. Against a quantized cache they are E4M3 and become the integers of
  // score_integer-inl.h, [columns / 4][rows][2], else F32, [columns][rows]. A negative softmax
  // scale changes the sign of the query, so that row scales never are.
  void PackQueries() {
    const float log2_scale = std::fabs(b_.scale) * kLog2E;
    const int64_t dim = b_.cache->shape().head_dim;
    rest_rows_ = 0;
    for (int64_t first = 0; first < b_.rows();) {
      const int64_t chunk = RowChunk(b_.rows() - first);
      for (int64_t r = 0; r < chunk; ++r) {
        const int64_t row = first + r;
        const float* q = b_.q + row / b_.heads * b_.q_stride + row % b_.heads * dim;
        row_scale_[row] = log2_scale;
        if constexpr (kQuantized) {
          PackIntegers(row, q, first, chunk);
        } else {
          float* out = queries_ + first * layout_.padded_dim + r;
          for (int64_t i = 0; i < dim; ++i) out[i * chunk] = b_.scale < 0 ? -q[i] : q[i];
          for (int64_t i = dim; i < layout_.padded_dim; ++i) out[i * chunk] = 0;
        }
      }
      first += chunk;
    }
  }

  int32_t* Words(int64_t first) const {
    return reinterpret_cast<int32_t*>(queries_) + first * layout_.padded_dim / 2;
  }
  // The packed rests of row number `index` among those that have any.
  int32_t* RestWords(int64_t index) const { return Words(b_.rows() + index); }

  void PackIntegers(int64_t row, const float* q, int64_t first, int64_t chunk) {
    const int64_t dim = b_.cache->shape().head_dim, padded = layout_.padded_dim;
    uint8_t codes[256];
    QueryIntegers x;
    // The integers are in units of 2^-6.
    row_scale_[row] *= QuantizeRowE4M3(q, dim, codes) * (1.0f / 64);
    const bool any_rest = x.Split(codes, dim, b_.scale < 0);
    constexpr int kZeroPoint = kType == DType::kI4 ? 8 : 128;
    const int64_t r = row - first;
    PackQueryRow(x.top, padded, columns_, kZeroPoint, 2 * chunk, Words(first) + 2 * r, 2 * chunk,
                 starts_ + 2 * (first * layout_.groups + r));
    if (!any_rest) return;
    PackQueryRow(x.rest, padded, columns_, kZeroPoint, 2, RestWords(rest_rows_), 2,
                 rest_starts_ + 2 * rest_rows_ * layout_.groups);
    rest_row_[rest_rows_++] = static_cast<int32_t>(row);
  }

  // ---- scores ----

  void LoadScales() {
    const int64_t group_bytes = kType == DType::kI4 ? kKvBlockTokens : 4 * kKvBlockTokens;
    const float key_factor = b_.cache->key_factor(b_.layer);
    const float value_factor = b_.cache->value_factor(b_.layer);
    for (int64_t g = 0; g < layout_.groups; ++g) {
      const uint8_t* block = blocks_ + g * group_bytes;
      for (int64_t i = 0; i < count_; ++i, block += layout_.bytes) {
        FetchWithScales(g * count_ + i).Line();
        const int64_t at = g * step_keys_ + i * kKvBlockTokens;
        LoadTokenScales<kType>(block + layout_.key_scales, key_factor, key_scales_ + at);
        LoadTokenScales<kType>(block + layout_.value_scales, value_factor, value_scales_ + at);
      }
    }
  }

  void Scores() {
    if constexpr (kType == DType::kI4) {
      if (ManyRows()) {
        uint8_t* panel = reinterpret_cast<uint8_t*>(panel_);
        const int64_t bytes = TileBytes(DType::kI8, layout_.padded_dim);
        for (int64_t i = 0; i < count_; ++i) {
          NibblesToBytes(Keys(i), layout_.padded_dim, panel + i * bytes);
        }
        return ScoreAllRows<DType::kI8, false>(panel, bytes);
      }
    } else if constexpr (kType == DType::kBF16) {
      if (ManyRows()) {
        for (int64_t i = 0; i < count_; ++i) {
          DecodePanel<kType>(Keys(i), layout_.padded_dim, panel_ + i * PanelFloats());
        }
        return ScoreAllRows<DType::kF32, false>(reinterpret_cast<const uint8_t*>(panel_),
                                         4 * PanelFloats());
      }
    }
    if (ManyRows()) {
      ScoreAllRows<kType, false>(Keys(0), layout_.bytes);
    } else {
      ScoreAllRows<kType, true>(Keys(0), layout_.bytes);
    }
  }

  const uint8_t* Keys(int64_t block) const {
    return blocks_ + block * layout_.bytes + layout_.keys;
  }

  // keys: the step's key tiles, of type kTile, block_stride bytes apart.
  template <DType kTile, bool kFetch>
  void ScoreAllRows(const uint8_t* keys, int64_t block_stride) {
    for (int64_t row = 0; row < b_.rows();) {
      const int64_t chunk = RowChunk(b_.rows() - row);
      switch (chunk) {
        case 4: ScoreRows<kTile, 4, kFetch>(row, keys, block_stride); break;
        case 2: ScoreRows<kTile, 2, kFetch>(row, keys, block_stride); break;
        default: ScoreRows<kTile, 1, kFetch>(row, keys, block_stride); break;
      }
      row += chunk;
    }
    if constexpr (kQuantized) {
      for (int64_t i = 0; i < rest_rows_; ++i) {
        ScoreIntegerRows<kTile, 1, true, false>(RestWords(i), rest_starts_ + 2 * i * layout_.groups,
                                         keys, block_stride, 0.125f,
                                         scores_ + rest_row_[i] * step_keys_);
      }
    }
  }

  template <DType kTile, int kRows, bool kFetch>
  HWY_NOINLINE void ScoreRows(int64_t row, const uint8_t* keys, int64_t block_stride) {
    float* scores = scores_ + row * step_keys_;
    if constexpr (kQuantized) {
      ScoreIntegerRows<kTile, kRows, false, kFetch>(Words(row), starts_ + 2 * row * layout_.groups,
                                                    keys, block_stride, 1.0f, scores);
    } else {
      const float* q = queries_ + row * layout_.padded_dim;
      for (int64_t i = 0; i < count_; i += kFloatBlocks) {
        const uint8_t* tiles[kFloatBlocks];
        for (int64_t b = 0; b < kFloatBlocks; ++b) {
          tiles[b] = keys + std::min(i + b, count_ - 1) * block_stride;
        }
        ScoreFloat<kTile, kRows, kFetch>(q, layout_.padded_dim, tiles, FetchWithScores(i),
                                         scores + i * kTileLanes, step_keys_);
      }
    }
  }

  // Blocks behind the last are computed as the last once more: step_keys_ is a multiple of
  // what is taken at once, so their scores have room, and nothing reads them.
  template <DType kTile, int kRows, bool kAdd, bool kFetch>
  HWY_INLINE void ScoreIntegerRows(const int32_t* words, const int32_t* starts,
                                   const uint8_t* keys, int64_t block_stride, float factor,
                                   float* scores) {
    constexpr int64_t kBlocks = IntegerBlocks<kRows>();
    for (int64_t i = 0; i < count_; i += kBlocks) {
      const uint8_t* tiles[kBlocks];
      for (int64_t b = 0; b < kBlocks; ++b) {
        tiles[b] = keys + std::min(i + b, count_ - 1) * block_stride;
      }
      float* to = scores + i * kTileLanes;
      const float* scales = key_scales_ + i * kTileLanes;
      FetchAhead fetch = FetchWithScores(i);
      ScoreInteger<kTile, kRows, kBlocks, kAdd, kFetch>(words, starts, columns_, tiles, fetch,
                                                        scales, factor, to, step_keys_);
      for (int64_t g = 1; g < layout_.groups; ++g) {
        for (const uint8_t*& tile : tiles) tile += TileBytes(kTile, columns_);
        fetch.at += kBlocks * TileBytes(kTile, columns_);
        ScoreInteger<kTile, kRows, kBlocks, true, kFetch>(
            words + g * columns_ / 2 * kRows, starts + 2 * g * kRows, columns_, tiles, fetch,
            scales + g * step_keys_, factor, to, step_keys_);
      }
    }
  }

  // ---- softmax ----

  // How many of the step's keys a row may see.
  int64_t Visible(int64_t row) const {
    return std::clamp<int64_t>(row_end_[row] - step_, 0, count_ * kKvBlockTokens);
  }

  void Softmax() {
    const bool fold = kQuantized && layout_.groups == 1;
    for (int64_t row = 0; row < b_.rows(); ++row) {
      const RowSoftmax state = {state_.max + row, row_sums_ + row * kTileLanes,
                                state_.acc + row * layout_.padded_dim, layout_.padded_dim};
      float* s = scores_ + row * step_keys_;
      const int64_t length = count_ * kKvBlockTokens;
      if (fold) {
        SoftmaxRow<true>(state, row_scale_[row], s, Visible(row), length, value_scales_);
      } else {
        SoftmaxRow<false>(state, row_scale_[row], s, Visible(row), length, nullptr);
      }
    }
  }

  // ---- values ----

  void Values() {
    if constexpr (!kQuantized) {
      // Blocks that every row sees whole; rows see more and more.
      const int64_t whole = Visible(0) / kKvBlockTokens;
      AddBlocks(0, whole);
      for (int64_t i = whole; i < count_; ++i) ValueTail(i);
    } else {
      AddBlocks(0, count_);
    }
  }

  const uint8_t* ValuesOf(int64_t block) const {
    return blocks_ + block * layout_.bytes + layout_.values;
  }

  // Adds blocks [begin, end) of the step, of which every row sees the whole or weighs the
  // rest with 0.
  void AddBlocks(int64_t begin, int64_t end) {
    if (begin >= end) return;
    if (ManyRows() && kType != DType::kF32) {
      for (int64_t i = begin; i < end; ++i) {
        DecodePanel<kType>(ValuesOf(i), layout_.padded_dim, panel_ + (i - begin) * PanelFloats());
      }
      AddPanel(begin, end);
    } else {
      AddTiles<kType>(begin, end, ValuesOf(begin), layout_.bytes);
    }
  }

  int64_t PanelFloats() const { return layout_.padded_dim * kTileLanes; }  // of a block

  void AddPanel(int64_t begin, int64_t end) {
    AddTiles<DType::kF32>(begin, end, reinterpret_cast<const uint8_t*>(panel_), 4 * PanelFloats());
  }

  // Adds values of type kTile to all rows; tiles: those of the first block.
  template <DType kTile>
  void AddTiles(int64_t begin, int64_t end, const uint8_t* tiles, int64_t block_stride) {
    for (int64_t row = 0; row < b_.rows();) {
      const int64_t left = b_.rows() - row;
      int64_t chunk = RowChunk(left);
      if (!ManyRows()) {
        switch (chunk) {
          case 4: AddRows<kTile, 4, kFewRowsStep>(row, begin, end, tiles, block_stride); break;
          case 2: AddRows<kTile, 2, kFewRowsStep>(row, begin, end, tiles, block_stride); break;
          default: AddRows<kTile, 1, kFewRowsStep>(row, begin, end, tiles, block_stride); break;
        }
      } else if constexpr (kTile == DType::kF32) {
        if (left >= 8) chunk = 8;
        switch (chunk) {
          case 8: AddRows<kTile, 8, kManyRowsStep>(row, begin, end, tiles, block_stride); break;
          case 4: AddRows<kTile, 4, kManyRowsStep>(row, begin, end, tiles, block_stride); break;
          case 2: AddRows<kTile, 2, kManyRowsStep>(row, begin, end, tiles, block_stride); break;
          default: AddRows<kTile, 1, kManyRowsStep>(row, begin, end, tiles, block_stride); break;
        }
      }
      row += chunk;
    }
  }

  template <DType kTile, int kRows, int kStep>
  void AddRows(int64_t row, int64_t begin, int64_t end, const uint8_t* tiles,
               int64_t block_stride) {
    const float* weights = scores_ + row * kStep;
    float* acc = state_.acc + row * layout_.padded_dim;
    const int64_t count = columns_ / kTileLanes;
    FetchAhead fetch = FetchWithValues();
    for (int64_t g = 0;; ++g) {
      if (layout_.groups > 1) weights = FoldScales(row, kRows, g);
      AddAllTiles<kTile, kRows, kStep, kStep == kFewRowsStep>(
          weights + begin * kKvBlockTokens, tiles, block_stride, count, end - begin, fetch, acc,
          layout_.padded_dim);
      if (g + 1 >= layout_.groups) break;
      tiles += count * TileBytes(kTile, kKvBlockTokens);
      fetch.at += count * (end - begin) * TileBytes(kTile, kKvBlockTokens) ;
      acc += columns_;
    }
  }

  // folded_[rows][step] = softmax weights times the value scales of a group.
  const float* FoldScales(int64_t row, int64_t rows, int64_t group) {
    const TileF df;
    const float* scales = value_scales_ + group * step_keys_;
    for (int64_t r = 0; r < rows; ++r) {
      const float* from = scores_ + (row + r) * step_keys_;
      float* to = folded_ + r * step_keys_;
      const int64_t visible = Visible(row + r), length = count_ * kKvBlockTokens;
      for (int64_t i = 0; i < length; i += static_cast<int64_t>(hn::Lanes(df))) {
        const int64_t seen = std::clamp<int64_t>(visible - i, 0, hn::Lanes(df));
        const VF product = hn::Mul(hn::LoadU(df, from + i), hn::LoadU(df, scales + i));
        hn::StoreU(hn::IfThenElseZero(hn::FirstN(df, static_cast<size_t>(seen)), product), df,
                   to + i);
      }
    }
    return folded_;
  }

  // Adds a block that some row does not see to its end: values that no row sees are taken as
  // 0, and where another is not finite, the rows that do not see it must not multiply it.
  void ValueTail(int64_t block) {
    const int64_t first = block * kKvBlockTokens;
    const int64_t least = std::clamp<int64_t>(Visible(0) - first, 0, kKvBlockTokens);
    const int64_t most =
        std::clamp<int64_t>(Visible(b_.rows() - 1) - first, 0, kKvBlockTokens);
    if (most == 0) return;
    DecodePanel<kType>(ValuesOf(block), layout_.padded_dim, panel_);
    bool finite = true;
    for (int64_t tile = 0; tile < layout_.padded_dim; tile += kTileLanes) {
      float* values = panel_ + tile * kKvBlockTokens;
      std::fill(values + most * kTileLanes, values + kKvBlockTokens * kTileLanes, 0.0f);
      for (int64_t i = least * kTileLanes; i < most * kTileLanes; ++i) {
        finite = finite && std::isfinite(values[i]);
      }
    }
    if (finite) return AddPanel(block, block + 1);
    const TileF df;
    for (int64_t row = 0; row < b_.rows(); ++row) {
      const int64_t visible = std::clamp<int64_t>(Visible(row) - first, 0, kKvBlockTokens);
      const float* weights = scores_ + row * step_keys_ + first;
      float* acc = state_.acc + row * layout_.padded_dim;
      for (int64_t i = 0; i < layout_.padded_dim; i += static_cast<int64_t>(hn::Lanes(df))) {
        const float* tile = panel_ + i / kTileLanes * kTileLanes * kKvBlockTokens;
        const float* values = tile + i % kTileLanes;
        VF sum = hn::LoadU(df, acc + i);
        for (int64_t t = 0; t < visible; ++t) {
          const VF v = hn::LoadU(df, values + t * kTileLanes);
          sum = hn::MulAdd(hn::Set(df, weights[t]), v, sum);
        }
        hn::StoreU(sum, df, acc + i);
      }
    }
  }

  const QueryBlock& b_;
  const KvBlockLayout& layout_;
  const SoftmaxState state_;
  float* queries_;
  float* row_scale_;
  int64_t* row_end_;
  int32_t* rest_row_;  // rows whose queries have rests,
  int64_t rest_rows_ = 0;  // so many
  float* row_sums_;
  int32_t* starts_;
  int32_t* rest_starts_;
  float* scores_;
  float* key_scales_;
  float* value_scales_;
  float* folded_;
  float* panel_;
  int64_t step_keys_;
  int64_t columns_;            // of a scale group; P where there is one, or none
  int64_t step_ = 0;           // the first key of the current step,
  int64_t count_ = 0;          // its blocks,
  const uint8_t* blocks_ = nullptr;  // and the first of them
  const uint8_t* next_ = nullptr;    // the first block of the next step
};

void AttendQueryBlock(const QueryBlock& block, float* scratch, const SoftmaxState& state) {
  switch (block.cache->shape().type) {
    case DType::kI4: return BlockAttention<DType::kI4>(block, scratch, state).Run();
    case DType::kI8: return BlockAttention<DType::kI8>(block, scratch, state).Run();
    case DType::kBF16: return BlockAttention<DType::kBF16>(block, scratch, state).Run();
    default: return BlockAttention<DType::kF32>(block, scratch, state).Run();
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(AttendQueryBlock);

int64_t QueryBlockScratch(int64_t rows, int64_t padded_dim) {
  // Fewer rows may take more, since their steps are longer.
  return std::max(ScratchParts(rows, padded_dim).total,
                  ScratchParts(std::min(rows, kFewRows), padded_dim).total);
}

void AttendQueryBlock(const QueryBlock& block, float* scratch, const SoftmaxState& state) {
  HWY_DYNAMIC_DISPATCH(AttendQueryBlock)(block, scratch, state);
}

}  // namespace nibble
#endif  // HWY_ONCE
