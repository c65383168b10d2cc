// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/gemm/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "kernels-cpu/gemm/canonical_storage.h"
#include "kernels-cpu/numerics/formats.h"
#include "kernels-cpu/numerics/pack_tile.h"
#include "kernels-cpu/numerics/quantize.h"
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
  m.panel_bytes = PanelBytes(m.format, m.cols);
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

// What lanes without a row have: zeros for the longest segment of the widest type.
constexpr uint8_t kNoRow[kMaxSegment * 4] = {};

// weights: the parts from the panel's first row on.
void PackPanel(const PackedMatrix& m, int64_t panel, const CanonicalWeights& weights) {
  const WeightFormat& f = m.format;
  uint8_t* to = m.data.data() + panel * m.panel_bytes;
  const int64_t rows = std::min(kPanelRows, m.rows - panel * kPanelRows);
  const int64_t row_bytes = f.CodeRowBytes(m.cols), high_bytes = f.HighRowBytes(m.cols);
  const int64_t scale_bytes = f.ScaleBytes(), groups = f.Groups(m.cols);
  const uint8_t *codes[kPanelRows], *high[kPanelRows];
  for (const Segment& s : m.segments) {
    for (int64_t lane = 0; lane < kPanelRows; ++lane) {
      codes[lane] = high[lane] = kNoRow;
      if (lane >= rows) continue;
      codes[lane] = weights.codes + lane * row_bytes + f.CodeRowBytes(s.column);
      if (high_bytes > 0) {
        high[lane] = weights.codes_high + lane * high_bytes + f.HighRowBytes(s.column);
      }
    }
    PackTile(f.code, codes, high, std::min<int64_t>(s.columns, m.cols - s.column),
             to + s.codes_offset);
    for (int64_t lane = 0; lane < rows && scale_bytes > 0; ++lane) {
      std::memcpy(to + s.scales_offset + lane * scale_bytes,
                  weights.scales + (lane * groups + s.group) * scale_bytes, scale_bytes);
    }
  }
  float* factors = m.factors.as<float>() + panel * kPanelRows;
  for (int64_t lane = 0; lane < rows; ++lane) {
    factors[lane] = f.HasMatrixFactor() ? weights.factors[0]
                    : f.HasRowFactors() ? weights.factors[lane]
                                        : 1.0f;
  }
}

// The canonical parts from row r on.
CanonicalWeights RowsFrom(const PackedMatrix& m, CanonicalWeights w, int64_t r) {
  const WeightFormat& f = m.format;
  w.codes += r * f.CodeRowBytes(m.cols);
  if (IsSixBit(f.code)) w.codes_high += r * f.HighRowBytes(m.cols);
  if (f.ScaleBytes() > 0) w.scales += r * f.Groups(m.cols) * f.ScaleBytes();
  if (f.HasRowFactors()) w.factors += r;
  return w;
}

// Calls body(thread, panel) for every panel, on the thread whose share of units (gemm.cc) it
// belongs to, so that a page is first touched by the thread that will read it. body returns
// false to end its thread's share.
template <class Body>
void ForEachPanel(ThreadPool& pool, const PackedMatrix& m, const Body& body) {
  pool.Run([&](int thread) {
    const Range units = Share(DivUp(m.panels(), 2), thread, pool.threads());
    const int64_t end = std::min(2 * units.end, m.panels());
    for (int64_t p = 2 * units.begin; p < end && body(thread, p); ++p) {
    }
  });
}

}  // namespace

int64_t PanelBytes(const WeightFormat& format, int64_t cols) {
  const int64_t group = format.Group(cols), full = (cols - 1) / group;  // all but the last
  const auto bytes = [&](int64_t columns) {
    return format.ScaleBytes() * kPanelRows +
           TileBytes(format.code, RoundUp(columns, kTileColumns));
  };
  // Every panel starts on its own cache line.
  return RoundUp(full * bytes(group) + bytes(cols - full * group), 64);
}

PackedMatrix AllocateMatrix(const WeightFormat& format, int64_t rows, int64_t cols) {
  PackedMatrix m;
  m.format = format;
  m.rows = rows;
  m.cols = cols;
  LayOutPanel(m);
  m.data = Buffer(static_cast<size_t>(m.panels() * m.panel_bytes));
  m.factors = Buffer(static_cast<size_t>(m.panels() * kPanelRows) * sizeof(float));
  return m;
}

PackedMatrix PackMatrix(ThreadPool& pool, const WeightFormat& format, int64_t rows, int64_t cols,
                        const CanonicalWeights& weights) {
  PackedMatrix m = AllocateMatrix(format, rows, cols);
  ForEachPanel(pool, m, [&](int, int64_t panel) {
    PackPanel(m, panel, RowsFrom(m, weights, panel * kPanelRows));
    return true;
  });
  return m;
}

std::string QuantizeAndPackMatrix(ThreadPool& pool, const WeightFormat& format, DType type,
                                  const void* weights, int64_t rows, int64_t cols, int64_t stride,
                                  PackedMatrix* matrix) {
  const int threads = pool.threads();
  WeightQuantizer quantizer(format, type, weights, rows, cols, stride, threads);
  if (format.HasMatrixFactor()) {
    const std::string problem = quantizer.Prepare(pool);
    if (!problem.empty()) return problem;
  }
  std::vector<CanonicalStorage> panels(threads, CanonicalStorage(format, kPanelRows, cols));
  std::vector<int64_t> bad_row(threads, -1);
  PackedMatrix m = AllocateMatrix(format, rows, cols);
  ForEachPanel(pool, m, [&](int thread, int64_t panel) {
    const CanonicalWeights canonical = panels[thread].view();
    if (format.HasMatrixFactor()) canonical.factors[0] = quantizer.matrix_factor();
    const int64_t begin = panel * kPanelRows, end = std::min(begin + kPanelRows, rows);
    bad_row[thread] = quantizer.Quantize(thread, begin, end, canonical);
    if (bad_row[thread] >= 0) return false;
    PackPanel(m, panel, canonical);
    return true;
  });
  for (const int64_t row : bad_row) {  // shares are in order, so the first is the smallest
    if (row >= 0) return quantizer.Problem(row);
  }
  *matrix = std::move(m);
  return "";
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
