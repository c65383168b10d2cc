// SPDX-License-Identifier: Apache-2.0
#include "native/src/simd_target.h"

#include <cstdlib>
#include <string>

#include "hwy/highway.h"
#include "hwy/targets.h"
#include "kernels-cpu/numerics/byte_dot.h"

namespace nibble::abi {
namespace {

struct Choice {
  std::string usable;     // names, best first
  std::string requested;  // NIBBLE_SIMD_TARGET, "" if unset
  nb_status status = NB_OK;
};

// Highway numbers its targets by one bit each; every name that is known at all is found by
// asking for the names of all bits, with each way of multiplying bytes.
bool IsKnownTarget(const std::string& name) {
  for (int bit = 0; bit < 63; ++bit) {
    for (const ByteDotUnit unit : kByteDotUnits) {
      const int64_t target = int64_t{1} << bit;
      if (!TargetHasByteDotUnit(target, unit)) continue;
      const char* known = ByteDotName(target, unit);
      // Highway answers "Unknown" in some form for unassigned bits.
      if (name == known && name.compare(0, 4, "Unkn") != 0 && name != "?") return true;
    }
  }
  return false;
}

// Only what the CPU announces counts: an instruction that executes unannounced, as it may in a
// virtual machine, may be gone after the machine has moved to another host.
Choice Choose() {
  Choice choice;
  // Lowest bit first is best first.
  const int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  int64_t forced = 0;
  const char* environment = std::getenv("NIBBLE_SIMD_TARGET");
  if (environment != nullptr) choice.requested = environment;
  for (int64_t rest = usable; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    for (const ByteDotUnit unit : kByteDotUnits) {
      if (!TargetHasByteDotUnit(target, unit) || !HasByteDotUnit(unit)) continue;
      const std::string name = ByteDotName(target, unit);
      if (!choice.usable.empty()) choice.usable += ' ';
      choice.usable += name;
      if (name == choice.requested) {
        forced = target;
        ForceByteDotUnit(unit);
      }
    }
  }
  if (forced != 0) {
    hwy::SetSupportedTargetsForTest(forced);
    // SetSupportedTargetsForTest defers the choice to the first dispatch: made here, so that
    // no two threads race for it.
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  } else if (!choice.requested.empty()) {
    choice.status = IsKnownTarget(choice.requested) ? NB_UNSUPPORTED : NB_INVALID_ARGUMENT;
  }
  return choice;
}

const Choice& TheChoice() {
  static const Choice choice = Choose();  // thread-safe: initialized once
  return choice;
}

}  // namespace

nb_status ApplySimdTarget(const char* function) {
  const Choice& choice = TheChoice();
  if (choice.status == NB_OK) return NB_OK;
  return Fail(choice.status,
              "%s: environment variable NIBBLE_SIMD_TARGET is \"%.64s\" but one of \"%s\" was "
              "expected%s",
              function, choice.requested.c_str(), choice.usable.c_str(),
              choice.status == NB_UNSUPPORTED ? ": this build or this CPU cannot run it" : "");
}

const char* UsableSimdTargets() { return TheChoice().usable.c_str(); }

const char* SimdTargetInUse() {
  TheChoice();
  const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  const int64_t best = targets & -targets;
  const ByteDotUnit unit = ChosenByteDotUnit();
  return ByteDotName(best, TargetHasByteDotUnit(best, unit) ? unit : ByteDotUnit::kOfTarget);
}

}  // namespace nibble::abi
