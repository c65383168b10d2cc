// SPDX-License-Identifier: Apache-2.0
//
// What the decoders of the instruction families share: operands to register-file offsets, and
// modifiers that must all be understood.
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels-cuda/emulator/machine.h"
#include "kernels-cuda/emulator/program.h"

namespace nibble::cuda::emulator {

// The opcode's parts after the first. Each must be taken; Finish throws for what is left.
class Modifiers {
 public:
  explicit Modifiers(const Statement& statement)
      : statement_(statement), rest_(statement.opcode.begin() + 1, statement.opcode.end()) {}

  bool Take(const std::string& word);                            // if it is there
  std::string TakeOf(std::initializer_list<const char*> words);  // "" if none is there
  std::string TakeType();  // the next that is a type, in order
  bool empty() const { return rest_.empty(); }
  [[noreturn]] void Unknown(const std::string& why = "") const;
  void Finish() const {
    if (!rest_.empty()) Unknown();
  }

 private:
  const Statement& statement_;
  std::vector<std::string> rest_;
};

// Bits of a type's register: s8 has 8, f16x2 32, pred 1.
int BitsOf(const std::string& type);

class Decoder {
 public:
  Decoder(const Module& module, const std::map<std::string, Placement>& globals);

  std::shared_ptr<Program> Run(const Function& entry);

  // After Run: decodes the statement, one that writes no register that the function's own of that
  // line does not write, in its place in the program, until Restore. False: the program has no
  // instruction of that line.
  bool Replace(const Function& function, const Statement& statement);
  void Restore();

  const Statement& statement() const { return *statement_; }
  size_t count() const { return statement_->operands.size(); }
  const Operand& operand(size_t i) const;
  [[noreturn]] void Fail(const std::string& what) const;

  // The register that operand i writes; it must have these bits (0: any). "_" gives a register
  // that nobody reads.
  int Destination(size_t i, int bits);
  int DestinationOf(const Operand& operand, int bits);
  // The register that holds operand i's value: a constant's is made.
  int Source(size_t i, int bits);
  int SourceOf(const Operand& operand, int bits);
  int SourcePredicate(const Operand& operand, bool* negated);
  int RegisterBits(const std::string& name) const;  // 0: no register
  int Constant(uint64_t value, int bits);
  int Temporary(int bits);  // a register of its own
  // A vector operand's registers, as sources or destinations; a lone register counts as one.
  std::vector<int32_t> List(size_t i, int bits, bool destination);
  const int32_t* Keep(const std::vector<int32_t>& list);
  template <class T>
  T* Extra() {
    auto extra = std::make_shared<T>();
    program_->extras.push_back(extra);
    return extra.get();
  }
  // Base register, its width and the offset of a memory operand.
  void Address(size_t i, Instruction* instruction);
  uint64_t SymbolAddress(const std::string& name, bool* found) const;
  Program& program() { return *program_; }
  const Function& function() const { return *function_; }
  const std::string& target() const { return module_.target; }
  // The number in Program::fragment_names of a register that a wgmma.mma_async of the kernel has.
  int32_t Fragment(int32_t offset) const;
  std::string Scoped(const std::string& name) const { return function_->name + "/" + name; }

  struct Parameter {
    bool in_launch;  // a kernel's: offset in the parameter block; else in local memory
    int64_t offset, bytes;
  };
  const Parameter* FindParameter(const std::string& name) const;

  // A call of callee: its results become readable under the caller's names, and copy gets what
  // to move from the caller's argument variables to callee's parameters (offsets in local memory).
  void BindCall(const std::string& callee, const std::vector<Operand>& results,
                const std::vector<Operand>& arguments,
                const std::function<void(int64_t from, int64_t to, int64_t bytes)>& copy);

 private:
  void Collect(const Function& function);
  void Layout();
  void DecodeFunction(const Function& function);
  Instruction DecodeStatement(const Statement& statement);
  void PlaceConstants(size_t first);
  void FindFragments();
  void WatchFragments(size_t at, const Statement& statement);

  const Module& module_;
  const std::map<std::string, Placement>& globals_;
  std::shared_ptr<Program> program_;
  const Function* function_ = nullptr;
  const Statement* statement_ = nullptr;
  std::vector<const Function*> functions_;       // entry first
  std::map<std::string, int32_t> entry_points_;  // function -> pc
  std::map<std::string, Placement> places_;      // shared and local variables, scoped
  std::map<std::string, Parameter> parameters_;  // scoped
  struct Place {
    int32_t offset;
    int bits;
  };
  const Place* FindRegister(const std::string& name) const;
  // For each function its registers.
  std::unordered_map<const Function*, std::unordered_map<std::string, Place>> registers_;
  std::map<int32_t, int32_t> fragments_;  // of wgmma: offset of a register -> number
  std::map<std::pair<uint64_t, int>, int32_t> constants_;
  std::vector<std::pair<uint64_t, int>> new_constants_;  // keys, in the order they were made
  std::map<std::string, int32_t> specials_;
  std::vector<std::pair<int64_t, std::vector<uint8_t>>> image_;  // patches of the register file
  int64_t file_bytes_ = 0;
  // What Restore puts back.
  struct Mark {
    size_t at;
    Instruction instruction;
    Watch watch;
    int64_t file_bytes;
    size_t image, constants, specials, lists, extras;
  };
  std::unique_ptr<Mark> mark_;

  int32_t Grow(int bits);
};

// The state space named by a modifier, kGenericSpace if none is.
uint8_t TakeSpace(Modifiers* modifiers);

// Each gives false where the instruction is not of its family, throws PtxError where it is but
// cannot be run.
bool DecodeInteger(Decoder& decoder, Instruction* instruction);
bool DecodeFloat(Decoder& decoder, Instruction* instruction);
bool DecodeCompare(Decoder& decoder, Instruction* instruction);
bool DecodeConvert(Decoder& decoder, Instruction* instruction);
bool DecodeMove(Decoder& decoder, Instruction* instruction);
bool DecodeMemory(Decoder& decoder, Instruction* instruction);
bool DecodeAtomic(Decoder& decoder, Instruction* instruction);
bool DecodeAsyncCopy(Decoder& decoder, Instruction* instruction);
bool DecodeWarp(Decoder& decoder, Instruction* instruction);
bool DecodeBarrier(Decoder& decoder, Instruction* instruction);
bool DecodeMatrix(Decoder& decoder, Instruction* instruction);
bool DecodeWarpgroup(Decoder& decoder, Instruction* instruction);

}  // namespace nibble::cuda::emulator
