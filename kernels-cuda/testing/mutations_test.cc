// SPDX-License-Identifier: Apache-2.0
//
// Breaks the kernels in many small ways and demands that the families' verifications (see
// verification.h) see it: every mutant that moves or orders data otherwise (but for those listed
// in equivalent_mutants.h), and of those that compute otherwise the share kComputedShare. A normal
// run takes a sample that the seed chooses, half of each sort; with NIBBLE_FULL_TESTS set every
// mutant of every generation is run (hours). NIBBLE_MUTATION_MODULE names one module,
// NIBBLE_MUTATION_CHANGE one kind of change, NIBBLE_MUTATION_SECONDS another budget.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <random>

#include "kernels-cuda/testing/emulated_device.h"
#include "kernels-cuda/testing/equivalent_mutants.h"
#include "kernels-cuda/testing/mutate.h"
#include "kernels-cuda/testing/verification.h"

namespace nibble::cuda {
namespace {

// The normal run's share of the CUDA tests' time.
constexpr double kBudgetSeconds = 60;

// Of the mutants that compute otherwise, those that must be seen. The rest does the same as the
// kernel (see MovesData).
constexpr double kComputedShare = 0.75;

std::string Environment(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// One module as a device of a generation loads it.
struct Subject {
  const ModuleImage* image;
  int sm;
  std::vector<const Verification*> verifications;
  double seconds = 0;  // of its verifications
  uint64_t instructions = 0;
  std::vector<Mutant> mutants;
};

bool Holds(const Verification& verification, int sm) {
  std::unique_ptr<Device> device;
  if (!Device::Open(emulator::EmulatedDriver(sm, true), 0, &device).ok()) return false;
  const bool held = verification.verify(*device);
  return held && device->Synchronize().ok();
}

// Runs the intact kernels, and finds which lines they reach and what can be broken there.
bool Prepare(Subject* subject) {
  emulator::RecordLines(true);
  const uint64_t before = emulator::InstructionsRun();
  const double begin = Now();
  for (const Verification* verification : subject->verifications) {
    if (!Holds(*verification, subject->sm)) {
      ADD_FAILURE() << verification->name << " fails on intact kernels (sm_" << subject->sm
                    << "): " << emulator::LastViolation();
      return false;
    }
  }
  subject->seconds = Now() - begin;
  subject->instructions = emulator::InstructionsRun() - before;
  emulator::RecordLines(false);
  subject->mutants = Mutants(subject->image->ptx, emulator::LinesRun(subject->image->ptx));
  const std::string change = Environment("NIBBLE_MUTATION_CHANGE");
  if (!change.empty()) {
    auto& all = subject->mutants;
    all.erase(
        std::remove_if(all.begin(), all.end(), [&](const Mutant& m) { return m.change != change; }),
        all.end());
  }
  EXPECT_FALSE(emulator::LinesRun(subject->image->ptx).empty())
      << subject->image->name << " is not run by its verifications";
  return true;
}

bool IsSeen(const Subject& subject, const Mutant& mutant) {
  const std::string broken = Apply(subject.image->ptx, mutant);
  emulator::SetPtxHook(
      [&](const char* image) { return image == subject.image->ptx ? broken : std::string(); });
  const emulator::Options before = emulator::GetOptions();
  emulator::Options options = before;
  options.max_steps = subject.instructions + 10000;  // a loop that no longer ends
  emulator::SetOptions(options);
  bool seen = false;
  for (const Verification* verification : subject.verifications) {
    if (!Holds(*verification, subject.sm)) {
      seen = true;
      break;
    }
  }
  emulator::SetOptions(before);
  emulator::SetPtxHook(nullptr);
  return seen;
}

const char* EquivalenceOf(const Subject& subject, const Mutant& mutant) {
  for (const EquivalentMutant& known : kEquivalentMutants) {
    if (std::string(subject.image->name) == known.module && mutant.change == known.change &&
        mutant.kernel.find(known.kernel) != std::string::npos &&
        Normalized(mutant.original) == known.line) {
      return known.reason;
    }
  }
  return nullptr;
}

TEST(Mutations, EveryMutantIsSeen) {
  const bool full =
      !Environment("NIBBLE_FULL_TESTS").empty() && Environment("NIBBLE_FULL_TESTS") != "0";
  const std::string only = Environment("NIBBLE_MUTATION_MODULE");
  std::mt19937_64 random(TestSeed());
  std::map<std::pair<std::string, int>, Subject> subjects;
  for (const Verification& verification : Verifications()) {
    for (const std::string& module : verification.modules) {
      if (!only.empty() && module != only) continue;
      for (int sm : verification.generations) {
        bool cubin = false;
        const ModuleImage* image = ChooseImage(module.c_str(), sm, &cubin);
        ASSERT_NE(image, nullptr) << module;
        Subject& subject = subjects[{module, sm}];
        subject.image = image;
        subject.sm = sm;
        subject.verifications.push_back(&verification);
      }
    }
  }
  ASSERT_FALSE(subjects.empty()) << "no kernel family has registered a verification";
  // A sample: one generation of each module.
  std::map<std::string, std::vector<Subject*>> modules;
  for (auto& entry : subjects) modules[entry.first.first].push_back(&entry.second);
  const double begin = Now();
  const std::string asked = Environment("NIBBLE_MUTATION_SECONDS");
  const double budget = asked.empty() ? kBudgetSeconds : std::atof(asked.c_str());
  struct Count {
    int run = 0, missed = 0;
  };
  Count moved, computed;
  int listed = 0;
  std::string unseen;
  size_t left = modules.size();
  for (auto& [module, versions] : modules) {
    const double share = (budget - (Now() - begin)) / static_cast<double>(left--);
    const double module_begin = Now();
    std::shuffle(versions.begin(), versions.end(), random);
    if (!full) versions.resize(1);
    for (Subject* subject : versions) {
      if (!Prepare(subject)) continue;
      std::shuffle(subject->mutants.begin(), subject->mutants.end(), random);
      for (bool moves : {true, false}) {
        for (const Mutant& mutant : subject->mutants) {
          if (MovesData(mutant) != moves) continue;
          // Half of the time, and one mutant at least, for each sort.
          Count& count = moves ? moved : computed;
          if (!full && Now() - module_begin > (moves ? share / 2 : share)) break;
          if (EquivalenceOf(*subject, mutant) != nullptr) {
            ++listed;
            continue;
          }
          ++count.run;
          if (IsSeen(*subject, mutant)) continue;
          ++count.missed;
          const std::string text = module + " (sm_" + std::to_string(subject->sm) + "), kernel " +
                                   mutant.kernel + ", PTX line " + std::to_string(mutant.line) +
                                   ": the change \"" + mutant.change + "\" is not seen\n  was " +
                                   Normalized(mutant.original) + "\n  is  " +
                                   Normalized(mutant.mutated) + "\n";
          if (moves) {
            ADD_FAILURE() << text;
          } else {
            unseen += text;
          }
        }
      }
    }
  }
  std::printf(
      "mutants that move data: %d run, %d not seen, %d listed as equivalent; that compute: %d run, "
      "%d not seen\n",
      moved.run, moved.missed, listed, computed.run, computed.missed);
  EXPECT_GE(computed.run - computed.missed, kComputedShare * computed.run) << unseen;
  if (Environment("NIBBLE_MUTATION_VERBOSE") == "1") std::printf("%s", unseen.c_str());
}

}  // namespace
}  // namespace nibble::cuda
