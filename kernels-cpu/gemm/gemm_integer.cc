// SPDX-License-Identifier: Apache-2.0
//
// Integer weights (I4, I8, E2M3) times activations held as bytes (A8I, A8F): dot products of
// four bytes a lane (VNNI's vpdpbusd, or what stands in for it: byte_dot-inl.h).
//
//        x[line][k..k+3], four signed bytes, broadcast to 16 lanes
//     *  four unsigned bytes a lane: columns k..k+3 of weight rows n..n+15 (a quad)
//     -> sum[line][n..n+15], 32-bit
//
// The instruction wants one unsigned operand, so weights are stored as q + 8 (I4), q + 128
// (I8), or turned into 8 w + 64 (E2M3: multiples of 1/8 up to 7.5), and a sum starts at
// minus that offset times the sum of the segment's x instead of at 0.
//
// A row of A8I is one line. A row of A8F is two, the high and the low digits of its values
// (e4m3_digits.h); 256 times the first sum plus the second is the sum of the row, but for
// the rests, which a short list adds.
//
//   one tile     quads come from memory through registers: 4 streams of panels for 1..4 lines, 2
//                for more; above 12 lines in two parts
//   more tiles   a segment of two panels is turned into bytes once, 8 KiB, and serves all tiles
//                of 12 lines x 2 panels: 24 sums
//
// Overflow. A segment has at most 256 columns. One line: |sum| <= 256 * 255 * 128 < 2^23,
// and with the correction < 2^24. Two lines: 256 high + low is the sum of at most 256
// products of |q| <= 128 with |h| <= 28672, < 2^30; in between only 256 times the sum of
// the high digits counts, |high| <= 112, < 2^30 as well. Rests: 256 * 255 * 4 < 2^18. All
// exact in I32. The conversion to F32, the product with the group's scale and the sum over
// segments and rests round, each at most once a column: below (K + 3) * 2^-24 * sum|terms|.
#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/gemm/gemm_integer.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "hwy/cache_control.h"
#include "kernels-cpu/gemm/gemm_kernels.h"
#include "kernels-cpu/numerics/byte_dot-inl.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {  // the same names in other files are other functions

constexpr int64_t kQuadBytes = 64;  // of 16 lanes

// ---- sources of quads ----
//
// Quad<kQuad>(chunk, lane): columns 4 kQuad .. 4 kQuad + 3 of a chunk of 16 columns, from
// lane `lane` on, as unsigned bytes.

HWY_INLINE VU8 LowNibbles(VU word) {
  return hn::BitCast(TileU8(), hn::And(word, hn::Set(TileU(), 0x0F0F0F0Fu)));
}

struct I4Source {
  static constexpr DType kType = DType::kI4;
  static constexpr int64_t kChunkBytes = TileBytes(DType::kI4, kTileColumns);
  static constexpr int32_t kOffset = 8;
  static constexpr bool kSevenBits = true;  // no byte is above 127
  static constexpr bool kDecodes = true;    // quads are not simply loaded
  template <int kQuad>
  HWY_INLINE VU8 Quad(const uint8_t* chunk, size_t lane) const {
    const VU word = LoadWords(chunk + kQuad / 2 * kQuadBytes, lane);
    return LowNibbles(kQuad % 2 == 0 ? word : hn::ShiftRight<4>(word));
  }
};

template <int32_t kBias, bool kSmall>
struct ByteSource {
  static constexpr int64_t kChunkBytes = 4 * kQuadBytes;
  static constexpr int32_t kOffset = kBias;
  static constexpr bool kSevenBits = kSmall;
  static constexpr bool kDecodes = false;
  template <int kQuad>
  HWY_INLINE VU8 Quad(const uint8_t* chunk, size_t lane) const {
    return hn::BitCast(TileU8(), LoadWords(chunk + kQuad * kQuadBytes, lane));
  }
};
struct I8Source : ByteSource<128, false> {
  static constexpr DType kType = DType::kI8;
};

