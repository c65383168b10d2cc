// SPDX-License-Identifier: Apache-2.0
//
// Random inputs for fuzz targets, one for each seed.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace nibble::fuzz {

inline std::vector<uint8_t> RandomInput(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> input(64 + random() % 1024);
  for (uint8_t& b : input) b = static_cast<uint8_t>(random());
  return input;
}

}  // namespace nibble::fuzz
