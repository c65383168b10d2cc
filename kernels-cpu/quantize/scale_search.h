// SPDX-License-Identifier: Apache-2.0
//
// The search for the scale of a group of 4-bit weights ("clipping"): of the scales that can be
// stored, the one that makes sum_k h_k (w_k - q_k s)^2 smallest, q_k = EncodeI4(w_k / s), where
// h_k is the second moment of input k: the error of the projection's output where inputs are
// uncorrelated. Smaller scales than amax / 7 clip the largest weights and round all others finer.
//
//   scale type   candidates
//   E4M3         the code of amax / 7 / factor, two above, and 20 below: two and a half octaves
//   POW2         the exponent of amax / 7 / factor rounded up, one above, and three below; the
//                row's factor is one of 8 within an octave, by the sum of its groups' errors
//   floats       amax / 7 times 1.06, 1.03, 1, ... 0.19
//
// A single weight that is far larger than the others, and whose input hardly matters, is worth
// clipping to a fraction: hence the wide range downward.
#pragma once

#include <cstdint>

#include "kernels-cpu/numerics/types.h"

namespace nibble {

// A scale as it is stored, and its value with the factor: never 0 for a nonzero group, and 0 for
// a group of zeros.
struct GroupScale {
  uint32_t code;
  float value;
  float error;  // the weighted sum of squares; 0 where nothing was searched
};

// w: n finite weights; h: their weights in the sum, not negative, or null for ones. factor: of the
// matrix or row, 1 where there is none. search: false for the scale of round-to-nearest; true for
// I4 codes only.
GroupScale FindGroupScale(const WeightFormat& format, const float* w, const float* h, int64_t n,
                          float factor, bool search);

// The factor of a row of groups of POW2 scales; cols weights. search: false for
// round-to-nearest's.
float FindRowFactor(const float* w, const float* h, int64_t cols, int64_t group, bool search);

// amax / 7 / divisor, kept positive where amax is not 0.
float FactorOf(float amax, float divisor);

// The largest magnitude of n weights; not finite if one of them is not.
float LargestMagnitude(const float* w, int64_t n);

}  // namespace nibble