// 8 w + 64 of a code of E2M3: magnitudes 0..15 are themselves, 16..23 twice 8..15, 24..31
// four times.
struct E2M3Source {
  static constexpr DType kType = DType::kE2M3;
  static constexpr int64_t kChunkBytes = TileBytes(DType::kE2M3, kTileColumns);
  static constexpr int32_t kOffset = 64;
  static constexpr bool kSevenBits = true;
  static constexpr bool kDecodes = true;

#if NIBBLE_SIX_BIT_LOOKUP
  VU8 table;
  E2M3Source() {
    HWY_ALIGN uint8_t values[64];
    for (int code = 0; code < 64; ++code) {
      const int m = code % 8, e = code / 8 % 4;
      const int magnitude = e == 0 ? m : (8 + m) << (e - 1);
      values[code] = static_cast<uint8_t>(code < 32 ? 64 + magnitude : 64 - magnitude);
    }
    table = hn::Load(TileU8(), values);
  }
  template <int kQuad>
  HWY_INLINE VU8 Quad(const uint8_t* chunk, size_t lane) const {
    return LookUpSixBits(table, SixBitQuad<kQuad>(chunk, lane));
  }
#else
  template <int kQuad>
  HWY_INLINE VU8 Quad(const uint8_t* chunk, size_t lane) const {
    const TileU8 d8;
    const VU8 code = SixBitQuad<kQuad>(chunk, lane);
    const VU8 magnitude = hn::And(code, hn::Set(d8, 31));
    const VU8 sixteen = hn::And(code, hn::Set(d8, 7));
    const VU8 eight = hn::Or(sixteen, hn::Set(d8, 8));
    const VU8 twice = hn::Add(eight, eight), four = hn::Add(twice, twice);
    VU8 value = hn::IfThenElse(hn::Gt(magnitude, hn::Set(d8, 15)), twice, magnitude);
    value = hn::IfThenElse(hn::Gt(magnitude, hn::Set(d8, 23)), four, value);
    const auto negative = hn::Ne(hn::And(code, hn::Set(d8, 32)), hn::Zero(d8));
    const VU8 bias = hn::Set(d8, 64);
    return hn::IfThenElse(negative, hn::Sub(bias, value), hn::Add(bias, value));
  }
#endif
};

// ---- dot products ----

template <ByteDotUnit kUnit, bool kSevenBits>
HWY_INLINE VI Dot(VU8 w, VI8 x, VI sum) {
  return kSevenBits ? SevenBitDot<kUnit>(w, x, sum) : ByteDot<kUnit>(w, x, sum);
}

// Four activations for every lane.
HWY_INLINE VI8 Broadcast(const int8_t* x) {
  int32_t bits;
  std::memcpy(&bits, x, sizeof(bits));
  return hn::BitCast(TileI8(), hn::Set(TileI(), bits));
}

// One quad of columns: kLines lines times kVecs vectors of weights.
template <ByteDotUnit kUnit, int kQuad, int kLines, int kVecs, class Source>
HWY_INLINE void AddQuad(const Source& source, const uint8_t* const (&w)[kVecs],
                        const size_t (&lane)[kVecs], const int8_t* x, VI (&sum)[kLines * kVecs]) {
  VU8 u[kVecs];
  NIBBLE_UNROLL
  for (int v = 0; v < kVecs; ++v) u[v] = source.template Quad<kQuad>(w[v], lane[v]);
  NIBBLE_UNROLL
  for (int line = 0; line < kLines; ++line) {
    const VI8 xv = Broadcast(x + 4 * line);
    NIBBLE_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      VI& s = sum[line * kVecs + v];
      s = Dot<kUnit, Source::kSevenBits>(u[v], xv, s);
    }
  }
}

// What a register tile reads and adds to.
template <int kVecs>
struct TileOperands {
  const uint8_t* codes[kVecs];   // the segment's, of each vector's panel
  const uint8_t* scales[kVecs];  // the segment's 16
  size_t lane[kVecs];            // first lane of each vector
  float* acc[kVecs];             // of the tile's first row
  const int8_t* x;               // of the tile's first line, the segment's first column
  int64_t x_step;                // from a quad of columns to the next
  const int32_t* start;          // [kLines] what the sums start at
  DType scale_type;
  int64_t columns;
  WeightsAhead* ahead;  // a step for each chunk
};

