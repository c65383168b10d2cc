// SPDX-License-Identifier: Apache-2.0
//
// Timing calls one by one: the median is what is reported, the extremes show how quiet the
// machine was.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

#include "bench/native/json.h"

namespace nibble::bench {

inline double Now() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

// How long to go on: at least min_calls, then until seconds are over.
struct Effort {
  int min_calls;
  double seconds;
};

struct Timing {
  int calls;
  double median, min, max;  // seconds a call

  void Write(Json& json) const {
    json.Field("calls", calls)
        .Field("median_s", median)
        .Field("min_s", min)
        .Field("max_s", max);
  }
};

inline Timing Summarize(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const size_t count = seconds.size(), middle = count / 2;
  const double median =
      count % 2 == 1 ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2;
  return {static_cast<int>(count), median, seconds.front(), seconds.back()};
}

// Calls warm_up once, then times work call by call.
template <class WarmUp, class Work>
Timing Measure(const Effort& effort, const WarmUp& warm_up, const Work& work) {
  constexpr int kMaxCalls = 10000;
  warm_up();
  std::vector<double> seconds;
  const double begin = Now();
  for (double last = begin; static_cast<int>(seconds.size()) < kMaxCalls;) {
    if (static_cast<int>(seconds.size()) >= effort.min_calls && last - begin >= effort.seconds) {
      break;
    }
    work();
    const double now = Now();
    seconds.push_back(now - last);
    last = now;
  }
  return Summarize(std::move(seconds));
}

template <class Work>
Timing Measure(const Effort& effort, const Work& work) {
  return Measure(effort, work, work);
}

}  // namespace nibble::bench
