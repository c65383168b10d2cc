// SPDX-License-Identifier: Apache-2.0
//
// How a kernel family lends its kernels to the mutation suite (emulator/mutations/), which breaks
// their PTX in many small ways and demands that each break is seen.
//
// In the family's *_test.cc, at namespace scope:
//
//   // A few launches that reach every line of the modules on a device of the given generation,
//   // compared with a reference. True if all is well. It must not use gtest's EXPECT (a mutant is
//   // meant to fail), must not depend on anything random, and should take well under a second.
//   bool VerifyQuantize(Device& device) { ... return matches; }
//   const VerificationRegistration kQuantize({"elementwise", {"quantize", "rms_norm"},
//   VerifyQuantize,
//                                             {80, 89, 90, 120}});
//
// The suite runs Verify on the intact modules first (it must be true), then once a mutant. Several
// registrations may name one module: a mutant of it counts as seen if one of them fails.
#pragma once

#include <string>
#include <vector>

#include "kernels-cuda/common/device.h"

namespace nibble::cuda {

struct Verification {
  std::string name;                  // unique
  std::vector<std::string> modules;  // .cu files (without suffix) whose kernels it runs
  bool (*verify)(Device& device);    // false, or a device that is lost: something is wrong
  std::vector<int> generations;      // to run it on
};

// In the order of registration.
const std::vector<Verification>& Verifications();

struct VerificationRegistration {
  explicit VerificationRegistration(Verification verification);
};

}  // namespace nibble::cuda
