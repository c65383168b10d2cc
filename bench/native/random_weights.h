// SPDX-License-Identifier: Apache-2.0
//
// Random weights of any format and size, packed through the ABI: a block of rows is drawn and
// repeated, so that billions of weights take seconds.
#pragma once

#include <cstdint>
#include <vector>

#include "bench/native/abi.h"

namespace nibble::bench {

// The canonical form of an [n, k] matrix, from which copies are packed.
class RandomMatrix {
 public:
  RandomMatrix(const nb_weight_format& format, int64_t n, int64_t k);

  // A copy in memory of its own.
  MatrixPtr Pack(nb_context* context) const;

 private:
  nb_weight_format format_;
  int64_t n_, k_;
  std::vector<uint8_t> codes_, high_, scales_;
  std::vector<float> factors_;
};

// count values of a normal distribution, the same for each call with the same seed.
std::vector<float> RandomValues(int64_t count, unsigned seed);

}  // namespace nibble::bench
