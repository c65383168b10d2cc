// SPDX-License-Identifier: Apache-2.0
//
// Memory for the canonical form of one matrix: temporaries, tests and benchmarks.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels-cpu/numerics/types.h"

namespace nibble {

struct CanonicalStorage {
  CanonicalStorage(const WeightFormat& format, int64_t rows, int64_t cols)
      : codes(rows * format.CodeRowBytes(cols)),
        codes_high(rows * format.HighRowBytes(cols)),
        scales(rows * format.Groups(cols) * format.ScaleBytes()),
        factors(format.FactorCount(rows)) {}

  CanonicalWeights view() {
    return {codes.data(), codes_high.data(), scales.data(), factors.data()};
  }

  std::vector<uint8_t> codes, codes_high, scales;
  std::vector<float> factors;
};

}  // namespace nibble
