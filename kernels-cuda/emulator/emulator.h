// SPDX-License-Identifier: Apache-2.0
//
// The emulator as tests see it: a CUDA driver that runs PTX on the CPU, and its settings.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "kernels-cuda/common/driver.h"

namespace nibble::cuda::emulator {

// How the sum of a matrix instruction's products is formed.
enum class Accumulation : uint8_t {
  kFloat,      // in F32, one product after the other in order of k
  kTruncated,  // FP8 and below: products aligned to the largest exponent and cut to 13 bits below
               // it before they are added, as Ada's and Hopper's units do
};

struct Options {
  uint64_t seed = 1;  // of the order of warps and blocks; every launch gets its own from it
  int threads = 0;    // that run blocks; 0: as many as the process may use
  Accumulation fp8_accumulation = Accumulation::kFloat;
  int checked_blocks = 64;  // blocks of a launch whose shared memory is watched for races
  uint64_t max_steps = uint64_t{1} << 32;  // instructions of a warp before it counts as stuck
};

// The driver of a machine with one GPU of that generation (80, 89, 90, 120): the same functions
// as the exported ones, but cuDeviceGet gives that device whatever NIBBLE_EMULATED_SM says. The
// second board is another GPU of the same kind, for tests that break it on purpose.
const Driver& EmulatedDriver(int sm, bool second_board = false);

// For launches from now on, on every device. The first reading takes the environment variables
// NIBBLE_EMULATOR_SEED, NIBBLE_EMULATOR_THREADS, NIBBLE_EMULATOR_FP8_TRUNCATED (1) and
// NIBBLE_EMULATOR_CHECKED_BLOCKS. Thread-safe, as everything here.
Options GetOptions();
void SetOptions(const Options& options);

// The device's memory in bytes, for contexts made from now on (or NIBBLE_EMULATED_MEMORY).
void SetDeviceMemory(uint64_t bytes);

// What the last kernel to fail did, "" before the first failure: kernel, block, warp, lane, PTX
// line, and what is wrong.
std::string LastViolation();

// Whether a device is lost: a violation makes its context unusable, as on hardware, until every
// owner has released the context.
bool IsLost(int sm, bool second_board = false);

// Device allocations, pinned host allocations, modules, streams, events, graphs and retained
// contexts that are alive: 0 after everything has been given back.
int64_t LiveObjects();

// Lane-instructions run so far by all launches (for measuring the emulator's speed).
uint64_t InstructionsRun();

// For the mutation suite. While a hook is set, every PTX text that cuModuleLoadData is given goes
// through it: a text that it returns is loaded instead, "" leaves the image as it is. Null ends it.
void SetPtxHook(std::function<std::string(const char* image)> hook);

// While recording, the PTX lines that run are kept for each image that was loaded (by address).
void RecordLines(bool record);  // true forgets what was kept before
std::set<int> LinesRun(const char* image);
uint64_t LongestWarp();  // instructions of the longest warp while lines were recorded

// While recording, a digest is kept of every allocation that a launch stored to, as it is at the
// end of the launch: launch by launch, in the order of addresses. Two runs of the same calls with
// the same digests left the same bytes.
void RecordStores(bool record);  // true begins anew
std::vector<uint64_t> StoredDigests();

// While true, an image without variables of its own is parsed, and each kernel of it decoded, once
// for all who load it; its address must stay its own. false forgets them.
void KeepImages(bool keep);

std::set<int> StatementLines(const char* image);  // of all functions of a kept image

// Puts the statement `text` ("": nothing) in the place of the one that the line of a kept image
// holds, `written`, in all kernels of it that have been decoded, wherever they are loaded, until
// RestoreLine. It must write no register that the original does not write. Gives "", or why it
// cannot be run; nothing has changed then.
std::string ReplaceLine(const char* image, int line, const std::string& written,
                        const std::string& text);
void RestoreLine();

}  // namespace nibble::cuda::emulator
