// SPDX-License-Identifier: Apache-2.0
//
// Round-to-nearest quantization of weights to the canonical form and back; the rules,
// to the bit, stand with nb_quantize in nibble.h.
#pragma once

#include <cstdint>
#include <string>

#include "kernels-cpu/numerics/types.h"
#include "kernels-cpu/threads/thread_pool.h"

namespace nibble {

// weights: rows x cols elements of type F32, F16 or BF16, rows stride elements apart.
// Writes every part of out that format has. Returns "", or why the weights cannot be
// quantized (the first element that is NaN or infinite, in row-major order): nothing is
// written then.
std::string QuantizeWeights(ThreadPool& pool, const WeightFormat& format, DType type,
                            const void* weights, int64_t rows, int64_t cols, int64_t stride,
                            const CanonicalWeights& out);

// Whether the canonical parts are free of NaN codes and of NaN, negative or infinite
// scales and factors: "" or what is wrong and where.
std::string CheckCanonical(ThreadPool& pool, const WeightFormat& format, int64_t rows,
                           int64_t cols, const CanonicalWeights& weights);

// The value of weight (row, col) in F64: the definition of every format.
double WeightValue(const WeightFormat& format, int64_t cols, const CanonicalWeights& weights,
                   int64_t row, int64_t col);

}  // namespace nibble