// acc += scales * (codes times x), for one segment.
template <ByteDotUnit kUnit, int kDigits, int kLines, int kVecs, class Source>
HWY_INLINE void RegisterTile(const Source& source, const TileOperands<kVecs>& o) {
  const TileI di;
  const TileF df;
  const uint8_t* w[kVecs];
  size_t lane[kVecs];
  VI sum[kLines * kVecs];
  NIBBLE_UNROLL
  for (int v = 0; v < kVecs; ++v) {
    w[v] = o.codes[v];
    lane[v] = o.lane[v];
  }
  NIBBLE_UNROLL
  for (int line = 0; line < kLines; ++line) {
    NIBBLE_UNROLL
    for (int v = 0; v < kVecs; ++v) sum[line * kVecs + v] = hn::Set(di, o.start[line]);
  }
  const int8_t* x = o.x;
  for (int64_t k = 0; k < o.columns; k += kTileColumns) {
    o.ahead->Step();
    AddQuad<kUnit, 0, kLines, kVecs>(source, w, lane, x, sum);
    AddQuad<kUnit, 1, kLines, kVecs>(source, w, lane, x + o.x_step, sum);
    AddQuad<kUnit, 2, kLines, kVecs>(source, w, lane, x + 2 * o.x_step, sum);
    AddQuad<kUnit, 3, kLines, kVecs>(source, w, lane, x + 3 * o.x_step, sum);
    x += 4 * o.x_step;
    NIBBLE_UNROLL
    for (int v = 0; v < kVecs; ++v) w[v] += Source::kChunkBytes;
  }
  NIBBLE_UNROLL
  for (int v = 0; v < kVecs; ++v) {
    const VF scale = LoadScales(o.scale_type, o.scales[v], o.lane[v]);
    NIBBLE_UNROLL
    for (int r = 0; r < kLines / kDigits; ++r) {
      VI s = sum[r * kDigits * kVecs + v];
      if constexpr (kDigits == 2) {
        s = hn::Add(hn::ShiftLeft<8>(s), sum[(2 * r + 1) * kVecs + v]);
      }
      float* to = o.acc[v] + r * kUnitColumns;
      hn::StoreU(hn::MulAdd(hn::ConvertTo(df, s), scale, hn::LoadU(df, to)), df, to);
    }
  }
}

// ---- a tile of lines with a segment of some panels ----

// Lines that the registers hold sums of, for two vectors of outputs each.
constexpr int kMostLines = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64 ? 12 : 6;
// Lines of a tile up to which each part of it decodes its quads for itself: where a dot product
// is one instruction that pays for two parts.
constexpr int64_t kDirectLines =
    HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL ? kMostTileLines : kTileLines;

// Vectors of a register tile; wide: four streams of panels, for few lines all at once.
constexpr int Vectors(int64_t lines, bool wide) {
  return wide && kMostLines == 12 && lines <= 4 ? 4 : 2;
}
// Lines of the parts of a tile of lines, as even as can be.
template <int kDigits>
int64_t PartLines(int64_t lines) {
  return RoundUp(DivUp(lines, DivUp(lines, kMostLines)), kDigits);
}
// How often a tile of lines passes over a segment of so many panels.
template <int kDigits>
int64_t Passes(int64_t lines, int64_t panels, bool wide) {
  const int64_t part = PartLines<kDigits>(lines);
  const int64_t vectors = panels * static_cast<int64_t>(kTileLanes / hn::Lanes(TileI()));
  return DivUp(lines, part) * vectors / Vectors(part, wide);
}

// A segment of a panel set, and one tile of lines.
struct SegmentTile {
  const Segment* segment;
  const uint8_t* codes[kUnitPanels];
  const uint8_t* scales[kUnitPanels];
  int64_t panels;         // a multiple of 2
  int first_panel;        // column of acc
  DType scale_type;
  int64_t lines;          // of the tile
  const int8_t* x;
  const int32_t* start;
  float* acc;
  WeightsAhead* ahead;
};

