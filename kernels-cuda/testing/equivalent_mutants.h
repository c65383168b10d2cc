// SPDX-License-Identifier: Apache-2.0
//
// Mutants that no test can see, each with the argument why, and bounds for those that are counted:
// see mutations_test.cc. Each family lists its own in its *_mutants_test.cc.
#pragma once

#include <vector>

namespace nibble::cuda {

enum class Fate {
  kSame,       // leaves the same bytes, on all inputs that a kernel may be given
  kTolerated,  // leaves other bytes, all within the tolerance that the kernel is held to
};

struct EquivalentMutant {
  const char* module;  // a part of its name, as of the kernel's
  const char* kernel;
  const char* change;
  const char* line;  // without register numbers: see Normalized in mutate.h
  int places;        // such lines of one kernel that the argument is about, at most
  Fate fate;
  const char* reason;
};

// In percent: of the mutants that compute, those that do the same; of those that move data, those
// that are neither seen nor listed; of all, those that pass; of all mutants that there are, those
// of lines that no case runs.
struct ModuleBounds {
  const char* module;  // its name
  double same, unseen, passed, unreached;
};

struct KnownMutants {
  std::vector<EquivalentMutant> equivalent;
  std::vector<ModuleBounds> bounds;
};

// All that is registered. Entries stay where they are.
const KnownMutants& AllKnownMutants();

// At namespace scope.
struct KnownMutantsRegistration {
  explicit KnownMutantsRegistration(const KnownMutants& known);
};

}  // namespace nibble::cuda
