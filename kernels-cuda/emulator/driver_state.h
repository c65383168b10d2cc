// SPDX-License-Identifier: Apache-2.0
//
// What stands behind the driver's handles. Everything is guarded by one mutex, Lock().
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "kernels-cuda/emulator/machine.h"

namespace nibble::cuda::emulator {

// One piece of work of a stream. Runs when somebody waits for it, no earlier: work that a program
// forgot to wait for has not happened yet.
using Operation = std::function<CUresult()>;

struct LoadedModule {
  const char* image = nullptr;  // as cuModuleLoadData was given it
  std::shared_ptr<const Module> module;
  std::map<std::string, Placement> globals;
  std::vector<uint64_t> allocations;
};

// The functions of one module hold on to it.
struct LoadedFunction {
  std::shared_ptr<LoadedModule> module;
  std::shared_ptr<Program> program;
  int max_dynamic_shared = 0;
};

std::unique_lock<std::recursive_mutex> Lock();
extern int64_t live_objects;

// Keeps a message for ever, so that cuGetErrorString can hand out pointers.
const char* KeepMessage(const std::string& message);
// The message that goes with the calling thread's latest error, by result.
void SetMessage(CUresult result, const std::string& message);
const char* MessageOf(CUresult result);

int DefaultGeneration();  // NIBBLE_EMULATED_SM
uint64_t DeviceMemoryBytes();
int SharedLimit(int sm);  // bytes that one block may ask for
Options NextLaunchOptions();
void SetLastViolation(const std::string& text);
std::string HookedPtx(const char* image);
// Runs a launch and keeps what the suite wants to know of it.
void RunRecorded(const char* image, const Launch& launch);

// A device's handle: its generation, plus 1000 for the second board.
constexpr int kSecondBoard = 1000;
constexpr int GenerationOf(CUdevice device) { return device % kSecondBoard; }

}  // namespace nibble::cuda::emulator

// The handles, whose names cuda.h gives.
struct CUctx_st {
  explicit CUctx_st(int generation, uint64_t bytes) : sm(generation), memory(bytes) {}
  int sm;
  int owners = 0;
  nibble::cuda::emulator::DeviceMemory memory;
  std::set<CUstream> streams;
  std::set<CUmodule> modules;
  CUstream null_stream = nullptr;
  CUresult lost = CUDA_SUCCESS;  // the error that ended it
};

struct CUstream_st {
  CUcontext context;
  bool blocking = true;
  std::deque<nibble::cuda::emulator::Operation> queue;
  bool capturing = false;
  bool capture_broken = false;
  CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::vector<nibble::cuda::emulator::Operation> captured;
};

struct CUfunc_st {
  nibble::cuda::emulator::LoadedFunction loaded;
};

struct CUmod_st {
  CUcontext context;
  std::shared_ptr<nibble::cuda::emulator::LoadedModule> loaded;
  std::map<std::string, std::unique_ptr<CUfunc_st>> functions;
};

struct CUevent_st {
  CUcontext context;
  CUstream stream = nullptr;  // where it was recorded
  bool recorded = false;
  bool done = false;
  std::chrono::steady_clock::time_point when;
};

struct CUgraph_st {
  std::vector<nibble::cuda::emulator::Operation> operations;
};

struct CUgraphExec_st {
  CUcontext context;
  std::vector<nibble::cuda::emulator::Operation> operations;
};