template <ByteDotUnit kUnit, int kDigits, int kLines, bool kWide, class Source>
HWY_INLINE void AllVectors(const Source& source, const SegmentTile& t, int64_t first_line) {
  constexpr int kVecs = Vectors(kLines, kWide);
  const size_t lanes = hn::Lanes(TileI());
  const int64_t vectors = t.panels * static_cast<int64_t>(kTileLanes / lanes);
  for (int64_t base = 0; base < vectors; base += kVecs) {
    TileOperands<kVecs> o;
    NIBBLE_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      const size_t at = static_cast<size_t>(base + v) * lanes;
      const size_t panel = at / kTileLanes;
      o.lane[v] = at % kTileLanes;
      o.codes[v] = t.codes[panel];
      o.scales[v] = t.scales[panel];
      o.acc[v] = t.acc + first_line / kDigits * kUnitColumns +
                 (t.first_panel + panel) * kPanelRows + o.lane[v];
    }
    o.x = t.x + 4 * first_line;
    o.x_step = 4 * t.lines;
    o.start = t.start + first_line;
    o.scale_type = t.scale_type;
    o.columns = t.segment->columns;
    o.ahead = t.ahead;
    RegisterTile<kUnit, kDigits, kLines, kVecs>(source, o);
  }
}

template <ByteDotUnit kUnit, int kDigits, int kLines, bool kWide, class Source>
void Lines(const Source& source, const SegmentTile& t, int64_t first, int64_t lines) {
  if (lines == kLines) {
    AllVectors<kUnit, kDigits, kLines, kWide>(source, t, first);
  } else if constexpr (kLines > kDigits) {
    Lines<kUnit, kDigits, kLines - kDigits, kWide>(source, t, first, lines);
  }
}

// kWide: t has four panels, each a stream from memory.
template <ByteDotUnit kUnit, int kDigits, bool kWide, class Source>
void AllLines(const Source& source, const SegmentTile& t) {
  const int64_t step = PartLines<kDigits>(t.lines);
  for (int64_t first = 0; first < t.lines; first += step) {
    Lines<kUnit, kDigits, kMostLines, kWide>(source, t, first, std::min(step, t.lines - first));
  }
}

// ---- the parts around the dense sums ----

// What the sums of a tile's lines start at: minus the weights' offset times the sum of the
// segment's activations. Asks for what the tile's next segment needs: it comes up after all
// other tiles have used this one, by then often out of the first-level cache.
// start: room for kMostTileLines rounded up to a vector.
HWY_INLINE void Starts(const PreparedInput& input, int64_t tile, int64_t lines, const Segment& s,
                       int32_t offset, int32_t* start) {
  const TileI di;
  const int32_t* sums = input.sums + tile * input.tile_lines * input.blocks();
  const int32_t* from = sums + s.column / 16 * lines;
  const int32_t* to = from + s.columns / 16 * lines;
  for (int64_t i = 0; i < lines; i += static_cast<int64_t>(hn::Lanes(di))) {
    const VI sum = hn::Sub(hn::LoadU(di, to + i), hn::LoadU(di, from + i));
    hn::StoreU(hn::Mul(sum, hn::Set(di, -offset)), di, start + i);
  }
  hwy::Prefetch(to + s.columns / 16 * lines);
}

// The quad at column k (a multiple of 4) of a segment's codes.
template <class Source>
HWY_INLINE VU8 QuadAt(const Source& source, const uint8_t* codes, int64_t k, size_t lane) {
  const uint8_t* chunk = codes + k / 16 * Source::kChunkBytes;
  switch (k / 4 % 4) {
    case 0: return source.template Quad<0>(chunk, lane);
    case 1: return source.template Quad<1>(chunk, lane);
    case 2: return source.template Quad<2>(chunk, lane);
    default: return source.template Quad<3>(chunk, lane);
  }
}
template <int32_t kBias, bool kSmall>
HWY_INLINE VU8 QuadAt(const ByteSource<kBias, kSmall>&, const uint8_t* codes, int64_t k,
                      size_t lane) {
  return hn::BitCast(TileU8(), LoadWords(codes + k / 4 * kQuadBytes, lane));
}

