// SPDX-License-Identifier: Apache-2.0
//
// Weights that are exact in BF16 times activations that are (A16, A8F), many rows, by the
// dot products of AVX512-BF16.
//
//        x[row][k..k+1], two BF16, broadcast to 16 lanes
//     *  two BF16 a lane: columns k..k+1 of weight rows n..n+15
//     -> sum[row][n..n+15], F32
//
// A segment of two panels is decoded once, 16 KiB of pairs (BF16 weights lie in their
// panels as they are needed), and serves all tiles of 12 rows x 2 panels: 24 sums.
//
// Precision. I4, I8, FP8, FP6 and BF16 codes have at most 8 significant bits, as A16 and
// A8F values do: products are exact in F32. vdpbf16ps adds one after the other to the sum,
// rounding to nearest even, and takes denormal operands and results as zero (below 2^-126,
// where a term counts nothing). The group's scale multiplies the finished sum of a segment:
// at most (K + 3) * 2^-24 * sum|terms|, as in gemm_float.cc.
//
// AMD's cores run vdpbf16ps at twice the rate of F32 FMAs, Intel's at half of it (there
// BF16 belongs to AMX): they stay with gemm_float.cc.
#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/gemm/gemm_bf16.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/gemm/gemm_kernels.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

#if HWY_ARCH_X86 && !defined(NIBBLE_GEMM_BF16_ONCE)
#define NIBBLE_GEMM_BF16_ONCE
#include <cpuid.h>
namespace nibble {
namespace {
// Whether the CPU is an Intel that announces AVX512-BF16. (One that hides it runs these
// kernels only where a test or a user forces the target.)
bool SlowBf16() {
  static const bool slow = [] {  // CPUID costs microseconds in a virtual machine
    unsigned a = 0, b = 0, c = 0, d = 0;
    __cpuid(0, a, b, c, d);
    if (b != signature_INTEL_ebx) return false;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 5)) != 0;
  }();
  return slow;
}
}  // namespace
}  // namespace nibble
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3_ZEN4
namespace {  // the same names in other files are other functions

constexpr int64_t kPairBytes = 64;  // of 16 lanes

HWY_INLINE VF Dot(VU w, VU x, VF sum) {
  // Assembler keeps the sum where it is: see gemm_integer.cc.
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
  return sum;
}

// The columns of a segment as pairs, [columns / 2][16 lanes][2].
template <DType kType>
const uint8_t* SegmentPairs(const uint8_t* codes, int64_t columns, uint8_t* scratch) {
  if constexpr (kType == DType::kBF16) return codes;
  const TileU du;
  const TileDecoder<kType> decoder;
  uint8_t* to = scratch;
  for (int64_t k = 0; k < columns; k += kTileColumns, to += kTileColumns / 2 * kPairBytes) {
    VF values[kTileColumns];
    decoder.Chunk(codes + TileBytes(kType, k), 0,
                  [&](size_t i, VF value) HWY_ATTR { values[i] = value; });
    NIBBLE_UNROLL
    for (int i = 0; i < kTileColumns; i += 2) {
      const VU even = hn::ShiftRight<16>(hn::BitCast(du, values[i]));
      const VU odd = hn::And(hn::BitCast(du, values[i + 1]), hn::Set(du, 0xFFFF0000u));
      hn::StoreU(hn::Or(even, odd), du, reinterpret_cast<uint32_t*>(to + i / 2 * kPairBytes));
    }
  }
  return scratch;
}

struct PairTile {
  const uint8_t* w[2];
  VF scale[2];
  int64_t columns;
  const uint16_t* x;  // [columns / 2][rows][2]
  int64_t rows;
  float* acc;
};

template <int kRows>
HWY_INLINE void RegisterTile(const PairTile& t) {
  const TileF df;
  const TileU du;
  VF sum[2 * kRows];
  NIBBLE_UNROLL
  for (int i = 0; i < 2 * kRows; ++i) sum[i] = hn::Zero(df);
  const uint16_t* x = t.x;
  for (int64_t k = 0; k < t.columns / 2; ++k, x += 2 * kRows) {
    const VU u = LoadWords(t.w[0] + k * kPairBytes, 0);
    const VU v = LoadWords(t.w[1] + k * kPairBytes, 0);
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      uint32_t bits;
      std::memcpy(&bits, x + 2 * r, 4);
      const VU xv = hn::Set(du, bits);
      sum[2 * r] = Dot(u, xv, sum[2 * r]);
      sum[2 * r + 1] = Dot(v, xv, sum[2 * r + 1]);
    }
  }
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    float* to = t.acc + r * kUnitColumns;
    hn::StoreU(hn::MulAdd(sum[2 * r], t.scale[0], hn::LoadU(df, to)), df, to);
    to += kPanelRows;
    hn::StoreU(hn::MulAdd(sum[2 * r + 1], t.scale[1], hn::LoadU(df, to)), df, to);
  }
}

template <int kRows>
void Rows(const PairTile& t) {
  if (t.rows == kRows) {
    RegisterTile<kRows>(t);
  } else if constexpr (kRows > 1) {
    Rows<kRows - 1>(t);
  }
}

template <DType kType>
void Unit(const PackedMatrix& m, const PanelSet& panels, const PreparedInput& input, int64_t row,
          int64_t rows, const Destination& destination, uint8_t* scratch, float* acc) {
  std::fill(acc, acc + rows * kUnitColumns, 0.0f);
  PairTile t;
  int64_t asked = 0;
  for (int64_t pair = 0; pair < panels.count; pair += 2) {
    for (const Segment& s : m.segments) {
      t.columns = s.columns;
      for (int64_t p = 0; p < 2; ++p) {
        const uint8_t* panel = m.panel(panels.index[pair + p]);
        t.w[p] = SegmentPairs<kType>(panel + s.codes_offset, s.columns,
                                     scratch + p * kMaxSegment / 2 * kPairBytes);
        t.scale[p] = m.format.scale == DType::kNone
                         ? hn::Set(TileF(), 1.0f)
                         : LoadScales(m.format.scale, panel + s.scales_offset, 0);
      }
      for (int64_t r = 0; r < rows; r += input.tile_lines) {
        const int64_t tile = (row + r) / input.tile_lines;
        t.rows = input.RowsOf(tile);
        t.x = input.pairs + tile * input.tile_lines * input.stride + s.column * t.rows;
        t.acc = acc + r * kUnitColumns + pair * kPanelRows;
        if (asked < rows) destination.Prefetch(asked++);
        Rows<kTileLines>(t);
      }
    }
  }
}

}  // namespace

UnitKernel PairUnit(DType code) {
  if (SlowBf16()) return nullptr;
  switch (code) {
    case DType::kI4: return &Unit<DType::kI4>;
    case DType::kI8: return &Unit<DType::kI8>;
    case DType::kE4M3: return &Unit<DType::kE4M3>;
    case DType::kE5M2: return &Unit<DType::kE5M2>;
    case DType::kE3M2: return &Unit<DType::kE3M2>;
    case DType::kE2M3: return &Unit<DType::kE2M3>;
    case DType::kBF16: return &Unit<DType::kBF16>;
    default: return nullptr;
  }
}

#else

UnitKernel PairUnit(DType) { return nullptr; }

#endif  // HWY_AVX3_ZEN4

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
HWY_EXPORT(PairUnit);
UnitKernel PairUnitKernel(DType code) { return HWY_DYNAMIC_DISPATCH(PairUnit)(code); }
}  // namespace nibble
#endif
