// SPDX-License-Identifier: Apache-2.0
//
// The hash sees every single-bit change, the length, the order of words and of lines.
#include "kernels-cpu/memory/hash.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

#include "kernels-cpu/testing/guarded_buffer.h"
#include "kernels-cpu/testing/kernel_test.h"

namespace nibble {
namespace {

TEST(Hash, SeesEveryBitAndEveryLength) {
  auto random = TestRandom(41);
  std::set<uint64_t> seen;
  size_t count = 0;
  for (size_t bytes = 0; bytes <= 200; ++bytes) {
    GuardedBuffer<uint8_t> data(bytes);
    for (uint8_t& b : data) b = uint8_t(random());
    seen.insert(HashBytes(data.data(), bytes));
    ++count;
    for (size_t bit = 0; bit < 8 * bytes; ++bit) {
      data[bit / 8] ^= uint8_t(1 << bit % 8);
      seen.insert(HashBytes(data.data(), bytes));
      ++count;
      data[bit / 8] ^= uint8_t(1 << bit % 8);
    }
  }
  EXPECT_EQ(seen.size(), count);
}

TEST(Hash, SeesZerosAndTheOrderOfWordsAndLines) {
  std::vector<uint8_t> data(4096, 0);
  std::set<uint64_t> seen;
  for (size_t bytes = 0; bytes <= data.size(); ++bytes) seen.insert(HashBytes(data.data(), bytes));
  EXPECT_EQ(seen.size(), data.size() + 1);
  for (size_t i = 0; i < data.size(); ++i) data[i] = uint8_t(i / 8 * 7 + i / 64);
  const uint64_t whole = HashBytes(data.data(), data.size());
  for (size_t a = 0; a < 64; ++a) {
    for (size_t b = a + 1; b < 64; ++b) {
      std::vector<uint8_t> swapped = data;
      for (int i = 0; i < 8; ++i) std::swap(swapped[a * 64 + i], swapped[b * 64 + i]);
      EXPECT_NE(HashBytes(swapped.data(), swapped.size()), whole) << a << " " << b;
    }
  }
  std::vector<uint8_t> swapped = data;
  for (int i = 0; i < 8; ++i) std::swap(swapped[i], swapped[8 + i]);
  EXPECT_NE(HashBytes(swapped.data(), swapped.size()), whole);
}

}  // namespace
}  // namespace nibble
