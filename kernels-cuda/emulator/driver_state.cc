// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/emulator/driver_state.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <unordered_set>

namespace nibble::cuda::emulator {

int64_t live_objects = 0;

namespace {

std::recursive_mutex& Mutex() {
  static auto* mutex = new std::recursive_mutex;
  return *mutex;
}

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || text[0] == 0 ? otherwise : std::strtoull(text, nullptr, 0);
}

Options& Current() {
  static Options* options = [] {
    auto* o = new Options;
    o->seed = FromEnvironment("NIBBLE_EMULATOR_SEED", o->seed);
    o->threads = static_cast<int>(FromEnvironment("NIBBLE_EMULATOR_THREADS", 0));
    o->checked_blocks =
        static_cast<int>(FromEnvironment("NIBBLE_EMULATOR_CHECKED_BLOCKS", o->checked_blocks));
    if (FromEnvironment("NIBBLE_EMULATOR_FP8_TRUNCATED", 0) != 0)
      o->fp8_accumulation = Accumulation::kTruncated;
    return o;
  }();
  return *options;
}

uint64_t memory_bytes = 0;
uint64_t launches = 0;
uint64_t instructions_run = 0;
std::string last_violation;

std::function<std::string(const char*)> ptx_hook;
bool record_lines = false;
uint64_t longest_warp = 0;
bool record_stores = false;
std::vector<uint64_t> stored_digests;
std::map<const char*, std::set<int>>& Lines() {
  static auto* lines = new std::map<const char*, std::set<int>>;
  return *lines;
}

// FNV-1a over words: to tell contents apart that nobody has chosen.
uint64_t Digest(const uint8_t* data, uint64_t bytes) {
  uint64_t digest = 0xCBF29CE484222325u;
  const auto mix = [&](uint64_t word) { digest = (digest ^ word) * 0x100000001B3u; };
  mix(bytes);
  for (; bytes >= 8; bytes -= 8, data += 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    mix(word);
    digest ^= digest >> 29;
  }
  for (; bytes > 0; --bytes) mix(*data++);
  return digest;
}

void KeepLines(const char* image, const Program& program) {
  std::set<int>& lines = Lines()[image];
  for (size_t i = 0; i < program.code.size(); ++i) {
    if (program.reached[i] != 0) lines.insert(program.code[i].line);
  }
}

std::map<CUresult, const char*>& Messages() {
  static auto* messages = new std::map<CUresult, const char*>;
  return *messages;
}

}  // namespace

std::unique_lock<std::recursive_mutex> Lock() {
  return std::unique_lock<std::recursive_mutex>(Mutex());
}

const char* KeepMessage(const std::string& message) {
  static auto* kept = new std::unordered_set<std::string>;
  return kept->insert(message).first->c_str();
}

void SetMessage(CUresult result, const std::string& message) {
  Messages()[result] = KeepMessage(message);
}

const char* MessageOf(CUresult result) {
  const auto found = Messages().find(result);
  return found == Messages().end() ? nullptr : found->second;
}

int DefaultGeneration() { return static_cast<int>(FromEnvironment("NIBBLE_EMULATED_SM", 89)); }

uint64_t DeviceMemoryBytes() {
  return memory_bytes != 0 ? memory_bytes
                           : FromEnvironment("NIBBLE_EMULATED_MEMORY", uint64_t{8} << 30);
}

int SharedLimit(int sm) {
  switch (sm) {
    case 80:
      return 163 << 10;
    case 90:
      return 227 << 10;
    default:
      return 99 << 10;
  }
}

Options NextLaunchOptions() {
  Options options = Current();
  options.seed = options.seed * 0x9E3779B97F4A7C15u + ++launches;
  return options;
}

void SetLastViolation(const std::string& text) { last_violation = text; }

std::string HookedPtx(const char* image) { return ptx_hook ? ptx_hook(image) : std::string(); }

void RunRecorded(const char* image, const Launch& launch) {
  if (record_lines) std::fill_n(launch.program->reached.get(), launch.program->code.size(), 0);
  const LaunchSteps steps = RunLaunch(launch);
  instructions_run += steps.all;
  if (record_lines) {
    longest_warp = std::max(longest_warp, steps.longest);
    KeepLines(image, *launch.program);
  }
  if (record_stores) {
    for (const Allocation* allocation : launch.memory->TakeWritten()) {
      stored_digests.push_back(Digest(allocation->data, allocation->bytes));
    }
  }
}

void SetPtxHook(std::function<std::string(const char*)> hook) {
  const auto lock = Lock();
  ptx_hook = std::move(hook);
}

void RecordLines(bool record) {
  const auto lock = Lock();
  record_lines = record;
  if (!record) return;
  Lines().clear();
  longest_warp = 0;
}

uint64_t LongestWarp() {
  const auto lock = Lock();
  return longest_warp;
}

void RecordStores(bool record) {
  const auto lock = Lock();
  record_stores = record;
  if (record) stored_digests.clear();
}

std::vector<uint64_t> StoredDigests() {
  const auto lock = Lock();
  return stored_digests;
}

std::set<int> LinesRun(const char* image) {
  const auto lock = Lock();
  const auto found = Lines().find(image);
  return found == Lines().end() ? std::set<int>() : found->second;
}

Options GetOptions() {
  const auto lock = Lock();
  return Current();
}

void SetOptions(const Options& options) {
  const auto lock = Lock();
  Current() = options;
  launches = 0;
}

void SetDeviceMemory(uint64_t bytes) {
  const auto lock = Lock();
  memory_bytes = bytes;
}

std::string LastViolation() {
  const auto lock = Lock();
  return last_violation;
}

int64_t LiveObjects() {
  const auto lock = Lock();
  return live_objects;
}

uint64_t InstructionsRun() {
  const auto lock = Lock();
  return instructions_run;
}

}  // namespace nibble::cuda::emulator