// The rests of a tile in one segment: acc += scales * (codes times rests). A row with outliers
// has several rests in a segment, so their products are summed as integers first.
template <ByteDotUnit kUnit, class Source>
HWY_INLINE void AddRests(const Source& source, const PreparedInput& input, int64_t tile,
                         const Segment& s, const uint8_t* const* codes,
                         const uint8_t* const* scales, int64_t panels, DType scale_type,
                         float* acc) {
  const TileI di;
  const TileF df;
  const size_t lanes = hn::Lanes(di);
  const uint32_t* counts = input.rest_counts + tile * input.blocks() + s.column / 16;
  const uint32_t first = counts[0], last = counts[s.columns / 16];
  if (first == last) return;
  const RowRest* rests = input.rests + tile * input.most_rests();
  const VF unit = hn::Set(df, kE4M3RestUnit);
  if (last - first == 1) {  // the rule among those of normal rows: no sums to keep
    const RowRest& rest = rests[first];
    const VI8 x = Broadcast(rest.quad.rest);
    const VI start = hn::Set(di, -Source::kOffset * rest.sum);
    const int64_t k = rest.quad.column - s.column;
    float* to = acc + rest.row * kUnitColumns;
    for (int64_t p = 0; p < panels; ++p, to += kPanelRows) {
      for (size_t lane = 0; lane < kTileLanes; lane += lanes) {
        const VU8 w = QuadAt(source, codes[p], k, lane);
        const VF sum = hn::ConvertTo(df, Dot<kUnit, Source::kSevenBits>(w, x, start));
        const VF scale = hn::Mul(LoadScales(scale_type, scales[p], lane), unit);
        hn::StoreU(hn::MulAdd(sum, scale, hn::LoadU(df, to + lane)), df, to + lane);
      }
    }
    return;
  }
  const int tile_rows = static_cast<int>(input.tile_rows());
  HWY_ALIGN int32_t sums[kMostTileLines / 2 * kUnitColumns];
  const int64_t columns = panels * kPanelRows;
  for (int r = 0; r < tile_rows; ++r) {
    for (int64_t c = 0; c < columns; c += static_cast<int64_t>(lanes)) {
      hn::Store(hn::Zero(di), di, sums + r * kUnitColumns + c);
    }
  }
  uint32_t rows = 0;  // bit r: row r has a rest
  for (uint32_t i = first; i < last; ++i) {
    const RowRest& rest = rests[i];
    rows |= 1u << rest.row;
    int32_t* to = sums + rest.row * kUnitColumns;
    const VI8 x = Broadcast(rest.quad.rest);
    const VI offset = hn::Set(di, -Source::kOffset * rest.sum);
    const int64_t k = rest.quad.column - s.column;
    for (int64_t p = 0; p < panels; ++p, to += kPanelRows) {
      for (size_t lane = 0; lane < kTileLanes; lane += lanes) {
        const VI start = hn::Add(hn::Load(di, to + lane), offset);
        const VU8 w = QuadAt(source, codes[p], k, lane);
        hn::Store(Dot<kUnit, Source::kSevenBits>(w, x, start), di, to + lane);
      }
    }
  }
  for (int64_t p = 0; p < panels; ++p) {
    for (size_t lane = 0; lane < kTileLanes; lane += lanes) {
      const VF scale = hn::Mul(LoadScales(scale_type, scales[p], lane), unit);
      for (int r = 0; r < tile_rows; ++r) {
        if ((rows >> r & 1) == 0) continue;
        const int64_t at = r * kUnitColumns + p * kPanelRows + static_cast<int64_t>(lane);
        const VF sum = hn::ConvertTo(df, hn::Load(di, sums + at));
        hn::StoreU(hn::MulAdd(sum, scale, hn::LoadU(df, acc + at)), df, acc + at);
      }
    }
  }
}

