// SPDX-License-Identifier: Apache-2.0
//
// Choosing a token from its logits. The definition is in integers behind one short piece of F64,
// so that sums have no order and every implementation (this one, the CUDA kernels, and
// dev.nibble.generate in Java) gives the same token for the same logits, always.
//
//   max       the largest logit; the first of equals is `best`
//   y         ((double) max - (double) logit) / (double) temperature * log2(e), each operation
//             rounded to F64; 0 for best; y >= 41 (NaN included) has weight 0
//   q         y * 2^48, rounded towards 0, an integer: y = n + f, n = q >> 48
//   weight    (2^-f in 63 fraction bits, by the polynomial below) >> (23 + n): best has 2^40
//
// A weight / 2^40 is a token's probability relative to the best one's, less at most 2^-39, and it
// never grows from a larger logit to a smaller one. In order of descending logits, the smaller
// index first among equals, there remain
//
//   top_k     the first top_k tokens (all for 0); their weights add up to `total`
//   top_p     below 1: of these, the fewest first tokens whose weights add up to at least
//             ceil(top_p * total), the product rounded to F64
//   min_p     of these, the ones with weight >= ceil(min_p * 2^40), always best
//
// With their sum `kept` and the uniform random number u, target = floor(u * kept), the product
// rounded to F64, at most kept - 1: the token is the first, in that order, at which the running
// sum exceeds target. Without top_k, top_p and min_p the order is that of the indices.
//
// The polynomial: with x = f in 64 fraction bits (48 used), c[k] = floor(ln(2)^k / k! * 2^63),
// r = c[14], then r = c[k] - high64(r * x) for k = 13 .. 0. The terms alternate and shrink; what
// is left out (k = 15) is below 2^-48.
#pragma once

#include <cstdint>

namespace nibble {

struct SampleOptions {
  float temperature = 1;  // 0: Argmax; to 100
  int32_t top_k = 0;      // 0 for all, else 1 or more
  float top_p = 1;        // above 0, at most 1
  float min_p = 0;        // 0 to 1
};

inline constexpr int64_t kMaxSampleTokens = int64_t{1} << 22;  // keeps every sum below 2^62

// The index of the largest of count >= 1 logits, the first of equals; where there is a NaN or
// +infinity, -1 - (the first such index). All -infinity: 0.
int64_t Argmax(const float* logits, int64_t count);

// Draws from count logits (1..kMaxSampleTokens) by 0 <= uniform < 1. Argmax's negative result
// where a logit is NaN or +infinity. Allocates up to 16 bytes a token.
int64_t Sample(const float* logits, int64_t count, const SampleOptions& options, double uniform);

// The weight of a logit relative to max >= logit, as defined above; temperature > 0.
uint64_t SampleWeight(float max, float logit, float temperature);

// The repeat penalty (CTRL, arXiv 1909.05858) in place: logit / penalty where positive, logit *
// penalty elsewhere, for each of token_count distinct tokens; those outside 0..count-1 are passed
// over.
void Penalize(float* logits, int64_t count, const int32_t* tokens, int64_t token_count,
              float penalty);

}  // namespace nibble
