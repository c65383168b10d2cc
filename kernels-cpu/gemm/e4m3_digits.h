// SPDX-License-Identifier: Apache-2.0
//
// E4M3 values as integers that byte dot products can take.
//
// An E4M3 value is an integer v in units of 2^-9, |v| <= 448 * 2^9 < 2^18. Split with
// rounding it is
//
//   v = 8 * h + rest,  rest in -4..3,      h = 256 * high + low,  low in -128..127
//
// so that |h| <= 28672 and high in -112..112 are signed bytes, and
//
//   value = (256 * high + low) * 2^-6 + rest * 2^-9,     exactly.
//
// A value of 2^-3 and more has no rest. The scale of a row of A8F puts its largest
// magnitude at 448, so that only elements below 1/3584 of that have one: some 0.1 % of a
// normal distribution, 1 % of a row with outliers. Two dense planes of bytes and a sparse
// list of rests therefore carry A8F without any loss.
#pragma once

#include <cstdint>

namespace nibble {

// What a unit of 256 * high + low is worth, and a unit of the rest in terms of that.
inline constexpr float kE4M3DigitUnit = 1.0f / 64;
inline constexpr float kE4M3RestUnit = 1.0f / 8;

// The rests of four neighbouring columns, of which at least one is not 0.
struct RestQuad {
  int32_t column;  // the first, a multiple of 4
  int8_t rest[4];
};

// Splits n codes, n a multiple of 16, none of them NaN. high, low: [n]. rests: room for
// n / 4. Returns how many there are, in the order of their columns.
int64_t SplitE4M3(const uint8_t* codes, int64_t n, int8_t* high, int8_t* low, RestQuad* rests);

// sums[b] = the sum of line[16 b .. 16 b + 15] for n bytes, a multiple of 16.
void SumSixteens(const int8_t* line, int64_t n, int32_t* sums);

}  // namespace nibble
