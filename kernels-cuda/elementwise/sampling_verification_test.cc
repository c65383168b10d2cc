// SPDX-License-Identifier: Apache-2.0
//
// What the mutation suite runs on broken versions of the kernels that choose a token.
#include <algorithm>
#include <cmath>

#include "kernels-cpu/elementwise/sample.h"
#include "kernels-cuda/elementwise/elementwise.h"
#include "kernels-cuda/elementwise/verification_block_for_test.h"
#include "kernels-cuda/testing/verification.h"

namespace nibble::cuda::elementwise {
namespace {

// Rows of logits, what they are drawn with, and the tokens that the definition chooses.
struct Draw {
  Draw(const std::vector<float>& values, int64_t row_count, int64_t col_count,
       const SampleOptions& how)
      : logits(values), rows(row_count), cols(col_count), options(how) {
    stride = static_cast<int64_t>(logits.size()) / rows;
    constexpr double kUniforms[] = {0.61, 1 - 0x1p-53, 0.29, 0.03, 0.5, 0.87};
    for (int64_t r = 0; r < rows; ++r) {
      uniforms.push_back(kUniforms[r % 6]);
      expected.push_back(nibble::Sample(&logits[r * stride], cols, options, uniforms.back()));
    }
  }

  std::vector<float> logits;
  int64_t rows, cols, stride;
  SampleOptions options;
  std::vector<double> uniforms;
  std::vector<int32_t> expected;
  bool all_are_candidates = false;
};

// Whether each row has put down its candidates in room of its own, behind the weights.
bool AllAreCandidates(const Block& scratch, int64_t tokens) {
  std::vector<uint64_t> candidates;
  return scratch.Read(&candidates, static_cast<size_t>(tokens), static_cast<size_t>(tokens * 8)) &&
         std::count(candidates.begin(), candidates.end(), 0xA5A5A5A5A5A5A5A5u) == 0;
}

bool SampleMatches(Device& device, const Draw& draw) {
  const int64_t rows = draw.rows, cols = draw.cols;
  const int64_t bytes = SampleScratchBytes(rows, cols);
  const Block dl(device, draw.logits), du(device, draw.uniforms);
  const Block ids(device, nullptr, static_cast<size_t>(rows * 4));
  const Block scratch(device, nullptr, static_cast<size_t>(bytes));
  std::vector<int32_t> got;
  return Sample(device, {dl.get(), draw.stride}, rows, cols, draw.options, du.get(), ids.get(),
                {scratch.get(), bytes}).ok() &&
         ids.Read(&got, draw.expected.size()) && got == draw.expected &&
         (!draw.all_are_candidates || AllAreCandidates(scratch, rows * cols));
}

bool VerifyPenalize(Device& device) {
  std::vector<float> row = Values(600, 19), got;
  std::vector<int32_t> tokens;
  for (int32_t t = -2; t < 610; t += 2) tokens.push_back(t);
  const Block dl(device, row), dt(device, tokens);
  const auto count = static_cast<int64_t>(tokens.size());
  nibble::Penalize(row.data(), 600, tokens.data(), count, 1.7f);
  return Penalize(device, dl.get(), 600, dt.get(), count, 1.7f).ok() && dl.Read(&got, 600) &&
         got == row;
}

VerificationCases SamplingCases() {
  VerificationCases cases = {VerifyPenalize};
  const auto add = [&](const std::vector<float>& logits, int64_t rows, int64_t cols,
                       const SampleOptions& options, bool all_are_candidates = false) {
    Draw draw(logits, rows, cols, options);
    draw.all_are_candidates = all_are_candidates;
    cases.push_back([draw](Device& device) { return SampleMatches(device, draw); });
  };
  // Wide enough for every load that goes ahead (4 times 1024 threads). Neighbours differ, so that
  // a weight in another's place shows, and so many rows that it shows in a draw.
  constexpr int64_t kCols = 4200, kStride = 4201, kRows = 4;
  std::vector<float> logits = Values(kRows * kStride, 17);
  for (float& x : logits) x *= 2;
  logits[3 * kStride + 4099] = NAN;
  for (const SampleOptions& o :
       {SampleOptions{0, 0, 1, 0}, SampleOptions{1, 0, 1, 0}, SampleOptions{0.7f, 40, 1, 0},
        SampleOptions{1.3f, 0, 0.8f, 0}, SampleOptions{1, 900, 0.95f, 0.02f},
        SampleOptions{0.1f, 4100, 1, 0}, SampleOptions{0.5f, 3000, 1, 0},
        SampleOptions{5, 1, 1, 0},
        // Down to negative logits.
        SampleOptions{3, 3000, 0.99f, 0}, SampleOptions{20, 2100, 1, 0.001f},
        SampleOptions{50, 2900, 0.9f, 0}, SampleOptions{100, 0, 0.7f, 0},
        SampleOptions{2, 0, 0.37f, 0}, SampleOptions{0.6f, 0, 0.99f, 0}}) {
    add(logits, kRows, kCols, o);
  }
  // Ties, zeros of both signs, nothing but -infinity.
  std::vector<float> ties = Values(2 * 1500, 23), zeros(kCols, -1);
  for (float& x : ties) x = std::round(x * 4) / 2;
  for (int64_t i = 300; i < kCols; i += 400) zeros[i] = i % 800 == 300 ? -0.0f : 0.0f;
  for (int64_t first = 300; first < kCols; first += 400) {
    add(zeros, 1, kCols, {0, 0, 1, 0});
    zeros[first] = -1;
  }
  zeros[700] = zeros[3500] = 0.0f;
  zeros[1900] = -0.0f;
  add(zeros, 1, kCols, {1, 2, 1, 0});
  add(ties, 2, 1500, {1, 300, 0.9f, 0});
  add(std::vector<float>(2 * 40, -INFINITY), 2, 40, {1, 0, 1, 0});
  add(std::vector<float>(2 * 2200, -0.0f), 2, 2200, {1, 2000, 0.5f, 0});
  // Equal weights, targets exactly between two tokens: a sum that is off by one shows.
  const std::vector<float> equal(6 * 40, 0.5f);
  for (const SampleOptions& o : {SampleOptions{1, 0, 1, 0}, SampleOptions{1, 0, 0.5f, 0},
                                 SampleOptions{1, 30, 0.5f, 0}}) {
    add(equal, 6, 40, o, o.top_k != 0 || o.top_p < 1);
  }
  // Behind each token one that cannot be drawn.
  std::vector<float> every_other(6 * 40, 0.5f);
  for (size_t i = 1; i < every_other.size(); i += 2) every_other[i] = -INFINITY;
  add(every_other, 6, 40, {1, 15, 1, 0});
  // The last token of a selection is drawn, wherever it lies.
  for (const int32_t k : {500, 501, 1500, 1501, 2500, 2501, 3500, 3501}) {
    add(std::vector<float>(2 * kCols, 0.5f), 2, kCols, {1, k, 1, 0});
  }
  return cases;
}
const VerificationRegistration kSampling(
    {"sampling", {"sampling"}, SamplingCases, {80, 89, 90, 120}});

}  // namespace
}  // namespace nibble::cuda::elementwise
