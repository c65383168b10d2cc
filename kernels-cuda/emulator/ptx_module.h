// SPDX-License-Identifier: Apache-2.0
//
// PTX text as a tree: what the parser makes and the decoder reads. Names are as written; a name
// declared in an inner scope has been given a suffix that no PTX name can have.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace nibble::cuda::emulator {

// PTX that the emulator cannot read or run; the message names the construct and its line.
class PtxError : public std::runtime_error {
 public:
  PtxError(int line, const std::string& what)
      : std::runtime_error("PTX line " + std::to_string(line) + ": " + what) {}
};

enum class StateSpace : uint8_t { kRegister, kParam, kShared, kLocal, kGlobal, kConst };

struct Operand {
  enum class Kind : uint8_t { kName, kInteger, kFloat, kAddress, kVector };
  Kind kind = Kind::kName;
  std::string name;            // kName: register, symbol or label; kAddress: base ("" for a number)
  bool negated = false;        // !p
  std::string second;          // p|q
  uint64_t integer = 0;        // kInteger; kAddress: the offset
  double number = 0;           // kFloat; bits in integer as 64-bit float, or 32-bit if single
  bool single = false;         // 0f...
  std::vector<Operand> parts;  // kVector: {a, b}, and the lists of a call
};

struct Statement {
  int line = 0;
  std::string guard;  // predicate register or ""
  bool guard_negated = false;
  std::vector<std::string> opcode;  // the dot-separated parts; [0] is the instruction
  std::vector<Operand> operands;
  std::string Text() const;  // the opcode as written
};

// The opcode of a statement that has been taken out.
inline constexpr char kNothing[] = "(nothing)";

struct Variable {
  std::string name;
  StateSpace space = StateSpace::kGlobal;
  int line = 0;
  int64_t alignment = 1;
  int64_t bytes = 0;  // 0: extern, sized at launch
  bool is_extern = false;
  std::vector<uint8_t> data;                               // initial value, may be shorter
  std::vector<std::pair<int64_t, std::string>> addresses;  // 8-byte symbol addresses in data
};

struct Register {
  int bits = 32;  // 1 for a predicate
};

struct Function {
  std::string name;
  int line = 0;
  bool is_entry = false;
  bool has_body = false;
  std::vector<Variable> parameters;  // in order
  std::vector<Variable> results;
  std::unordered_map<std::string, Register> registers;
  std::vector<Variable> variables;  // .local, .shared and .param of the body
  std::vector<Statement> statements;
  std::map<std::string, size_t> labels;                         // index of the next statement
  std::map<std::string, std::vector<std::string>> label_lists;  // .branchtargets
  int max_threads[3] = {0, 0, 0};                               // .maxntid
  int required_threads[3] = {0, 0, 0};
};

struct Module {
  int version = 0;     // 10 * major + minor
  std::string target;  // "sm_89"
  std::vector<Variable> variables;
  std::vector<Function> functions;
};

// Throws PtxError.
Module ParsePtx(const std::string& text);

// One statement, names as they are written. Throws PtxError.
Statement ParseStatement(const std::string& text, int line);

}  // namespace nibble::cuda::emulator
