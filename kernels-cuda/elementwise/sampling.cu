// SPDX-License-Identifier: Apache-2.0
//
// Choosing a token from a row of logits, one block a row: what kernels-cpu/elementwise/sample.h
// defines, to the bit. All sums are of integers, so that any order of threads, and of the atomic
// additions below, gives the same token.
//
// Order: descending logits, then ascending indices. Both are one 64-bit key, larger first:
//
//   key   | 63 .. 32: the logit's bits, made to order as integers | 31 .. 0: ~index |
//
// A selection finds the first token in this order at which a running sum (of ones, or of weights)
// exceeds a target, without sorting:
//
//   1. a histogram over all tokens that have a weight by its logarithm, 32 bins an octave: a weight
//      never grows along the order, so bins follow one another in it, and they spread the
//      additions, which the leading bits of a logit would pile on a few bins
//   2. the bin in which the sum crosses the target; its tokens' keys are gathered
//   3. among those, the key bit by bit: 11 bits a round, again a histogram and the bin that
//      crosses it
//
// top_k, top_p and the draw are one selection each; the first two leave a least key, the bound of
// what remains. Sums stay below 2^62: at most 2^22 tokens of weight at most 2^40. cols: 1 to 2^22
// for sample_*, to 2^31 - 1 for argmax.
#include "kernels-cuda/elementwise/block.cuh"
#include "kernels-cuda/elementwise/params.h"

namespace nibble::cuda::elementwise {
namespace {

using Wide = unsigned long long;  // what CUDA's 64-bit intrinsics and atomics take

constexpr int kDigitBits = 11;
constexpr int kBins = 1 << kDigitBits;
enum Selection { kTopK, kTopP, kDraw, kSelections };
constexpr int kBinsAThread = kBins / kTokenThreads;
constexpr int kAhead = 4;  // loads of a thread under way at once

// A number's bits, ordered as integers are; both zeros are one number.
__device__ __forceinline__ uint32_t OrderedBits(float x) {
  const uint32_t bits = __float_as_uint(x);
  if (bits == 0x80000000u) return 0x80000000u;
  return bits ^ (static_cast<int32_t>(bits) < 0 ? 0xFFFFFFFFu : 0x80000000u);
}

__device__ __forceinline__ uint64_t Key(float logit, int64_t index) {
  return (static_cast<uint64_t>(OrderedBits(logit)) << 32 | 0xFFFFFFFFu) -
         static_cast<uint64_t>(index);
}

__device__ __forceinline__ int64_t KeyIndex(uint64_t key) { return ~static_cast<uint32_t>(key); }

__device__ __forceinline__ Wide WarpMaxWide(Wide x) {
#pragma unroll
  for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) {
    const Wide y = __shfl_xor_sync(kAllLanes, x, offset);
    x = y > x ? y : x;
  }
  return x;
}

// SampleWeight of sample.h.
__device__ __forceinline__ uint64_t Weight(float max, float logit, float temperature) {
  constexpr uint64_t kExp2[] = {
      0x8000000000000000u, 0x58B90BFBE8E7BCD5u, 0x1EBFBDFF82C58EA8u, 0x071AC235C1282FE2u,
      0x013B2AB6FBA4E772u, 0x002BB0FFCF14CE62u, 0x00050C244BE1B1E1u, 0x00007FF2FF1622C3u,
      0x00000B160111D2E4u, 0x000000DA929E9CAFu, 0x0000000F267A8AC5u, 0x00000000F465639Au,
      0x000000000E1DEB28u, 0x0000000000C0B0C9u, 0x0000000000098A4Bu};
  constexpr int kTerms = sizeof(kExp2) / sizeof(kExp2[0]);
  if (logit == max) return uint64_t{1} << 40;
  const double below = __dsub_rn(static_cast<double>(max), static_cast<double>(logit));
  const double y =
      __dmul_rn(__ddiv_rn(below, static_cast<double>(temperature)), 0x1.71547652b82fep+0);
  if (!(y < 41)) return 0;
  const auto q = static_cast<uint64_t>(__double2ll_rz(__dmul_rn(y, 0x1p48)));
  const uint64_t x = q << 16;
  uint64_t r = kExp2[kTerms - 1];
#pragma unroll
  for (int k = kTerms - 2; k >= 0; --k) r = kExp2[k] - __umul64hi(r, x);
  return r >> (23 + static_cast<int>(q >> 48));
}

// 1 + 32 log2(weight), interpolated: never smaller for a larger weight, at most 1 + 32 * 40.
// Weight 0 has none of the bins.
__device__ __forceinline__ int WeightBin(uint64_t weight) {
  const uint32_t bits = __float_as_uint(__ull2float_rz(weight));
  return static_cast<int>(bits >> 18) - (127 << 5) + 1;
}

__device__ __forceinline__ uint64_t Lesser(uint64_t a, uint64_t b) { return a < b ? a : b; }

// What a selection over one row works with; everything here is the same for all threads.
struct Row {
  const float* logits;
  const uint64_t* weights;
  uint64_t* candidates;
  int64_t cols;
  uint64_t bound;  // tokens with a smaller key are out

