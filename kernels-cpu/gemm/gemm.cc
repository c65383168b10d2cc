// SPDX-License-Identifier: Apache-2.0
//
// The driver: prepares the activations, deals units of 32 output columns to the threads,
// and finishes each unit (token scale, factor, bias, residual, or SwiGLU) while it is in
// the first-level cache. The sums themselves are in gemm_float.cc and gemm_integer.cc.
//
// Which thread computes a unit changes nothing in it, so that the result has the same
// bits for any number of threads.
#include "kernels-cpu/gemm/gemm.h"

#include <algorithm>

#include "kernels-cpu/elementwise/elementwise.h"
#include "kernels-cpu/gemm/gemm_kernels.h"

namespace nibble {
namespace {

// Rows that are prepared and multiplied at a time: their sums with a unit (64 KiB) stay in
// the second-level cache while the unit's weights stream by.
constexpr int64_t kRowBlock = 512;

// Finishes the sums of one unit: to[r][c] = acc[r][c] * token scale * factor + bias +
// residual. begin: the call's row that acc row 0 stands for. to may be acc.
void FinishUnit(const GemmOutput& out, int64_t unit, const PreparedInput& input, int64_t begin,
                const float* acc, float* to, int64_t to_stride) {
  const int64_t n0 = unit * kUnitColumns;
  const int64_t columns = std::min(kUnitColumns, out.matrix->rows - n0);
  const float* factors = out.matrix->panel_factors(unit * kUnitPanels);
  for (int64_t r = 0; r < input.rows; ++r, acc += kUnitColumns, to += to_stride) {
    const float* residual =
        out.residual == nullptr ? nullptr : out.residual + (begin + r) * out.residual_stride + n0;
    const float scale = input.scales[r];
    for (int64_t c = 0; c < columns; ++c) {
      float v = acc[c] * scale * factors[c];
      if (out.bias != nullptr) v += out.bias[n0 + c];
      if (residual != nullptr) v += residual[c];
      to[c] = v;
    }
  }
}

int64_t Units(const PackedMatrix& m) { return DivUp(m.panels(), kUnitPanels); }

int64_t PanelsOf(const PackedMatrix& m, int64_t unit) {
  return std::min(kUnitPanels, m.panels() - unit * kUnitPanels);
}

UnitKernel KernelFor(DType activation) {
  return activation == DType::kI8 ? IntegerUnitKernel() : FloatUnitKernel();
}

// Scratch of one thread: kernel scratch, then the sums of `outputs` matrices.
struct UnitScratch {
  UnitScratch(uint8_t* memory) : kernel(memory) {}
  static int64_t Bytes(int64_t rows, int outputs) {
    return kUnitScratchBytes + rows * kUnitColumns * 4 * outputs;
  }
  float* acc(int64_t rows, int output) const {
    return reinterpret_cast<float*>(kernel + kUnitScratchBytes) + output * rows * kUnitColumns;
  }
  uint8_t* kernel;
};

}  // namespace

bool HasKernel(DType code, DType activation) {
  switch (activation) {
    case DType::kF32:
    case DType::kBF16:
    case DType::kE4M3: return true;
    case DType::kI8: return code == DType::kI4 || code == DType::kI8;
    default: return false;
  }
}

void MatMul(Workspace& workspace, const GemmInput& input, const GemmOutput* outputs, int count) {
  const UnitKernel kernel = KernelFor(input.activation);
  const int threads = workspace.threads();
  const int64_t block = std::min(kRowBlock, input.rows);
  int64_t units = 0;
  for (int i = 0; i < count; ++i) units += Units(*outputs[i].matrix);
  workspace.ReservePerThread(static_cast<size_t>(UnitScratch::Bytes(block, 1)));

  for (int64_t begin = 0; begin < input.rows; begin += block) {
    const PreparedInput prepared =
        PrepareInput(workspace, input, begin, std::min(block, input.rows - begin));
    workspace.pool().Run([&](int thread) {
      const UnitScratch scratch(workspace.PerThread(thread));
      float* acc = scratch.acc(block, 0);
      Range range = Share(units, thread, threads);
      // Units are numbered through all outputs.
      for (int i = 0; i < count && range.end > 0; ++i) {
        const PackedMatrix& m = *outputs[i].matrix;
        for (int64_t u = std::max<int64_t>(range.begin, 0); u < std::min(range.end, Units(m));
             ++u) {
          kernel(m, u * kUnitPanels, PanelsOf(m, u), prepared, 0, prepared.rows, scratch.kernel,
                 acc);
          float* y = outputs[i].y + begin * outputs[i].stride + u * kUnitColumns;
          FinishUnit(outputs[i], u, prepared, begin, acc, y, outputs[i].stride);
        }
        range.begin -= Units(m);
        range.end -= Units(m);
      }
    });
  }
}

void SwiGluMatMul(Workspace& workspace, const GemmInput& input, const GemmOutput& gate,
                  const GemmOutput& up) {
  const UnitKernel kernel = KernelFor(input.activation);
  const int threads = workspace.threads();
  const int64_t block = std::min(kRowBlock, input.rows);
  const PackedMatrix &g = *gate.matrix, &w = *up.matrix;
  workspace.ReservePerThread(static_cast<size_t>(UnitScratch::Bytes(block, 2)));

  for (int64_t begin = 0; begin < input.rows; begin += block) {
    const PreparedInput prepared =
        PrepareInput(workspace, input, begin, std::min(block, input.rows - begin));
    workspace.pool().Run([&](int thread) {
      const UnitScratch scratch(workspace.PerThread(thread));
      float* gate_acc = scratch.acc(block, 0);
      float* up_acc = scratch.acc(block, 1);
      const Range range = Share(Units(g), thread, threads);
      for (int64_t u = range.begin; u < range.end; ++u) {
        const int64_t n0 = u * kUnitColumns, columns = std::min(kUnitColumns, g.rows - n0);
        const int64_t panel = u * kUnitPanels, panels = PanelsOf(g, u);
        kernel(g, panel, panels, prepared, 0, prepared.rows, scratch.kernel, gate_acc);
        FinishUnit(gate, u, prepared, begin, gate_acc, gate_acc, kUnitColumns);
        kernel(w, panel, panels, prepared, 0, prepared.rows, scratch.kernel, up_acc);
        FinishUnit(up, u, prepared, begin, up_acc, up_acc, kUnitColumns);
        for (int64_t r = 0; r < prepared.rows; ++r) {
          SwiGluRow(gate_acc + r * kUnitColumns, up_acc + r * kUnitColumns, columns,
                    up.y + (begin + r) * up.stride + n0);
        }
      }
    });
  }
}

}  // namespace nibble
