// SPDX-License-Identifier: Apache-2.0
//
// Runs the mutants of one module as a device of one generation loads it.
//
// The module is parsed and its kernels are decoded once; a mutant replaces one instruction. Only
// the cases that run the broken line are run, cheap ones first, until one fails, on as many
// processes as there are CPUs.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "kernels-cuda/common/modules.h"
#include "kernels-cuda/testing/mutate.h"
#include "kernels-cuda/testing/verification.h"

namespace nibble::cuda {

enum class Verdict : uint8_t {
  kNotRun,
  kSeen,     // a case fails
  kInvalid,  // is not PTX: no compiler makes it, no driver loads it
  kPassed,   // no case fails, but the kernels leave other bytes in global memory than intact ones
  kSame,     // all cases' kernels leave the same bytes: it does the same on all of their inputs
  kCrashed,  // the emulator did not survive it
};

// A case of a verification as it runs on the intact module.
struct MutationCase {
  const std::function<bool(Device&)>* run;
  std::set<int> lines;        // of the module, that it runs
  double seconds = 0;
  // Of what its kernels stored (emulator::StoredDigests); 0: differs from seed to seed, as the
  // order does in which threads have put something down.
  std::vector<uint64_t> digests;
  uint64_t longest_warp = 0;  // instructions
};

struct Subject {
  const ModuleImage* image = nullptr;
  int sm = 0;
  std::vector<const Verification*> verifications;
  std::vector<MutationCase> cases;  // cheap ones first
  std::vector<Mutant> mutants;      // of the lines that cases run
  std::vector<Mutant> unreached;    // of those that none runs
};

// Runs all cases on the intact module and fills in the rest. "", or what is wrong.
std::string Prepare(Subject* subject);

// Runs the subject's mutants in order, as long as there is time. One verdict a mutant.
std::vector<Verdict> RunMutants(const Subject& subject, double seconds);

}  // namespace nibble::cuda
