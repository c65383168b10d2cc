// SPDX-License-Identifier: Apache-2.0
//
// Breaks the kernels in many small ways and demands that the families' verifications (see
// verification.h) see it. A mutant's fate is one of these:
//
//   seen     a case of a verification fails, or the emulator objects
//   passed   no case fails, but in some launch the kernels leave other bytes in global memory than
//            the intact ones: within a tolerance, or the verification is too weak
//   same     in all launches of all cases the kernels leave the same bytes to the bit: no
//            comparison of results could tell it from the kernel on these inputs
//
// Where data is moved, ordered or masked (IsStrict), a mutant must be seen or be listed by itself.
// Where indices, bounds and paths are computed, some must do the same: a compiler chooses between
// loops that are unrolled or not and between wide and narrow accesses, and either is right; a bound
// that no lane meets exactly; index arithmetic of lanes that then do nothing; rounding towards zero
// of numbers that are never negative. Each fate's share is bounded for each module (ModuleBounds) by
// what the full run has come to, so that a verification that covers less than it did is noticed,
// and so is the share of mutants of lines that no case runs. Where a family allows passed or strict
// mutants at all, it says what no case looks at there.
//
// A normal run takes one generation of each module, and of its mutants as many as there is time
// for, in an order that the seed chooses: NIBBLE_TEST_SEED, which is printed. With
// NIBBLE_FULL_TESTS set it runs every mutant of every generation whose PTX differs.
// NIBBLE_MUTATION_MODULE names modules (separated by commas), NIBBLE_TEST_SM a generation,
// NIBBLE_MUTATION_SECONDS another budget; NIBBLE_MUTATION_VERBOSE=1 prints all that was not seen or
// not reached.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>

#include "kernels-cuda/testing/emulated_device.h"
#include "kernels-cuda/testing/equivalent_mutants.h"
#include "kernels-cuda/testing/mutation_run.h"