  __device__ __forceinline__ bool Remains(int64_t i) const {
    return bound == 0 || Key(logits[i], i) >= bound;
  }

  // visit(i, weights[i]) for this thread's share of the tokens; loads go ahead of visits.
  template <class Visit>
  __device__ __forceinline__ void ForEachWeight(const Visit& visit) const {
#pragma unroll 1
    for (int64_t first = threadIdx.x; first < cols; first += kAhead * kTokenThreads) {
      uint64_t ahead[kAhead];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int64_t i = first + a * kTokenThreads;
        ahead[a] = i < cols ? weights[i] : 0;
      }
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int64_t i = first + a * kTokenThreads;
        if (i < cols) visit(i, ahead[a]);
      }
    }
  }
};

// Every array here is written again only behind a barrier that all its readers have reached: the
// one that ends FindCrossing, or the one that ends ClearBins.
struct Workspace {
  Wide bins[kBins];
  uint64_t partial[kWarpLanes];
  uint64_t before;  // the sum before the crossing bin
  int crossing;
  unsigned candidates[kSelections];  // found by each selection
};

// Sets w.crossing to the bin, from the highest down, at which the running sum (*before to start
// with) exceeds target(sum of all bins), and *before to the sum ahead of it.
template <class Target>
__device__ __forceinline__ void FindCrossing(Workspace& w, uint64_t* before,
                                             const Target& target) {
  const int first = kBins - 1 - kBinsAThread * static_cast<int>(threadIdx.x);
  uint64_t own = 0, total;
#pragma unroll
  for (int b = 0; b < kBinsAThread; ++b) own += w.bins[first - b];
  uint64_t running = *before + BlockSumBefore<kTokenThreads>(own, w.partial, &total);
  const uint64_t limit = target(total);
#pragma unroll
  for (int b = 0; b < kBinsAThread; ++b) {
    const uint64_t next = running + w.bins[first - b];
    if (running <= limit && limit < next) {
      w.crossing = first - b;
      w.before = running;
    }
    running = next;
  }
  __syncthreads();
  *before = w.before;
}

__device__ __forceinline__ void ClearBins(Workspace& w) {
#pragma unroll
  for (int b = 0; b < kBinsAThread; ++b) w.bins[threadIdx.x + b * kTokenThreads] = 0;
  __syncthreads();
}

