// SPDX-License-Identifier: Apache-2.0
//
// A GEMM family on the strip layout: all of its functions, from the table of its kernels and from
// what it says of a product that it has none for.
#pragma once

#include <algorithm>
#include <string>

#include "kernels-cuda/common/strip_matrix.h"

namespace nibble::cuda {

// kKernels: an array of StripKernels. kUnsupported: GemmFamily's function of that name, which may
// ask Find.
template <const auto& kKernels, auto kUnsupported>
struct StripFamily {
  static const StripKernels* Find(DType code, DType left) {
    for (const StripKernels& k : kKernels) {
      if (k.code == code && k.left == left) return &k;
    }
    return nullptr;
  }

  static int64_t PackedBytes(const WeightFormat& format, int64_t rows, int64_t cols) {
    return StripLayout(format, rows, cols).bytes();
  }

  static int64_t RowBlocks(int64_t rows) { return DivUp(rows, kStripRows); }

  static int64_t ScratchBytes(const Device& device, const WeightFormat& format, int64_t rows,
                              int64_t cols, int64_t m) {
    int64_t bytes = 0;
    for (const StripKernels& k : kKernels) {
      if (k.code != format.code) continue;
      bytes = std::max(bytes, StripScratchBytes(device, k, format, rows, cols, m));
    }
    return bytes;
  }

  static Status Run(Device& device, const DeviceWeights& weights, const GemmLeft& left,
                    const GemmResult& result, const Scratch& scratch) {
    return Launch(device, weights, nullptr, left, result, scratch);
  }

  static Status RunSwiGlu(Device& device, const DeviceWeights& gate, const DeviceWeights& up,
                          const GemmLeft& left, const GemmResult& result,
                          const Scratch& scratch) {
    return Launch(device, gate, &up, left, result, scratch);
  }

  static constexpr GemmFamily kFunctions = {kUnsupported, PackedBytes,  RowBlocks,
                                            PackStrip,    UnpackStrip,  ScratchBytes,
                                            Run,          RunSwiGlu,    DequantizeStripRows};

 private:
  static Status Launch(Device& device, const DeviceWeights& weights, const DeviceWeights* up,
                       const GemmLeft& left, const GemmResult& result, const Scratch& scratch) {
    const StripKernels* kernels = Find(weights.format.code, left.type);
    if (kernels == nullptr) {
      return {NB_UNSUPPORTED, kUnsupported(weights.format, weights.rows, weights.cols, left.type,
                                           device.properties().sm)};
    }
    return RunStrips(device, *kernels, weights, up, left, result, scratch);
  }
};

}  // namespace nibble::cuda
