// SPDX-License-Identifier: Apache-2.0
//
// Why no weight grows from a larger logit to a smaller one: y is made of operations that are
// monotone also when rounded, and so is q. From one f to the next (2^-48 apart) 2^-f falls by
// more than 2^-50, while the 15 roundings of the polynomial shift it by less than 2^-59; from the
// last f of an octave to the next octave it falls by as much, the terms left out only add to it
// there. The top_p and min_p tokens are therefore a prefix of the order.
//
// Sums: at most 2^22 tokens of weight at most 2^40.
#include "kernels-cpu/elementwise/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace nibble {
namespace {

constexpr int kTerms = 15;
// floor(ln(2)^k / k! * 2^63)
constexpr uint64_t kExp2[kTerms] = {
    0x8000000000000000u, 0x58B90BFBE8E7BCD5u, 0x1EBFBDFF82C58EA8u, 0x071AC235C1282FE2u,
    0x013B2AB6FBA4E772u, 0x002BB0FFCF14CE62u, 0x00050C244BE1B1E1u, 0x00007FF2FF1622C3u,
    0x00000B160111D2E4u, 0x000000DA929E9CAFu, 0x0000000F267A8AC5u, 0x00000000F465639Au,
    0x000000000E1DEB28u, 0x0000000000C0B0C9u, 0x0000000000098A4Bu};
constexpr double kLog2E = 0x1.71547652b82fep+0;
constexpr double kLeastWeight = 41;  // y from here on has weight 0

uint64_t High64(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>((static_cast<Wide>(a) * b) >> 64);
}

// Descending logits, then ascending indices.
struct Before {
  const float* logits;
  bool operator()(int32_t a, int32_t b) const {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  }
};

}  // namespace

uint64_t SampleWeight(float max, float logit, float temperature) {
  // Without this, two infinities would make a NaN.
  if (logit == max) return uint64_t{1} << 40;
  const double y =
      (static_cast<double>(max) - static_cast<double>(logit)) / static_cast<double>(temperature) *
      kLog2E;
  if (!(y < kLeastWeight)) return 0;
  const auto q = static_cast<uint64_t>(y * 0x1p48);
  const uint64_t x = q << 16;
  uint64_t r = kExp2[kTerms - 1];
  for (int k = kTerms - 2; k >= 0; --k) r = kExp2[k] - High64(r, x);
  return r >> (23 + (q >> 48));
}

int64_t Argmax(const float* logits, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (!(logits[i] < std::numeric_limits<float>::infinity())) return -1 - i;
    if (logits[i] > logits[best]) best = i;
  }
  return best;
}

int64_t Sample(const float* logits, int64_t count, const SampleOptions& options, double uniform) {
  const int64_t best = Argmax(logits, count);
  if (best < 0 || options.temperature == 0) return best;

  const bool some = options.top_k > 0 && options.top_k < count;
  const auto size = static_cast<size_t>(count);
  std::vector<uint64_t> weights(size);
  for (size_t i = 0; i < size; ++i) {
    weights[i] = SampleWeight(logits[best], logits[i], options.temperature);
  }
  const auto target_of = [uniform](uint64_t kept) {
    return std::min(static_cast<uint64_t>(uniform * static_cast<double>(kept)), kept - 1);
  };
  uint64_t sum = 0;
  if (!some && options.top_p >= 1 && options.min_p <= 0) {
    for (const uint64_t w : weights) sum += w;
    const uint64_t target = target_of(sum);
    uint64_t running = 0;
    size_t i = 0;
    while ((running += weights[i]) <= target) ++i;
    return static_cast<int64_t>(i);
  }

  std::vector<int32_t> order(size);
  for (size_t i = 0; i < size; ++i) order[i] = static_cast<int32_t>(i);
  if (some) {
    std::partial_sort(order.begin(), order.begin() + options.top_k, order.end(), Before{logits});
    order.resize(static_cast<size_t>(options.top_k));
  } else {
    std::sort(order.begin(), order.end(), Before{logits});
  }
  uint64_t total = 0;
  for (const int32_t token : order) total += weights[token];
  auto limit = std::numeric_limits<uint64_t>::max();
  if (options.top_p < 1) {
    limit = static_cast<uint64_t>(
        std::ceil(static_cast<double>(options.top_p) * static_cast<double>(total)));
  }
  const auto least = static_cast<uint64_t>(std::ceil(static_cast<double>(options.min_p) * 0x1p40));
  size_t kept = 0;
  while (kept < order.size() &&
         (kept == 0 || (sum < limit && weights[order[kept]] >= least))) {
    sum += weights[order[kept++]];
  }
  const uint64_t target = target_of(sum);
  uint64_t running = 0;
  size_t i = 0;
  while ((running += weights[order[i]]) <= target) ++i;
  return order[i];
}

void Penalize(float* logits, int64_t count, const int32_t* tokens, int64_t token_count,
              float penalty) {
  for (int64_t i = 0; i < token_count; ++i) {
    if (tokens[i] < 0 || tokens[i] >= count) continue;
    float& logit = logits[tokens[i]];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

}  // namespace nibble