namespace nibble::cuda {
namespace {

const KnownMutantsRegistration kCompilersOwn({{
    {"", "", "mask", "and.b64 %rd, %rd, -4294967296;", 14, Fate::kSame,
     "The compiler's division of 64-bit numbers looks whether 32 bits hold both; the mutant takes "
     "numbers from 2^32 to 2^33 for such. What is divided here is numbers of blocks, rows, heads "
     "and keys, none of which a device's memory lets reach 2^32."},
}, {}});

// The normal run's share of the CUDA tests' time, of which preparing the modules takes a part.
constexpr double kBudgetSeconds = 300;

std::string Environment(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

bool Switch(const char* name) {
  const std::string text = Environment(name);
  return !text.empty() && text != "0";
}

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// By module, the generations that load different PTX.
std::map<std::string, std::vector<Subject>> Subjects() {
  const std::string only = Environment("NIBBLE_MUTATION_MODULE");
  const std::vector<int> generations = Generations();
  std::map<std::string, std::map<int, Subject>> all;
  for (const Verification& verification : Verifications()) {
    for (const std::string& module : verification.modules) {
      if (!only.empty() && ("," + only + ",").find("," + module + ",") == std::string::npos)
        continue;
      for (const int sm : verification.generations) {
        if (std::count(generations.begin(), generations.end(), sm) == 0) continue;
        bool cubin = false;
        const ModuleImage* image = ChooseImage(module.c_str(), sm, &cubin);
        if (image == nullptr) {
          ADD_FAILURE() << module << " is not there for sm_" << sm;
          continue;
        }
        Subject& subject = all[module][sm];
        subject.image = image;
        subject.sm = sm;
        subject.verifications.push_back(&verification);
      }
    }
  }
  std::map<std::string, std::vector<Subject>> different;
  std::set<std::string> texts;
  for (auto& [module, versions] : all) {
    for (auto& [sm, subject] : versions) {
      const char* body = std::strstr(subject.image->ptx, ".address_size");  // the target is before
      if (body == nullptr || texts.insert(body).second) different[module].push_back(subject);
    }
  }
  return different;
}

struct Counts {
  int run = 0, seen = 0, invalid = 0, listed = 0, passed = 0;
  int computing = 0, same = 0;          // of the second sort: run, do the same
  int strict = 0, unseen = 0;           // of the first
};

// Judges what RunMutants found about one subject.
class Reviewer {
 public:
  Reviewer(const Subject& subject, bool sample)
      : subject_(subject), sample_(sample), verbose_(Switch("NIBBLE_MUTATION_VERBOSE")) {}

  Counts Review(const std::vector<Verdict>& verdicts) {
    for (size_t i = 0; i < verdicts.size(); ++i) Review(subject_.mutants[i], verdicts[i]);
    for (const auto& [key, places] : listed_places_) {
      const EquivalentMutant& known = *key.first;
      EXPECT_LE(places, known.places)
          << Module() << ", kernel " << key.second << ": more places than the list says do as \""
          << known.line << "\" with the change " << known.change;
    }
    const ModuleBounds& bounds = Bounds();
    ExpectShare(counts_.same, bounds.same, counts_.computing, "mutants that compute do the same");
    ExpectShare(counts_.unseen, bounds.unseen, counts_.strict,
                "mutants that move data are not seen");
    ExpectShare(counts_.passed, bounds.passed, counts_.run,
                "mutants leave other bytes, which no verification rejects");
    for (const Mutant& mutant : subject_.unreached) {
      if (verbose_) std::printf("not reached %s", Text(mutant).c_str());
    }
    const size_t lines = subject_.mutants.size() + subject_.unreached.size();
    EXPECT_LE(static_cast<double>(subject_.unreached.size()),
              bounds.unreached / 100 * static_cast<double>(lines))
        << Module() << ": mutants of lines that no case runs, of " << lines;
    return counts_;
  }

 private:
  std::string Module() const {
    return std::string(subject_.image->name) + " (sm_" + std::to_string(subject_.sm) + ")";
  }

  std::string Text(const Mutant& mutant) const {
    return Module() + ", kernel " + mutant.kernel + ", PTX line " + std::to_string(mutant.line) +
           ": " + mutant.change + "\n  was " + Normalized(mutant.original) + "\n  is  " +
           Normalized(mutant.mutated) + "\n";
  }

  const ModuleBounds& Bounds() const {
    for (const ModuleBounds& bounds : AllKnownMutants().bounds) {
      if (std::strcmp(subject_.image->name, bounds.module) == 0) return bounds;
    }
    static constexpr ModuleBounds kNone = {"", 0, 0, 0, 0};
    return kNone;
  }

  // found of `run` at most percent; a sample may have a few more: four standard deviations.
  void ExpectShare(int found, double percent, int run, const char* what) const {
    const double expected = percent / 100 * run;
    EXPECT_LE(found, expected + (sample_ ? 4 * std::sqrt(expected) : 0))
        << Module() << ": of " << run << ", " << found << ' ' << what << ":\n" << unseen_text_;
  }

  // Whether the list has this mutant with this fate.
  bool IsListed(const Mutant& mutant, Fate fate) {
    const std::string line = Normalized(mutant.original);
    for (const EquivalentMutant& known : AllKnownMutants().equivalent) {
      if (known.fate != fate || mutant.change != known.change || line != known.line) continue;
      if (std::strstr(subject_.image->name, known.module) == nullptr) continue;
      if (mutant.kernel.find(known.kernel) == std::string::npos) continue;
      ++listed_places_[{&known, mutant.kernel}];
      return true;
    }
    return false;
  }

  void Review(const Mutant& mutant, Verdict verdict) {
    if (verdict == Verdict::kNotRun) return;
    ++counts_.run;
    ++(IsStrict(mutant) ? counts_.strict : counts_.computing);
    const std::string text = Text(mutant);
    switch (verdict) {
      case Verdict::kInvalid:
        ++counts_.invalid;
        return;
      case Verdict::kCrashed:
        ADD_FAILURE() << "the emulator crashed: " << text;
        return;
      case Verdict::kPassed:
        if (IsListed(mutant, Fate::kTolerated)) {
          ++counts_.listed;
        } else {
          ++counts_.passed;
          Note("passed ", text);
        }
        return;
      case Verdict::kSame:
        if (IsListed(mutant, Fate::kSame)) {
          ++counts_.listed;
        } else if (IsStrict(mutant)) {
          ++counts_.unseen;
          Note("not seen ", text);
        } else {
          ++counts_.same;
          if (verbose_) std::printf("same %s", text.c_str());
        }
        return;
      default:
        ++counts_.seen;
    }
  }

  void Note(const char* what, const std::string& text) {
    if (unseen_text_.size() < 20000) unseen_text_ += what + text;
    if (verbose_) std::printf("%s%s", what, text.c_str());
  }

  const Subject& subject_;
  bool sample_, verbose_;
  std::string unseen_text_;
  Counts counts_;
  std::map<std::pair<const EquivalentMutant*, std::string>, int> listed_places_;
};

TEST(Mutations, EveryMutantIsSeen) {
  if (!Environment("NIBBLE_TEST_DEVICE").empty()) GTEST_SKIP() << "runs in the emulator alone";
  const bool full = Switch("NIBBLE_FULL_TESTS");
  std::mt19937_64 random(TestSeed());
  auto modules = Subjects();
  ASSERT_FALSE(modules.empty()) << "no kernel family has registered a verification";
  const std::string asked = Environment("NIBBLE_MUTATION_SECONDS");
  const double budget = !asked.empty() ? std::atof(asked.c_str()) : full ? 1e9 : kBudgetSeconds;
  const double begin = Now();
  // Each module's share of the time that is left goes by what its PTX has to offer.
  double text_left = 0;
  for (auto& [module, versions] : modules) {
    std::shuffle(versions.begin(), versions.end(), random);
    if (!full) versions.resize(1);
    for (const Subject& subject : versions) text_left += std::strlen(subject.image->ptx);
  }
  Counts all;
  size_t offered = 0;
  for (auto& [module, versions] : modules) {
    for (Subject& subject : versions) {
      const double text = static_cast<double>(std::strlen(subject.image->ptx));
      const double share = (budget - (Now() - begin)) * text / text_left;
      text_left -= text;
      const double subject_begin = Now();
      const std::string problem = Prepare(&subject);
      if (!problem.empty()) {
        ADD_FAILURE() << problem;
        continue;
      }
      std::shuffle(subject.mutants.begin(), subject.mutants.end(), random);
      // Some of each module, however little time preparing it has left.
      const double seconds = std::max(0.5, share - (Now() - subject_begin));
      const double run_begin = Now();
      const std::vector<Verdict> verdicts = RunMutants(subject, seconds);
      const Counts c = Reviewer(subject, !full).Review(verdicts);
      std::printf(
          "%s sm_%d: %d of %zu mutants run in %.1f s: %d seen, %d no PTX, %d listed, %d passed, %d "
          "of %d that move data not seen, %d of %d that compute do the same; %zu mutants of lines "
          "that no case runs\n",
          module.c_str(), subject.sm, c.run, verdicts.size(), Now() - run_begin, c.seen, c.invalid,
          c.listed, c.passed, c.unseen, c.strict, c.same, c.computing, subject.unreached.size());
      std::fflush(stdout);
      all.run += c.run;
      all.seen += c.seen;
      all.same += c.same;
      all.listed += c.listed;
      all.passed += c.passed;
      all.unseen += c.unseen;
      offered += verdicts.size();
      subject = Subject();
    }
  }
  std::printf(
      "mutants: %d of %zu run in %.0f s, %d seen, %d listed, %d passed, %d that move data not "
      "seen, %d that compute do the same\n",
      all.run, offered, Now() - begin, all.seen, all.listed, all.passed, all.unseen, all.same);
}

// A bit that nobody looks at is no slip of the pen; one that somebody might is.
TEST(Mutants, MaskOfABitThatIsShiftedOut) {
  const auto masks = [](const std::string& use) {
    const std::string ptx =
        ".entry k()\n{\nand.b32 %r2, %r1, 28;\nshr.u32 %r3, %r2, 3;\n" + use + "\n}\n" +
        ".entry other()\n{\nadd.s32 %r4, %r2, 1;\n}\n";
    int count = 0;
    for (const Mutant& mutant : Mutants(ptx, {3, 4, 5})) count += mutant.change == "mask";
    return count;
  };
  EXPECT_EQ(masks(""), 0);
  EXPECT_EQ(masks("shr.u32 %r5, %r2, 4;"), 0);
  EXPECT_EQ(masks("shr.u32 %r5, %r2, 2;"), 1);
  EXPECT_EQ(masks("shl.b32 %r5, %r2, 4;"), 1);
  EXPECT_EQ(masks("st.shared.u32 [%r2], %r6;"), 1);
  EXPECT_EQ(masks("shr.u32 %r5, %r6, %r2;"), 1);
  EXPECT_EQ(masks("@%p1 bra L;"), 0);
}

// Also on a real device: what mutants must fail, the kernels as they are must pass.
TEST(Mutations, IntactKernelsPassEveryCase) {
  const std::vector<int> generations = Generations();
  for (const Verification& verification : Verifications()) {
    for (const int sm : verification.generations) {
      if (std::count(generations.begin(), generations.end(), sm) == 0) continue;
      const VerificationCases& cases = CasesOf(verification);
      for (size_t i = 0; i < cases.size(); ++i) {
        Device& device = EmulatedDevice(sm);
        EXPECT_TRUE(cases[i](device) && device.Synchronize().ok())
            << verification.name << ", case " << i << ", sm_" << sm << ": "
            << emulator::LastViolation();
      }
    }
  }
}

}  // namespace
}  // namespace nibble::cuda
