// SPDX-License-Identifier: Apache-2.0
//
// The loops of the weight quantizer over one row, SIMD; bit for bit what the scalar
// encoders of formats.h give (nb_quantize in nibble.h is the definition). quantize.cc
// decides scales and order. Rows have any length and the alignment of their elements.
#pragma once

#include <cstdint>

#include "kernels-cpu/numerics/types.h"

namespace nibble {

// maxima[g] = the largest magnitude among elements [g * group, (g + 1) * group) of x, the
// last group short; x: n elements of type F32, F16 or BF16. With a NaN or an infinity in a
// group its maximum is not finite.
void GroupMaxima(DType type, const void* x, int64_t n, int64_t group, float* maxima);

// Whether all of n codes are finite; F32, F16, BF16, E4M3, E5M2 (the others always are).
bool AllFinite(DType type, const void* codes, int64_t n);

// codes[k] = the code (one byte) of x[k] / scales[k / group], 0 where that scale is 0; code:
// I4, I8, E4M3, E5M2, E3M2 or E2M3; x finite, of type F32, F16 or BF16; scales finite and not
// negative. The division is F32's.
void EncodeRow(DType code, DType type, const void* x, int64_t n, int64_t group,
               const float* scales, uint8_t* codes);

// to[k] = x[k] rounded to type `to_type`; both F32, F16 or BF16; x finite; saturates.
void ConvertRow(DType to_type, DType type, const void* x, int64_t n, void* to);

// Codes of one byte each to canonical planes: low nibbles to low (ceil(n / 2) bytes) and,
// where high is not null, bits 4 and 5 to high (ceil(n / 4) bytes). codes has room for three
// bytes more than n, which are overwritten.
void StorePlanes(uint8_t* codes, int64_t n, uint8_t* low, uint8_t* high);

}  // namespace nibble
