// SPDX-License-Identifier: Apache-2.0
//
// The fuzz target on random inputs; NIBBLE_FUZZ_RUNS sets their number. Under the sanitizers'
// build this is the fuzzing of every test run. A failure aborts after the seed was printed:
// `fuzz_abi --random 1 SEED` repeats it.
#include "native/fuzz/fuzz_abi.cc"

#include "native/fuzz/random_input.h"
#include "native/tests/abi_test.h"

namespace nibble {
namespace {

TEST(AbiFuzz, RandomInputs) {
  const char* text = std::getenv("NIBBLE_FUZZ_RUNS");
  const uint64_t runs = text != nullptr ? std::strtoull(text, nullptr, 10) : 1000;
  const uint64_t first = TestSeed() * 1000003u;
  std::printf("inputs %llu to %llu\n", static_cast<unsigned long long>(first),
              static_cast<unsigned long long>(first + runs - 1));
  std::fflush(stdout);
  for (uint64_t i = 0; i < runs; ++i) {
    const std::vector<uint8_t> input = fuzz::RandomInput(first + i);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  EXPECT_EQ(fuzz::Statistics().size(), 41u) << "functions that were called";
  for (const auto& [function, calls] : fuzz::Statistics()) {
    std::printf("%-26s %8lld calls, %3.0f %% good\n", function.c_str(),
                static_cast<long long>(calls.all),
                100.0 * static_cast<double>(calls.good) / static_cast<double>(calls.all));
    if (runs < 1000) continue;
    EXPECT_GT(calls.good, 0) << function << ": nothing behind its checks was reached";
    EXPECT_GT(calls.all, calls.good) << function << ": nothing was refused";
  }
}

}  // namespace
}  // namespace nibble