// The key of the first remaining token at which the running sum of measure(weight) exceeds
// target(sum over all that remain); 0 where the whole sum does not. Tokens of weight 0 measure
// nothing: nobody sees where among them a selection ends. w.candidates[selection] is 0 before.
template <class Measure, class Target>
__device__ __forceinline__ uint64_t Select(const Row& row, Workspace& w, int selection,
                                           const Measure& measure, const Target& target) {
  ClearBins(w);
  row.ForEachWeight([&](int64_t i, uint64_t weight) {
    const uint64_t m = measure(weight);
    if (m != 0 && row.Remains(i)) {
      atomicAdd(&w.bins[WeightBin(weight)], static_cast<Wide>(m));
    }
  });
  __syncthreads();
  uint64_t sum = 0, limit = 0, before = 0;
  FindCrossing(w, &before, [&](uint64_t total) {
    sum = total;
    return limit = target(total);
  });
  if (limit >= sum) return 0;

  const int bin = w.crossing;
  row.ForEachWeight([&](int64_t i, uint64_t weight) {
    if (WeightBin(weight) == bin && measure(weight) != 0 && row.Remains(i)) {
      row.candidates[atomicAdd(&w.candidates[selection], 1u)] = Key(row.logits[i], i);
    }
  });
  __syncthreads();
  const unsigned candidates = w.candidates[selection];
  if (candidates == 1) return row.candidates[0];
  uint64_t found = 0;
  int shift = 64;
  while (shift > 0) {
    const int bits = shift < kDigitBits ? shift : kDigitBits;
    const uint64_t fixed = shift == 64 ? 0 : ~uint64_t{0} << shift;  // bits found so far
    shift -= bits;
    ClearBins(w);
#pragma unroll 1
    for (unsigned c = threadIdx.x; c < candidates; c += kTokenThreads) {
      const uint64_t key = row.candidates[c];
      if ((key & fixed) != found) continue;
      const int digit = static_cast<int>(key >> shift) & ((1 << bits) - 1);
      atomicAdd(&w.bins[digit], static_cast<Wide>(measure(row.weights[KeyIndex(key)])));
    }
    __syncthreads();
    FindCrossing(w, &before, [&](uint64_t) { return limit; });
    found |= static_cast<uint64_t>(w.crossing) << shift;
  }
  return found;
}

__device__ __forceinline__ uint64_t DrawTarget(double uniform, uint64_t kept) {
  const auto target =
      static_cast<uint64_t>(__double2ll_rz(__dmul_rn(uniform, __ull2double_rn(kept))));
  return Lesser(target, kept - 1);
}

// The draw among all tokens, in the order of their indices. Each warp owns a run of tokens; the
// warp whose run crosses the target walks it.
__device__ void DrawAny(const Row& row, Workspace& w, double uniform, int32_t* id) {
  constexpr int kWarps = kTokenThreads / kWarpLanes;
  const int lane = threadIdx.x % kWarpLanes, warp = threadIdx.x / kWarpLanes;
  const int64_t run = (row.cols + kWarps - 1) / kWarps;
  const int64_t begin = warp * run, end = min(begin + run, row.cols);
  uint64_t sum = 0;
#pragma unroll 1
  for (int64_t first = begin + lane; first < end; first += kAhead * kWarpLanes) {
    uint64_t ahead[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int64_t i = first + a * kWarpLanes;
      ahead[a] = i < end ? row.weights[i] : 0;
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) sum += ahead[a];
  }
  uint64_t total;
  const uint64_t own = BlockSumBefore<kTokenThreads>(sum, w.partial, &total);
  const uint64_t target = DrawTarget(uniform, total);
  // What stands before the run, and with it: from the warp's first lane and its last.
  uint64_t before = __shfl_sync(kAllLanes, static_cast<Wide>(own), 0);
  const uint64_t after = __shfl_sync(kAllLanes, static_cast<Wide>(own + sum), kWarpLanes - 1);
  if (before > target || target >= after) return;
#pragma unroll 1
  for (int64_t i = begin; i < end; i += kWarpLanes) {
    const uint64_t upto = WarpSumUpTo(i + lane < end ? row.weights[i + lane] : 0);
    const unsigned beyond = __ballot_sync(kAllLanes, before + upto > target);
    if (beyond != 0) {
      if (lane == 0) *id = static_cast<int32_t>(i + __ffs(beyond) - 1);
      return;
    }
    before += __shfl_sync(kAllLanes, static_cast<Wide>(upto), kWarpLanes - 1);
  }
}

}  // namespace
}  // namespace nibble::cuda::elementwise

using namespace nibble::cuda;
using namespace nibble::cuda::elementwise;