const uint8_t* ScalesOf(const PackedMatrix& m, const Segment& s, int64_t panel) {
  return m.panel(panel) + s.scales_offset;
}
const uint8_t* CodesOf(const PackedMatrix& m, const Segment& s, int64_t panel) {
  return m.panel(panel) + s.codes_offset;
}

const int8_t* TileCodes(const PreparedInput& input, int64_t tile, int64_t lines, const Segment& s) {
  return input.codes + tile * input.tile_lines * input.stride + s.column * lines;
}

// ---- one tile ----

template <ByteDotUnit kUnit, int kDigits, class Source>
void OneTile(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input,
              float* acc) {
  const Source source;
  const int64_t lines = input.lines();
  std::fill(acc, acc + input.rows * kUnitColumns, 0.0f);
  int32_t start[RoundUp(kMostTileLines, 16)];
  SegmentTile t;
  t.panels = RoundUp(panels.count, 2);
  WeightsAhead ahead(m, panels, 0, t.panels, m.segments[0].columns,
                     Passes<kDigits>(lines, t.panels, t.panels == 4));
  t.ahead = &ahead;
  t.first_panel = 0;
  t.scale_type = m.format.scale;
  t.lines = lines;
  t.start = start;
  t.acc = acc;
  for (const Segment& s : m.segments) {
    t.segment = &s;
    for (int64_t p = 0; p < kUnitPanels; ++p) {
      t.codes[p] = CodesOf(m, s, panels.index[p]);
      t.scales[p] = ScalesOf(m, s, panels.index[p]);
    }
    t.x = TileCodes(input, 0, lines, s);
    Starts(input, 0, lines, s, Source::kOffset, start);
    if (t.panels == 4) {
      AllLines<kUnit, kDigits, true>(source, t);
    } else {
      AllLines<kUnit, kDigits, false>(source, t);
    }
    if constexpr (kDigits == 2) {
      AddRests<kUnit>(source, input, 0, s, t.codes, t.scales, panels.count, m.format.scale, acc);
    }
  }
}

// ---- more tiles: bytes of a segment, decoded once, serve all ----

// [columns / 4][16 lanes][4] unsigned bytes of a segment: I8 as it stands.
template <class Source>
const uint8_t* SegmentBytes(const Source& source, const uint8_t* codes, int64_t columns,
                            uint8_t* scratch) {
  if constexpr (!Source::kDecodes) return codes;
  const TileU8 d8;
  uint8_t* to = scratch;
  for (int64_t k = 0; k < columns; k += kTileColumns, codes += Source::kChunkBytes) {
    for (size_t lane = 0; lane < kTileLanes; lane += hn::Lanes(TileI())) {
      hn::StoreU(source.template Quad<0>(codes, lane), d8, to + 4 * lane);
      hn::StoreU(source.template Quad<1>(codes, lane), d8, to + kQuadBytes + 4 * lane);
      hn::StoreU(source.template Quad<2>(codes, lane), d8, to + 2 * kQuadBytes + 4 * lane);
      hn::StoreU(source.template Quad<3>(codes, lane), d8, to + 3 * kQuadBytes + 4 * lane);
    }
    to += 4 * kQuadBytes;
  }
  return scratch;
}

// What the pairs of panels of a unit meet.
struct Tiles {
  const PreparedInput& input;
  int64_t first, count;
  DType scale_type;
  uint8_t* scratch;
  float* acc;  // of the first tile's first row
};

