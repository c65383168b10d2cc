// SPDX-License-Identifier: Apache-2.0
//
// Round-to-nearest quantization of weights to the canonical form and back; the rules,
// to the bit, stand with nb_quantize in nibble.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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

// The same a few rows at a time, for packing without the whole canonical form in between.
class WeightQuantizer {
 public:
  // threads: how many will call Quantize at once. Throws std::bad_alloc.
  WeightQuantizer(const WeightFormat& format, DType type, const void* weights, int64_t rows,
                  int64_t cols, int64_t stride, int threads);

  // Looks at all weights: "" or the first problem, as above. Needed before Quantize only for
  // a format with a matrix factor, which it finds.
  std::string Prepare(ThreadPool& pool);
  float matrix_factor() const { return matrix_factor_; }

  // Rows begin .. end - 1 to out, whose parts begin with row begin; not the matrix factor. On
  // thread `thread` of threads. Returns -1, or the first row that is not finite, where it stops.
  int64_t Quantize(int thread, int64_t begin, int64_t end, const CanonicalWeights& out);

  // What is wrong with a row that is not finite.
  std::string Problem(int64_t row) const;

 private:
  struct Scratch {
    std::vector<float> maxima, scales;  // of a row's groups
    std::vector<uint8_t> codes;         // of a row, one byte each
  };
  const void* Row(int64_t r) const;
  bool FindMaxima(int64_t r, Scratch& scratch) const;

  const WeightFormat format_;
  const DType type_;
  const uint8_t* const weights_;
  const int64_t rows_, cols_, stride_, group_, groups_;
  float matrix_factor_ = 1;
  std::vector<Scratch> scratch_;
};

// Whether codes, scales and factors are finite, E4M3 scales and factors not negative, POW2 scales
// in their range: "" or what is wrong and where.
std::string CheckCanonical(ThreadPool& pool, const WeightFormat& format, int64_t rows,
                           int64_t cols, const CanonicalWeights& weights);

// The value of weight (row, col) in F64: the definition of every format.
double WeightValue(const WeightFormat& format, int64_t cols, const CanonicalWeights& weights,
                   int64_t row, int64_t col);

}  // namespace nibble