// One block a row. NaN and +infinity are larger than all numbers, so that the first of them wins.
extern "C" __global__ void __launch_bounds__(kTokenThreads)
    argmax(const float* logits, int64_t stride, int64_t cols, int32_t* ids) {
  __shared__ Wide partial[kWarpLanes];
  const float* row = logits + blockIdx.x * stride;
  Wide best = 0;
#pragma unroll 1
  for (int64_t first = threadIdx.x; first < cols; first += kAhead * kTokenThreads) {
    float ahead[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int64_t i = first + a * kTokenThreads;
      ahead[a] = i < cols ? row[i] : 0.0f;
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int64_t i = first + a * kTokenThreads;
      if (i >= cols) continue;
      const bool number = ahead[a] < __uint_as_float(0x7F800000u);
      const Wide key =
          number ? Key(ahead[a], i) : ~Wide{0} - static_cast<Wide>(i);
      best = key > best ? key : best;
    }
  }
  best = BlockReduce(best, Wide{0}, partial, WarpMaxWide);
  if (threadIdx.x == 0) {
    const auto index = static_cast<int32_t>(KeyIndex(best));
    ids[blockIdx.x] = best >> 32 == 0xFFFFFFFFu ? -1 - index : index;
  }
}

// weights [rows][cols]: row_blocks blocks a row. ids: argmax's.
extern "C" __global__ void __launch_bounds__(kPairThreads)
    sample_weights(const float* logits, int64_t stride, int64_t cols, int64_t row_blocks,
                   float temperature, const int32_t* ids, uint64_t* weights) {
  const int64_t row = blockIdx.x / row_blocks, block = blockIdx.x - row * row_blocks;
  const int32_t best = ids[row];
  if (best < 0) return;
  const float max = logits[row * stride + best];
#pragma unroll 1
  for (int64_t i = block * kPairThreads + threadIdx.x; i < cols; i += row_blocks * kPairThreads) {
    weights[row * cols + i] = Weight(max, logits[row * stride + i], temperature);
  }
}

// One block a row; ids: argmax's in, the drawn token out.
extern "C" __global__ void __launch_bounds__(kTokenThreads) sample_select(const SelectParams p) {
  __shared__ Workspace w;
  const int64_t r = blockIdx.x;
  if (p.ids[r] < 0) return;
  Row row = {p.logits + r * p.stride, p.weights + r * p.cols, p.candidates + r * p.cols,
             p.cols, 0};
  const double uniform = p.uniforms[r];
  if (p.top_k == 0 && p.top_p >= 1 && p.least_weight == 0) {
    DrawAny(row, w, uniform, p.ids + r);
    return;
  }
  if (threadIdx.x < kSelections) w.candidates[threadIdx.x] = 0;  // seen behind ClearBins
  uint64_t key = 0;
#pragma unroll 1  // one code for all three
  for (int s = kTopK; s <= kDraw; ++s) {
    if ((s == kTopK && p.top_k == 0) || (s == kTopP && p.top_p >= 1)) continue;
    row.bound = key;
    const uint64_t least = s == kDraw ? p.least_weight : 0;
    key = Select(
        row, w, s,
        [&](uint64_t x) {
          return s == kTopK ? static_cast<uint64_t>(x != 0) : x >= least ? x : 0;
        },
        [&](uint64_t total) {
          if (s == kTopK) return static_cast<uint64_t>(p.top_k) - 1;
          if (s == kDraw) return DrawTarget(uniform, total);
          const double share = __dmul_rn(p.top_p, __ull2double_rn(total));
          return static_cast<uint64_t>(__double2ll_ru(share)) - 1;
        });
  }
  if (threadIdx.x == 0) p.ids[r] = static_cast<int32_t>(KeyIndex(key));
}

// The repeat penalty on one row of logits; tokens are distinct.
extern "C" __global__ void __launch_bounds__(kPairThreads)
    penalize(float* logits, int64_t cols, const int32_t* tokens, int64_t count, float penalty) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t token = tokens[i];
  if (token < 0 || token >= cols) return;
  const float logit = logits[token];
  logits[token] = logit > 0 ? __fdiv_rn(logit, penalty) : __fmul_rn(logit, penalty);
}
