// SPDX-License-Identifier: Apache-2.0
//
// The parts of a benchmark run. Each writes one JSON array, a result an element; what has no
// kernel is left out and named in `skipped`.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "bench/native/abi.h"
#include "bench/native/json.h"
#include "bench/native/limits.h"
#include "bench/native/shape_list.h"
#include "bench/native/timing.h"

namespace nibble::bench {

struct Options {
  int threads = 1;
  // Everything of the list. Otherwise, for a run of minutes:
  //   products   all kernels with the first model's matrices, and those that multiply a scheme's
  //              projections with all models'; the head with kernels that are some scheme's head,
  //              and of at most 8 rows, since few tokens' logits are ever needed together
  //   models     the first one alone is run as a whole
  bool full = false;
  bool smoke = false;  // tiny effort and little memory, for tests
  // Nothing in a set means everything.
  std::set<std::string> kernels, models, schemes;
  std::set<int64_t> rows;

  Effort effort(int min_calls, double seconds) const {
    return smoke ? Effort{1, 0} : Effort{min_calls, seconds};
  }
  int64_t cold_bytes() const { return smoke ? 1 << 16 : ColdBytes(); }
  template <class T>
  static bool Wants(const std::set<T>& set, const T& item) {
    return set.empty() || set.count(item) > 0;
  }
};

struct Run {
  const ShapeList& list;
  Options options;
  Limits& limits;
  std::vector<std::string> skipped;
  std::function<void(const std::string&)> progress;
};

// Products of every distinct shape, weights cycling through memory beyond the caches.
void RunGemm(Run& run, Json& json);

// Attention over caches of each type: one query token against a long cache, and a prefill.
void RunAttention(Run& run, Json& json);

// Whole models: prefill, decode behind growing contexts.
void RunModels(Run& run, Json& json);

// The same with 1 thread to as many as are asked for.
void RunThreads(Run& run, Json& json);

// Answers each line "decode N" on standard input with the seconds that decoding N tokens from an
// empty cache took, until the input ends: for a caller who measures something else in turn.
void ServeDecode(const Model& model, const Scheme& scheme, int threads);

}  // namespace nibble::bench
