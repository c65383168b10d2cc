// SPDX-License-Identifier: Apache-2.0
//
// Runs a case under several seeds of the emulator: other orders of warps and blocks.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels-cuda/emulator/emulator.h"
#include "kernels-cuda/gemm_i4f8/gemm_i4f8_case.h"

namespace nibble::cuda::gemm_i4f8 {

// All give the bits of *first.
inline void ExpectSameBitsOfEverySeed(Device& device, const PreparedCase& prepared,
                                      const std::string& what, std::vector<uint8_t>* first) {
  const emulator::Options before = emulator::GetOptions();
  std::vector<uint8_t> again;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    emulator::Options options = before;
    options.seed = seed;
    emulator::SetOptions(options);
    const Status status = prepared.Run(device, seed == 1 ? first : &again);
    emulator::SetOptions(before);
    ASSERT_TRUE(status.ok()) << status.message();
    if (seed > 1) {
      ASSERT_EQ(*first, again) << what;
    }
  }
}

}  // namespace nibble::cuda::gemm_i4f8
