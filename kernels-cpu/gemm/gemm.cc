// SPDX-License-Identifier: Apache-2.0
//
// The driver: prepares the activations, deals the work to the threads, and finishes each
// unit of 64 output columns while its sums are in the first-level cache. The sums
// themselves are in gemm_float.cc, gemm_sixbit.cc, gemm_integer.cc, gemm_words.cc and
// gemm_bf16.cc.
//
//   few rows    (up to four tiles of lines: decode, batched or speculative) weights come from
//               memory: a thread owns a contiguous range of panels, the one that it touched
//               first, and reads it as four streams:
//                               | q panels | q panels | q panels | q panels |
//                                 ^i         ^q + i     ^2q + i    ^3q + i
//   many rows   (prefill) blocks of 96 lines, whose activations stay in the second-level
//               cache and whose sums with a unit in the first, times units of four
//               neighbouring panels; threads take the next one from a counter.
//
// Which thread computes a unit, and beside which others, changes nothing in it, so that the
// result has the same bits for any number of threads.
#include "kernels-cpu/gemm/gemm.h"

#include <algorithm>
#include <atomic>

#include "kernels-cpu/elementwise/elementwise.h"
#include "kernels-cpu/gemm/gemm_kernels.h"

namespace nibble {
namespace {

// Rows that are prepared at a time, which bounds the scratch.
constexpr int64_t kRowChunk = 512;

// Whether a product is one of integers.
bool IsInteger(DType activation, DType code) {
  const bool integers = code == DType::kI4 || code == DType::kI8 || code == DType::kE2M3;
  return integers && (activation == DType::kI8 || activation == DType::kE4M3);
}

Operand OperandFor(const GemmInput& input, const PackedMatrix& m) {
  const DType code = m.format.code;
  if (IsInteger(input.activation, code)) return Operand::kBytes;
  if (input.activation == DType::kE4M3 && code == DType::kE3M2 && WordUnitKernel() != nullptr) {
    return Operand::kWords;
  }
  const bool pairs = input.activation != DType::kF32 && input.rows > kFewRows &&
                     PairUnitKernel(code) != nullptr;
  if (pairs) return Operand::kPairs;
  return SixBitUnitKernel(code) != nullptr ? Operand::kQuads : Operand::kFloats;
}

UnitKernel KernelFor(Operand operand, const PackedMatrix& m) {
  switch (operand) {
    case Operand::kBytes: return IntegerUnitKernel();
    case Operand::kQuads: return SixBitUnitKernel(m.format.code);
    case Operand::kWords: return WordUnitKernel();
    case Operand::kPairs: return PairUnitKernel(m.format.code);
    default: return FloatUnitKernel();
  }
}

PanelSet Neighbours(const PackedMatrix& m, int64_t unit) {
  PanelSet set;
  set.count = std::min(kUnitPanels, m.panels() - unit * kUnitPanels);
  for (int64_t i = 0; i < kUnitPanels; ++i) {
    set.index[i] = unit * kUnitPanels + std::min(i, set.count - 1);
  }
  return set;
}

// Calls body(set) for the panels of a thread, read as four streams.
template <class Body>
void ForEachStreamStep(const PackedMatrix& m, int thread, int threads, const Body& body) {
  // Pairs of panels, as packed_matrix.cc shares them.
  const Range pairs = Share(DivUp(m.panels(), 2), thread, threads);
  const int64_t begin = 2 * pairs.begin, end = std::min(2 * pairs.end, m.panels());
  const int64_t length = DivUp(end - begin, kUnitPanels);
  for (int64_t i = 0; i < length; ++i) {
    PanelSet set;
    set.count = 0;
    for (int64_t v = 0; v < kUnitPanels; ++v) {
      const int64_t panel = begin + v * length + i;
      if (panel < end) ++set.count;
      set.index[v] = panel < end ? panel : set.index[v - 1];
    }
    body(set);
  }
}

// Calls body(i, n0, columns) for the panels from the i-th on whose output columns, from n0
// on, are neighbours.
template <class Body>
void ForEachRun(const PackedMatrix& m, const PanelSet& panels, const Body& body) {
  const bool all = panels.index[panels.count - 1] - panels.index[0] == panels.count - 1;
  const int64_t step = all ? panels.count : 1;
  for (int64_t i = 0; i < panels.count; i += step) {
    const int64_t n0 = panels.index[i] * kPanelRows;
    body(i, n0, std::min(step * kPanelRows, m.rows - n0));
  }
}

// Writes the finished sums of a unit for rows [row, row + rows) of the prepared input, whose
// row 0 is row `begin` of the call, to the output or back to acc.
void FinishUnit(const GemmOutput& out, const PanelSet& panels, const PreparedInput& input,
                int64_t begin, int64_t row, int64_t rows, float* acc, bool in_place) {
  const PackedMatrix& m = *out.matrix;
  ForEachRun(m, panels, [&](int64_t i, int64_t n0, int64_t columns) {
    FinishArguments f;
    f.acc = acc + i * kPanelRows;
    f.rows = rows;
    f.columns = columns;
    const bool integers = input.codes != nullptr || input.words != nullptr;
    f.unit = integers ? input.unit * CodeUnit(m.format.code) : 1.0f;
    f.scales = input.scales + row;
    f.factors = m.panel_factors(panels.index[i]);
    f.bias = out.bias == nullptr ? nullptr : out.bias + n0;
    f.residual_stride = out.residual_stride;
    f.residual = out.residual == nullptr
                     ? nullptr
                     : out.residual + (begin + row) * out.residual_stride + n0;
    f.to = in_place ? acc + i * kPanelRows : out.y + (begin + row) * out.stride + n0;
    f.to_stride = in_place ? kUnitColumns : out.stride;
    FinishRows(f);
  });
}

// Scratch of one thread: kernel scratch, then the sums of `outputs` matrices.
struct UnitScratch {
  explicit UnitScratch(uint8_t* memory) : kernel(memory) {}
  static size_t Bytes(int64_t rows, int outputs) {
    return static_cast<size_t>(kUnitScratchBytes + rows * kUnitColumns * 4 * outputs);
  }
  float* acc(int64_t rows, int output) const {
    return reinterpret_cast<float*>(kernel + kUnitScratchBytes) + output * rows * kUnitColumns;
  }
  uint8_t* kernel;
};

// Runs unit(scratch, output, panels, row, rows) for every unit of every output and block of
// rows. rows: of the largest block.
template <class Unit>
void RunUnits(Workspace& workspace, const PreparedInput& input, const PackedMatrix* const* matrices,
              int count, const Unit& unit) {
  const int threads = workspace.threads();
  if (input.few()) {
    workspace.pool().Run([&](int thread) {
      const UnitScratch scratch(workspace.PerThread(thread));
      for (int i = 0; i < count; ++i) {
        ForEachStreamStep(*matrices[i], thread, threads, [&](const PanelSet& panels) {
          unit(scratch, i, panels, 0, input.rows);
        });
      }
    });
    return;
  }
  const int64_t block = kBlockLines / input.digits;
  int64_t units = 0;
  for (int i = 0; i < count; ++i) units += DivUp(matrices[i]->panels(), kUnitPanels);
  const int64_t items = units * DivUp(input.rows, block);
  std::atomic<int64_t> next{0};
  workspace.pool().Run([&](int thread) {
    const UnitScratch scratch(workspace.PerThread(thread));
    for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) {
      const int64_t row = item / units * block;
      int64_t u = item % units;
      int i = 0;  // units are numbered through all outputs
      for (int64_t of; u >= (of = DivUp(matrices[i]->panels(), kUnitPanels)); ++i) u -= of;
      unit(scratch, i, Neighbours(*matrices[i], u), row, std::min(block, input.rows - row));
    }
  });
}

// outputs whose products are computed in one way.
void MatMulOf(Workspace& workspace, const GemmInput& input, Operand operand,
              const GemmOutput* outputs, int count) {
  constexpr int kMostAtOnce = 8;
  const PackedMatrix* matrices[kMostAtOnce];
  const GemmOutput* chosen[kMostAtOnce];
  for (int first = 0; first < count;) {
    int n = 0;
    for (; first < count && n < kMostAtOnce; ++first) {
      if (OperandFor(input, *outputs[first].matrix) != operand) continue;
      chosen[n] = &outputs[first];
      matrices[n++] = outputs[first].matrix;
    }
    if (n == 0) return;
    const int64_t chunk = std::min(kRowChunk, input.rows);
    for (int64_t begin = 0; begin < input.rows; begin += chunk) {
      const PreparedInput prepared =
          PrepareInput(workspace, input, operand, begin, std::min(chunk, input.rows - begin));
      const int64_t block = std::min(kBlockLines, prepared.rows);
      workspace.ReservePerThread(UnitScratch::Bytes(block, 1));
      RunUnits(workspace, prepared, matrices, n,
               [&](const UnitScratch& scratch, int i, const PanelSet& panels, int64_t row,
                   int64_t rows) {
                 float* acc = scratch.acc(block, 0);
                 const GemmOutput& out = *chosen[i];
                 const Destination destination = {
                     out.y + (begin + row) * out.stride + panels.index[0] * kPanelRows,
                     out.stride};
                 KernelFor(operand, *matrices[i])(*matrices[i], panels, prepared, row, rows,
                                                  destination, scratch.kernel, acc);
                 FinishUnit(out, panels, prepared, begin, row, rows, acc, false);
               });
    }
  }
}

}  // namespace

