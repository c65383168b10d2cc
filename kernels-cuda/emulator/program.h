// SPDX-License-Identifier: Apache-2.0
//
// A decoded kernel: compact instructions that each run for the 32 lanes of a warp at once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels-cuda/emulator/ptx_module.h"

namespace nibble::cuda::emulator {

constexpr int kLanes = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

struct Warp;
struct Instruction;

// Runs one instruction for the lanes in mask (never 0), all of which are active.
using Handler = void (*)(Warp& warp, const Instruction& instruction, uint32_t mask);

// Registers are byte offsets into the warp's register file, where each register lies as 32 lanes
// of its own width (a predicate as one 32-bit mask). Immediate operands are registers that hold a
// constant, so that handlers know one kind of operand.
struct Instruction {
  Handler run = nullptr;
  int32_t d = -1, a = -1, b = -1, c = -1;
  int32_t guard = -1;  // predicate, -1: always
  bool guard_negated = false;
  uint8_t space = 0;                        // StateSpace of a memory access; kGeneric below
  uint8_t mode = 0;                         // meaning per handler
  uint8_t option = 0;                       // meaning per handler
  int32_t line = 0;                         // in the PTX text
  int32_t target = -1, reconvergence = -1;  // of a branch
  int64_t immediate = 0;
  const int32_t* list = nullptr;  // further registers
  const void* extra = nullptr;    // per handler, owned by the Program
};

constexpr uint8_t kGenericSpace = 100;

struct SpecialRegister {
  std::string name;  // "%tid.x"
  int32_t offset;
};

// Named memory that is laid out when the module is loaded or decoded.
struct Placement {
  StateSpace space;
  uint64_t address;
  int64_t bytes;
};

// An instruction that reads or writes registers of wgmma's operands: its own handler, and which.
struct Watch {
  Handler run = nullptr;
  std::vector<int32_t> fragments;
};

// One entry function with all the functions it calls.
struct Program {
  std::string name;
  std::vector<Instruction> code;
  std::unique_ptr<uint8_t[]> reached;  // 1 for each instruction that has run
  std::vector<uint8_t> registers;      // the initial register file: poison and constants
  std::vector<SpecialRegister> specials;
  int64_t parameter_bytes = 0;
  std::vector<std::pair<int64_t, int64_t>> parameters;  // offset, bytes
  int64_t static_shared_bytes = 0;
  int64_t local_bytes = 0;  // for one lane
  int max_threads = 0;      // .maxntid or 0
  int required_threads[3] = {0, 0, 0};
  int target = 0;                   // 80, 89, 90, 120
  bool target_is_specific = false;  // sm_90a: runs on that generation alone
  std::vector<std::unique_ptr<int32_t[]>> lists;
  std::vector<std::shared_ptr<void>> extras;
  std::map<int, std::string> source;  // line -> text of the statement's opcode
  // Registers that are operands of some wgmma.mma_async, and by index of code who else has them
  // (empty where there is no such register).
  std::vector<std::string> fragment_names;
  std::vector<Watch> watches;
};

// Throws PtxError. globals: where the module's .global and .const variables lie.
std::shared_ptr<Program> DecodeProgram(const Module& module, const Function& entry,
                                       const std::map<std::string, Placement>& globals);

}  // namespace nibble::cuda::emulator
