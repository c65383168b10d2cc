// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/gemm/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/numerics/tile.h"

namespace nibble {
namespace {

// Lays out one panel: fills segments and panel_bytes.
void LayOutPanel(PackedMatrix& m) {
  const int64_t group = m.format.Group(m.cols), scale_bytes = m.format.ScaleBytes() * kPanelRows;
  int64_t offset = 0;
  for (int64_t begin = 0, g = 0; begin < m.cols; begin += group, ++g) {
    const int64_t end = std::min(begin + group, m.cols);
    const int64_t scales_offset = offset;
    offset += scale_bytes;
    for (int64_t column = begin; column < end; column += kMaxSegment) {
      const int64_t columns = RoundUp(std::min(kMaxSegment, end - column), kTileColumns);
      m.segments.push_back({column, static_cast<int32_t>(columns), static_cast<int32_t>(g), offset,
                            scales_offset});
      offset += TileBytes(m.format.code, columns);
    }
  }
  // Every panel starts on its own cache line.
  m.panel_bytes = RoundUp(offset, 64);
}

uint32_t CanonicalCode(const WeightFormat& f, const uint8_t* codes, const uint8_t* high, int64_t k) {
  switch (f.code) {
    case DType::kI4: return (codes[k / 2] >> (4 * (k % 2))) & 15u;
    case DType::kE3M2:
    case DType::kE2M3:
      return ((codes[k / 2] >> (4 * (k % 2))) & 15u) | ((high[k / 4] >> (2 * (k % 4))) & 3u) << 4;
    case DType::kF16:
    case DType::kBF16: {
      uint16_t v;
      std::memcpy(&v, codes + 2 * k, 2);
      return v;
    }
    case DType::kF32: {
      uint32_t v;
      std::memcpy(&v, codes + 4 * k, 4);
      return v;
    }
    default: return codes[k];
  }
}

// Into cleared canonical bytes.
void SetCanonicalCode(const WeightFormat& f, uint8_t* codes, uint8_t* high, int64_t k,
                      uint32_t code) {
  switch (f.code) {
    case DType::kI4:
    case DType::kE3M2:
    case DType::kE2M3:
      codes[k / 2] |= static_cast<uint8_t>((code & 15) << (4 * (k % 2)));
      if (f.code != DType::kI4) high[k / 4] |= static_cast<uint8_t>((code >> 4) << (2 * (k % 4)));
      break;
    case DType::kF16:
    case DType::kBF16: std::memcpy(codes + 2 * k, &code, 2); break;
    case DType::kF32: std::memcpy(codes + 4 * k, &code, 4); break;
    default: codes[k] = static_cast<uint8_t>(code);
  }
}

// The panel is freshly allocated, and so all zero bits.
template <DType kType>
void PackPanelCodes(const PackedMatrix& m, int64_t panel, const CanonicalWeights& weights,
                    uint8_t* to) {
  const WeightFormat f{kType, m.format.scale, m.format.group_size};
  const int64_t rows = std::min(kPanelRows, m.rows - panel * kPanelRows);
  const int64_t row_bytes = f.CodeRowBytes(m.cols), high_bytes = f.HighRowBytes(m.cols);
  for (const Segment& s : m.segments) {
    uint8_t* tile = to + s.codes_offset;
    ClearTile(kType, tile, s.columns);
    const int64_t count = std::min<int64_t>(s.columns, m.cols - s.column);
    for (int64_t lane = 0; lane < rows; ++lane) {
      const int64_t r = panel * kPanelRows + lane;
      const uint8_t* codes = weights.codes + r * row_bytes;
      const uint8_t* high = IsSixBit(kType) ? weights.codes_high + r * high_bytes : nullptr;
      for (int64_t k = 0; k < count; ++k) {
        SetTileCode(kType, tile, lane, k, CanonicalCode(f, codes, high, s.column + k));
      }
    }
  }
}

void PackPanel(const PackedMatrix& m, int64_t panel, const CanonicalWeights& weights,
               uint8_t* to) {
  switch (m.format.code) {  // a constant type lets the loops above specialize
    case DType::kI4: PackPanelCodes<DType::kI4>(m, panel, weights, to); break;
    case DType::kI8: PackPanelCodes<DType::kI8>(m, panel, weights, to); break;
    case DType::kE4M3: PackPanelCodes<DType::kE4M3>(m, panel, weights, to); break;
    case DType::kE5M2: PackPanelCodes<DType::kE5M2>(m, panel, weights, to); break;
    case DType::kE3M2: PackPanelCodes<DType::kE3M2>(m, panel, weights, to); break;
    case DType::kE2M3: PackPanelCodes<DType::kE2M3>(m, panel, weights, to); break;
    case DType::kBF16: PackPanelCodes<DType::kBF16>(m, panel, weights, to); break;
    case DType::kF16: PackPanelCodes<DType::kF16>(m, panel, weights, to); break;
    default: PackPanelCodes<DType::kF32>(m, panel, weights, to);
  }
  const int64_t rows = std::min(kPanelRows, m.rows - panel * kPanelRows);
  const int64_t bytes = m.format.ScaleBytes(), groups = m.format.Groups(m.cols);
  for (const Segment& s : m.segments) {
    for (int64_t lane = 0; lane < rows && bytes > 0; ++lane) {
      const int64_t index = (panel * kPanelRows + lane) * groups + s.group;
      std::memcpy(to + s.scales_offset + lane * bytes, weights.scales + index * bytes, bytes);
    }
  }
  for (int64_t lane = 0; lane < rows; ++lane) {
    const int64_t r = panel * kPanelRows + lane;
    m.factors.as<float>()[r] = m.format.HasMatrixFactor() ? weights.factors[0]
                               : m.format.HasRowFactors() ? weights.factors[r]
                                                          : 1.0f;
  }
}

}  // namespace

PackedMatrix PackMatrix(ThreadPool& pool, const WeightFormat& format, int64_t rows, int64_t cols,
                        const CanonicalWeights& weights) {
  PackedMatrix m;
  m.format = format;
  m.rows = rows;
  m.cols = cols;
  LayOutPanel(m);
  m.data = Buffer(static_cast<size_t>(m.panels() * m.panel_bytes));
  m.factors = Buffer(static_cast<size_t>(m.panels() * kPanelRows) * sizeof(float));
  // The split of gemm.cc: each thread first touches the panels that it will read.
  pool.Run([&](int thread) {
    const Range range = Share(DivUp(m.panels(), 2), thread, pool.threads());
    for (int64_t p = 2 * range.begin; p < std::min(2 * range.end, m.panels()); ++p) {
      PackPanel(m, p, weights, m.data.data() + p * m.panel_bytes);
    }
  });
  return m;
}

void UnpackMatrix(ThreadPool& pool, const PackedMatrix& m, const CanonicalWeights& out) {
  const WeightFormat& f = m.format;
  const int64_t groups = f.Groups(m.cols), scale_bytes = f.ScaleBytes();
  pool.Run([&](int thread) {
    const Range range = Share(m.rows, thread, pool.threads());
    for (int64_t r = range.begin; r < range.end; ++r) {
      const uint8_t* panel = m.panel(r / kPanelRows);
      const int64_t lane = r % kPanelRows;
      uint8_t* codes = out.codes + r * f.CodeRowBytes(m.cols);
      std::memset(codes, 0, static_cast<size_t>(f.CodeRowBytes(m.cols)));
      uint8_t* high = nullptr;
      if (IsSixBit(f.code)) {
        high = out.codes_high + r * f.HighRowBytes(m.cols);
        std::memset(high, 0, static_cast<size_t>(f.HighRowBytes(m.cols)));
      }
      for (const Segment& s : m.segments) {
        const int64_t count = std::min<int64_t>(s.columns, m.cols - s.column);
        for (int64_t k = 0; k < count; ++k) {
          SetCanonicalCode(f, codes, high, s.column + k,
                           GetTileCode(f.code, panel + s.codes_offset, lane, k));
        }
        if (scale_bytes > 0) {
          std::memcpy(out.scales + (r * groups + s.group) * scale_bytes,
                      panel + s.scales_offset + lane * scale_bytes, scale_bytes);
        }
      }
      if (f.HasRowFactors()) out.factors[r] = m.factors.as<float>()[r];
    }
  });
  if (f.HasMatrixFactor()) out.factors[0] = m.factors.as<float>()[0];
}

void DequantizeRow(const PackedMatrix& m, int64_t row, float* out) {
  const uint8_t* panel = m.panel(row / kPanelRows);
  const int64_t lane = row % kPanelRows, scale_bytes = m.format.ScaleBytes();
  const double factor = m.factors.as<float>()[row];
  for (const Segment& s : m.segments) {
    double scale = factor;
    if (scale_bytes > 0) {
      uint32_t code = 0;
      std::memcpy(&code, panel + s.scales_offset + lane * scale_bytes, scale_bytes);
      scale *= Decode(m.format.scale, code);
    }
    const int64_t count = std::min<int64_t>(s.columns, m.cols - s.column);
    for (int64_t k = 0; k < count; ++k) {
      const uint32_t code = GetTileCode(m.format.code, panel + s.codes_offset, lane, k);
      out[s.column + k] = static_cast<float>(Decode(m.format.code, code) * scale);
    }
  }
}

}  // namespace nibble