bool HasKernel(DType code, DType activation) {
  switch (activation) {
    case DType::kF32:
    case DType::kBF16:
    case DType::kE4M3: return true;
    case DType::kI8: return IsInteger(activation, code);
    default: return false;
  }
}

void MatMul(Workspace& workspace, const GemmInput& input, const GemmOutput* outputs, int count) {
  MatMulOf(workspace, input, Operand::kBytes, outputs, count);
  MatMulOf(workspace, input, Operand::kWords, outputs, count);
  MatMulOf(workspace, input, Operand::kQuads, outputs, count);
  MatMulOf(workspace, input, Operand::kPairs, outputs, count);
  MatMulOf(workspace, input, Operand::kFloats, outputs, count);
}

void SwiGluMatMul(Workspace& workspace, const GemmInput& input, const GemmOutput& gate,
                  const GemmOutput& up) {
  const PackedMatrix &g = *gate.matrix, &w = *up.matrix;
  const Operand operand = OperandFor(input, g);
  const UnitKernel kernel = KernelFor(operand, g);
  const PackedMatrix* matrix = &g;  // both have one shape
  const int64_t chunk = std::min(kRowChunk, input.rows);
  for (int64_t begin = 0; begin < input.rows; begin += chunk) {
    const PreparedInput prepared =
        PrepareInput(workspace, input, operand, begin, std::min(chunk, input.rows - begin));
    const int64_t block = std::min(kBlockLines, prepared.rows);
    workspace.ReservePerThread(UnitScratch::Bytes(block, 2));
    RunUnits(workspace, prepared, &matrix, 1,
             [&](const UnitScratch& scratch, int, const PanelSet& panels, int64_t row,
                 int64_t rows) {
               float* gate_acc = scratch.acc(block, 0);
               float* up_acc = scratch.acc(block, 1);
               const Destination destination = {
                   up.y + (begin + row) * up.stride + panels.index[0] * kPanelRows, up.stride};
               kernel(g, panels, prepared, row, rows, {nullptr, 0}, scratch.kernel, gate_acc);
               FinishUnit(gate, panels, prepared, begin, row, rows, gate_acc, true);
               kernel(w, panels, prepared, row, rows, destination, scratch.kernel, up_acc);
               FinishUnit(up, panels, prepared, begin, row, rows, up_acc, true);
               ForEachRun(g, panels, [&](int64_t i, int64_t n0, int64_t columns) {
                 for (int64_t r = 0; r < rows; ++r) {
                   const int64_t at = r * kUnitColumns + i * kPanelRows;
                   SwiGluRow(gate_acc + at, up_acc + at, columns,
                             up.y + (begin + row + r) * up.stride + n0);
                 }
               });
             });
  }
}

}  // namespace nibble