// acc += one segment of panels `pair` and `pair` + 1 times all tiles.
template <ByteDotUnit kUnit, int kDigits, class Source>
void PairSegment(const Source& source, const PackedMatrix& m, const Segment& s,
                 const PanelSet& panels, int64_t pair, const Tiles& tiles, WeightsAhead* ahead) {
  const ByteSource<Source::kOffset, Source::kSevenBits> bytes;
  const PreparedInput& input = tiles.input;
  int32_t start[RoundUp(kMostTileLines, 16)];
  SegmentTile t;
  t.segment = &s;
  t.panels = 2;
  t.first_panel = static_cast<int>(pair);
  t.scale_type = tiles.scale_type;
  t.start = start;
  t.ahead = ahead;
  for (int64_t p = 0; p < 2; ++p) {
    t.scales[p] = ScalesOf(m, s, panels.index[pair + p]);
    t.codes[p] = SegmentBytes(source, CodesOf(m, s, panels.index[pair + p]), s.columns,
                              tiles.scratch + p * kMaxSegment * kPanelRows);
  }
  for (int64_t i = 0; i < tiles.count; ++i) {
    const int64_t tile = tiles.first + i;
    t.lines = input.RowsOf(tile) * kDigits;
    t.x = TileCodes(input, tile, t.lines, s);
    t.acc = tiles.acc + i * input.tile_rows() * kUnitColumns;
    Starts(input, tile, t.lines, s, Source::kOffset, start);
    AllLines<kUnit, kDigits, false>(bytes, t);
    if constexpr (kDigits == 2) {
      AddRests<kUnit>(bytes, input, tile, s, t.codes, t.scales, 2, tiles.scale_type,
                      t.acc + pair * kPanelRows);
    }
  }
}

template <ByteDotUnit kUnit, int kDigits, class Source>
void MoreTiles(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input,
               int64_t row, int64_t rows, const Destination& destination, uint8_t* scratch,
               float* acc) {
  const Source source;
  const Tiles tiles = {input,   row / input.tile_rows(), DivUp(rows, input.tile_rows()),
                       m.format.scale, scratch, acc};
  const int64_t pairs = DivUp(panels.count, 2);
  const int64_t passes =
      tiles.count * Passes<kDigits>(input.RowsOf(tiles.first) * kDigits, 2, false);
  std::fill(acc, acc + rows * kUnitColumns, 0.0f);
  if (input.few()) {  // segments of the four streams in turn
    WeightsAhead ahead(m, panels, 0, 2 * pairs, m.segments[0].columns, pairs * passes);
    for (const Segment& s : m.segments) {
      for (int64_t pair = 0; pair < 2 * pairs; pair += 2) {
        PairSegment<kUnit, kDigits>(source, m, s, panels, pair, tiles, &ahead);
      }
    }
    return;
  }
  int64_t asked = 0;
  for (int64_t pair = 0; pair < 2 * pairs; pair += 2) {
    WeightsAhead ahead(m, panels, pair, 2, m.segments[0].columns, passes);
    for (const Segment& s : m.segments) {
      for (int64_t i = 0; i < tiles.count && asked < rows; ++i) destination.Prefetch(asked++);
      PairSegment<kUnit, kDigits>(source, m, s, panels, pair, tiles, &ahead);
    }
  }
}

// ---- choice ----

template <ByteDotUnit kUnit, int kDigits, class Source>
void Unit(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input, int64_t row,
          int64_t rows, const Destination& destination, uint8_t* scratch, float* acc) {
  if (input.tiles() == 1 && input.lines() <= kDirectLines) {
    OneTile<kUnit, kDigits, Source>(m, panels, input, acc);
  } else {
    MoreTiles<kUnit, kDigits, Source>(m, panels, input, row, rows, destination, scratch, acc);
  }
}

template <ByteDotUnit kUnit, class Source>
UnitKernel UnitFor(const PreparedInput& input) {
  return input.digits == 2 ? &Unit<kUnit, 2, Source> : &Unit<kUnit, 1, Source>;
}

}  // namespace

void IntegerUnit(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input,
                 int64_t row, int64_t rows, const Destination& destination, uint8_t* scratch,
                 float* acc) {
  WithByteDotUnit([&](auto unit) HWY_ATTR {
    constexpr ByteDotUnit kUnit = decltype(unit)::value;
    const auto kernel = m.format.code == DType::kI4     ? UnitFor<kUnit, I4Source>(input)
                        : m.format.code == DType::kI8 ? UnitFor<kUnit, I8Source>(input)
                                                      : UnitFor<kUnit, E2M3Source>(input);
    kernel(m, panels, input, row, rows, destination, scratch, acc);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(IntegerUnit);
UnitKernel IntegerUnitKernel() { return HWY_DYNAMIC_POINTER(IntegerUnit); }
}  // namespace nibble
#endif
