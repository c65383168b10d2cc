// SPDX-License-Identifier: Apache-2.0
//
// How a kernel family lends its kernels to the mutation suite (mutations_test.cc), which breaks
// their PTX in many small ways and demands that each break is seen.
//
// In the family's *_test.cc, at namespace scope:
//
//   // Launches, one or a few a case, that together reach every line of the modules, each compared
//   // with a reference. A case gives true if all is well. It must not use gtest's EXPECT (a mutant
//   // is meant to fail), must do the same in every run, and should take a few milliseconds: what
//   // can be worked out once (operands, references) is when the list is made.
//   VerificationCases QuantizeCases() { ... }
//   const VerificationRegistration kQuantize({"quantize", {"quantize"}, QuantizeCases, {80, 120}});
//
// The suite first runs every case on the intact modules (it must hold), then for each mutant those
// cases that run the broken line. Several registrations may name one module: their cases add up.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels-cuda/common/device.h"

namespace nibble::cuda {

// Each: false, or a device that is lost, if something is wrong.
using VerificationCases = std::vector<std::function<bool(Device&)>>;

struct Verification {
  std::string name;                  // unique
  std::vector<std::string> modules;  // .cu files (without suffix) whose kernels it runs
  VerificationCases (*cases)();      // called once a process
  std::vector<int> generations;      // to run it on
};

// In the order of registration.
const std::vector<Verification>& Verifications();

// The verification's cases, made at the first call.
const VerificationCases& CasesOf(const Verification& verification);

struct VerificationRegistration {
  explicit VerificationRegistration(Verification verification);
};

}  // namespace nibble::cuda
