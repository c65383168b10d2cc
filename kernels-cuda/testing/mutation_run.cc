// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/testing/mutation_run.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>

#include "kernels-cuda/emulator/emulator.h"

namespace nibble::cuda {

namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The second board of the generation, opened anew where a mutant has lost it.
class Board {
 public:
  explicit Board(int sm) : sm_(sm) {}
  Device* device() {
    // Addresses are never given out twice, and remembered: now and then a new device forgets them.
    if (device_ != nullptr && (uses_ > 500 || !device_->health().ok())) device_.reset();
    if (device_ == nullptr) {
      uses_ = 0;
      if (!Device::Open(emulator::EmulatedDriver(sm_, true), 0, &device_).ok()) return nullptr;
    }
    ++uses_;
    return device_.get();
  }

 private:
  int sm_;
  int uses_ = 0;
  std::unique_ptr<Device> device_;
};

// Options under which everything repeats.
emulator::Options Repeating(uint64_t seed, uint64_t max_steps) {
  emulator::Options options = emulator::GetOptions();
  options.seed = seed;
  options.threads = 1;
  options.max_steps = max_steps;
  return options;
}

// Sets them for a while.
class WithOptions {
 public:
  WithOptions() : before_(emulator::GetOptions()) {}
  ~WithOptions() { emulator::SetOptions(before_); }
  WithOptions(const WithOptions&) = delete;
  WithOptions& operator=(const WithOptions&) = delete;

 private:
  emulator::Options before_;
};

constexpr uint64_t kEndless = uint64_t{1} << 32;

bool Holds(const std::function<bool(Device&)>& run, Board& board, const emulator::Options& options,
           std::vector<uint64_t>* digests) {
  Device* device = board.device();
  if (device == nullptr) return false;
  emulator::SetOptions(options);
  emulator::RecordStores(true);
  const bool held = run(*device) && device->Synchronize().ok();
  *digests = emulator::StoredDigests();
  emulator::RecordStores(false);
  return held;
}

// Those of `digests` that are 0 in `pattern` become so.
void Unsettle(const std::vector<uint64_t>& pattern, std::vector<uint64_t>* digests) {
  for (size_t i = 0; i < pattern.size() && i < digests->size(); ++i) {
    if (pattern[i] == 0) (*digests)[i] = 0;
  }
}

Verdict Judge(const Subject& subject, const Mutant& mutant, Board& board) {
  const std::string refused =
      emulator::ReplaceLine(subject.image->ptx, mutant.line, mutant.original, mutant.mutated);
  if (!refused.empty()) return Verdict::kInvalid;
  Verdict verdict = Verdict::kSame;
  for (const MutationCase& c : subject.cases) {
    if (c.lines.count(mutant.line) == 0) continue;
    // One that takes many times as long no longer ends.
    std::vector<uint64_t> digests;
    if (!Holds(*c.run, board, Repeating(1, 8 * c.longest_warp + 10000), &digests)) {
      verdict = Verdict::kSeen;
      break;
    }
    Unsettle(c.digests, &digests);
    if (digests != c.digests) verdict = Verdict::kPassed;
  }
  emulator::RestoreLine();
  return verdict;
}

// What the processes share.
struct Progress {
  std::atomic<size_t> next;
  std::atomic<size_t> at[64];  // one more than the mutant that the process runs; 0: none
  Verdict verdicts[1];
};

void Work(const Subject& subject, double end, Progress* progress, int process) {
  Board board(subject.sm);
  while (Now() < end) {
    const size_t i = progress->next.fetch_add(1);
    if (i >= subject.mutants.size()) break;
    progress->at[process] = i + 1;
    progress->verdicts[i] = Judge(subject, subject.mutants[i], board);
    progress->at[process] = 0;
  }
}

}  // namespace

std::string Prepare(Subject* subject) {
  const WithOptions restore;
  const char* ptx = subject->image->ptx;
  emulator::KeepImages(false);
  emulator::KeepImages(true);
  Board board(subject->sm);
  std::set<int> reached;
  for (const Verification* verification : subject->verifications) {
    for (const auto& run : CasesOf(*verification)) {
      const std::string name = verification->name + ", case " +
                               std::to_string(&run - CasesOf(*verification).data()) + " on sm_" +
                               std::to_string(subject->sm);
      MutationCase c;
      c.run = &run;
      emulator::RecordLines(true);
      const bool held = Holds(run, board, Repeating(1, kEndless), &c.digests);
      emulator::RecordLines(false);
      if (!held) return name + " fails on intact kernels: " + emulator::LastViolation();
      c.lines = emulator::LinesRun(ptx);
      c.longest_warp = emulator::LongestWarp();
      if (c.lines.empty()) continue;
      for (const uint64_t seed : {2, 3}) {
        const double begin = Now();
        std::vector<uint64_t> digests;
        if (!Holds(run, board, Repeating(seed, kEndless), &digests)) {
          return name + " fails on intact kernels with another seed: " + emulator::LastViolation();
        }
        c.seconds = Now() - begin;
        if (digests.size() != c.digests.size()) return name + " does not do the same in every run";
        for (size_t i = 0; i < digests.size(); ++i) {
          if (digests[i] != c.digests[i]) c.digests[i] = 0;
        }
      }
      reached.insert(c.lines.begin(), c.lines.end());
      subject->cases.push_back(std::move(c));
    }
  }
  if (reached.empty()) return std::string(subject->image->name) + " is run by no case";
  std::stable_sort(
      subject->cases.begin(), subject->cases.end(),
      [](const MutationCase& a, const MutationCase& b) { return a.seconds < b.seconds; });
  std::set<int> unreached;
  for (const int line : emulator::StatementLines(ptx)) {
    if (reached.count(line) == 0) unreached.insert(line);
  }
  subject->mutants = Mutants(ptx, reached);
  subject->unreached = Mutants(ptx, unreached);
  return "";
}

std::vector<Verdict> RunMutants(const Subject& subject, double seconds) {
  const size_t count = subject.mutants.size();
  const size_t bytes = sizeof(Progress) + count;
  void* memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return std::vector<Verdict>(count, Verdict::kNotRun);
  Progress* progress = new (memory) Progress{};
  const double end = Now() + seconds;
  const int processes = static_cast<int>(std::clamp<long>(sysconf(_SC_NPROCESSORS_ONLN), 1, 64));
  std::vector<pid_t> running(static_cast<size_t>(processes), 0);
  const auto start = [&](int process) {
    progress->at[process] = 0;
    const pid_t pid = fork();
    if (pid == 0) {
      Work(subject, end, progress, process);
      _exit(0);
    }
    running[static_cast<size_t>(process)] = pid;
  };
  for (int p = 0; p < processes; ++p) start(p);
  for (int p = 0; p < processes; ++p) {
    int status = 0;
    for (;;) {
      if (running[p] < 0 || waitpid(running[p], &status, 0) != running[p]) break;
      const size_t at = progress->at[p];
      if (at == 0) break;
      progress->verdicts[at - 1] = Verdict::kCrashed;
      start(p);
    }
  }
  std::vector<Verdict> verdicts(progress->verdicts, progress->verdicts + count);
  munmap(memory, bytes);
  return verdicts;
}

}  // namespace nibble::cuda
