// SPDX-License-Identifier: Apache-2.0
//
// From statements to instructions: operands, memory layout, and the walk over all functions that
// an entry calls. Control flow itself is in control_flow.cc.

#include "kernels-cuda/emulator/decoder.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels-cuda/emulator/control_flow.h"
#include "kernels-cuda/emulator/register_places.h"
#include "kernels-cuda/emulator/warpgroup.h"

namespace nibble::cuda::emulator {

namespace {

int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Statements whose targets are known when all of a function is.
bool IsFlow(const Statement& statement) {
  const std::string& name = statement.opcode[0];
  return name == "bra" || name == "brx" || name == "call";
}

bool IsType(const std::string& word) {
  static const char* const kTypes[] = {"pred",   "f16x2",  "bf16x2", "bf16",   "tf32",    "e4m3x2",
                                       "e5m2x2", "e3m2x2", "e2m3x2", "e2m1x2", "ue8m0x2", "e4m3",
                                       "e5m2",   "e3m2",   "e2m3",   "e2m1",   "u16x2",   "s16x2",
                                       "f16",    "f32",    "f64",    "s4",     "u4",      "b1"};
  for (const char* type : kTypes) {
    if (word == type) return true;
  }
  if (word.size() < 2 || std::strchr("bsu", word[0]) == nullptr) return false;
  const std::string bits = word.substr(1);
  return bits == "8" || bits == "16" || bits == "32" || bits == "64" || bits == "128";
}

}  // namespace

int BitsOf(const std::string& type) {
  if (type == "pred") return 1;
  if (type == "f16x2" || type == "bf16x2" || type == "tf32" || type == "u16x2" || type == "s16x2")
    return 32;
  if (type == "bf16" || type == "f16") return 16;
  if (type == "e4m3x2" || type == "e5m2x2" || type == "e3m2x2" || type == "e2m3x2" ||
      type == "ue8m0x2")
    return 16;
  if (type == "e2m1x2") return 8;
  return std::atoi(type.c_str() + 1);
}

bool Modifiers::Take(const std::string& word) {
  const auto found = std::find(rest_.begin(), rest_.end(), word);
  if (found == rest_.end()) return false;
  rest_.erase(found);
  return true;
}

std::string Modifiers::TakeOf(std::initializer_list<const char*> words) {
  for (const char* word : words) {
    if (Take(word)) return word;
  }
  return "";
}

std::string Modifiers::TakeType() {
  for (auto it = rest_.begin(); it != rest_.end(); ++it) {
    if (IsType(*it)) {
      const std::string type = *it;
      rest_.erase(it);
      return type;
    }
  }
  Unknown("a type is missing");
}

void Modifiers::Unknown(const std::string& why) const {
  std::string text = "the emulator does not know " + statement_.Text();
  if (!why.empty()) {
    text += " (" + why + ")";
  } else if (!rest_.empty()) {
    text += " (modifier ." + rest_.front() + ")";
  }
  throw PtxError(statement_.line, text);
}

Decoder::Decoder(const Module& module, const std::map<std::string, Placement>& globals)
    : module_(module), globals_(globals) {}

void Decoder::Fail(const std::string& what) const {
  throw PtxError(statement_ == nullptr ? 0 : statement_->line,
                 (statement_ == nullptr ? "" : statement_->Text() + ": ") + what);
}

const Operand& Decoder::operand(size_t i) const {
  if (i >= statement_->operands.size()) Fail("operand " + std::to_string(i + 1) + " is missing");
  return statement_->operands[i];
}

int32_t Decoder::Grow(int bits) {
  const int64_t bytes = bits == 1 ? 4 : kLanes * std::max(bits, 16) / 8;
  file_bytes_ = RoundUp(file_bytes_, bits == 1 ? 4 : 64);
  const int64_t offset = file_bytes_;
  file_bytes_ += bytes;
  return static_cast<int32_t>(offset);
}

const Decoder::Place* Decoder::FindRegister(const std::string& name) const {
  const auto& mine = registers_.at(function_);
  const auto found = mine.find(name);
  return found == mine.end() ? nullptr : &found->second;
}

int Decoder::RegisterBits(const std::string& name) const {
  const Place* found = FindRegister(name);
  return found == nullptr ? 0 : found->bits;
}

int Decoder::Temporary(int bits) { return Grow(bits); }

int Decoder::DestinationOf(const Operand& operand, int bits) {
  if (operand.kind != Operand::Kind::kName) Fail("the destination must be a register");
  if (operand.name == "_") return Grow(bits == 0 ? 64 : bits);
  const Place* found = FindRegister(operand.name);
  if (found == nullptr) Fail("'" + operand.name + "' is no register");
  if (bits != 0 && found->bits != bits) {
    Fail("register " + operand.name + " has " + std::to_string(found->bits) + " bits, not " +
         std::to_string(bits));
  }
  return found->offset;
}

int Decoder::Destination(size_t i, int bits) { return DestinationOf(operand(i), bits); }

int Decoder::Constant(uint64_t value, int bits) {
  if (bits < 64) value &= (uint64_t{1} << bits) - 1;
  const auto key = std::make_pair(value, bits);
  const auto found = constants_.find(key);
  if (found != constants_.end()) return found->second;
  const int32_t offset = Grow(bits);
  std::vector<uint8_t> bytes;
  if (bits == 1) {
    bytes.assign(4, value != 0 ? 0xFF : 0x00);
  } else {
    const int width = std::max(bits, 16) / 8;
    bytes.resize(static_cast<size_t>(kLanes) * width);
    for (int l = 0; l < kLanes; ++l)
      std::memcpy(&bytes[static_cast<size_t>(l) * width], &value, width);
  }
  image_.emplace_back(offset, std::move(bytes));
  constants_[key] = offset;
  new_constants_.push_back(key);
  return offset;
}

uint64_t Decoder::SymbolAddress(const std::string& name, bool* found) const {
  *found = true;
  const auto local = places_.find(Scoped(name));
  if (local != places_.end()) return local->second.address;
  const auto shared = places_.find("/" + name);
  if (shared != places_.end()) return shared->second.address;
  const auto global = globals_.find(name);
  if (global != globals_.end()) return global->second.address;
  *found = false;
  return 0;
}

int Decoder::SourceOf(const Operand& operand, int bits) {
  switch (operand.kind) {
    case Operand::Kind::kInteger:
      return Constant(operand.integer, bits);
    case Operand::Kind::kFloat:
      if (bits == 32) {
        if (operand.single) return Constant(operand.integer, 32);
        const float value = static_cast<float>(operand.number);
        uint32_t word;
        std::memcpy(&word, &value, 4);
        return Constant(word, 32);
      }
      if (bits == 64) {
        uint64_t word;
        std::memcpy(&word, &operand.number, 8);
        return Constant(word, 64);
      }
      Fail("a floating-point constant of " + std::to_string(bits) + " bits");
    case Operand::Kind::kName:
      break;
    default:
      Fail("an operand must be a register or a constant");
  }
  if (operand.negated) Fail("a negated operand where none is known");
  const Place* found = FindRegister(operand.name);
  if (found != nullptr) {
    if (bits != 0 && found->bits != bits) {
      Fail("register " + operand.name + " has " + std::to_string(found->bits) + " bits, not " +
           std::to_string(bits));
    }
    return found->offset;
  }
  static const char* const kSpecial[] = {"%tid.x",
                                         "%tid.y",
                                         "%tid.z",
                                         "%ntid.x",
                                         "%ntid.y",
                                         "%ntid.z",
                                         "%ctaid.x",
                                         "%ctaid.y",
                                         "%ctaid.z",
                                         "%nctaid.x",
                                         "%nctaid.y",
                                         "%nctaid.z",
                                         "%laneid",
                                         "%warpid",
                                         "%nwarpid",
                                         "%smid",
                                         "%nsmid",
                                         "%lanemask_eq",
                                         "%lanemask_lt",
                                         "%lanemask_le",
                                         "%lanemask_gt",
                                         "%lanemask_ge",
                                         "%dynamic_smem_size",
                                         "%total_smem_size"};
  for (const char* special : kSpecial) {
    if (operand.name != special) continue;
    if (bits != 32 && bits != 0) Fail(operand.name + " has 32 bits");
    const auto known = specials_.find(operand.name);
    if (known != specials_.end()) return known->second;
    const int32_t offset = Grow(32);
    specials_[operand.name] = offset;
    program_->specials.push_back({operand.name, offset});
    return offset;
  }
  bool symbol = false;
  const uint64_t address = SymbolAddress(operand.name, &symbol);
  if (symbol) return Constant(address + operand.integer, bits);
  Fail("'" + operand.name + "' is not known");
}

int Decoder::Source(size_t i, int bits) { return SourceOf(operand(i), bits); }

int Decoder::SourcePredicate(const Operand& operand, bool* negated) {
  *negated = operand.negated;
  Operand plain = operand;
  plain.negated = false;
  return SourceOf(plain, 1);
}

std::vector<int32_t> Decoder::List(size_t i, int bits, bool destination) {
  const Operand& list = operand(i);
  std::vector<int32_t> offsets;
  if (list.kind != Operand::Kind::kVector) {
    offsets.push_back(destination ? DestinationOf(list, bits) : SourceOf(list, bits));
    return offsets;
  }
  for (const Operand& part : list.parts) {
    offsets.push_back(destination ? DestinationOf(part, bits) : SourceOf(part, bits));
  }
  return offsets;
}

const int32_t* Decoder::Keep(const std::vector<int32_t>& list) {
  std::unique_ptr<int32_t[]> copy(new int32_t[list.size()]);
  std::copy(list.begin(), list.end(), copy.get());
  program_->lists.push_back(std::move(copy));
  return program_->lists.back().get();
}

void Decoder::Address(size_t i, Instruction* instruction) {
  const Operand& address = operand(i);
  if (address.kind != Operand::Kind::kAddress)
    Fail("operand " + std::to_string(i + 1) + " must be an address");
  instruction->immediate = static_cast<int64_t>(address.integer);
  instruction->mode = 0;
  if (address.name.empty()) return;
  const int bits = RegisterBits(address.name);
  if (bits != 0) {
    if (bits != 32 && bits != 64) Fail("an address of " + std::to_string(bits) + " bits");
    instruction->mode = static_cast<uint8_t>(bits);
    instruction->a = FindRegister(address.name)->offset;
    return;
  }
  bool symbol = false;
  instruction->immediate += static_cast<int64_t>(SymbolAddress(address.name, &symbol));
  if (!symbol) Fail("'" + address.name + "' is not known");
}

const Decoder::Parameter* Decoder::FindParameter(const std::string& name) const {
  const auto found = parameters_.find(Scoped(name));
  return found == parameters_.end() ? nullptr : &found->second;
}

// The functions that function calls, depth first; recursion is refused.
void Decoder::Collect(const Function& function) {
  if (std::find(functions_.begin(), functions_.end(), &function) != functions_.end()) return;
  functions_.push_back(&function);
  for (const Statement& statement : function.statements) {
    if (statement.opcode[0] != "call") continue;
    std::string callee;
    for (const Operand& operand : statement.operands) {
      if (operand.kind == Operand::Kind::kName) {
        callee = operand.name;
        break;
      }
    }
    const Function* target = nullptr;
    for (const Function& candidate : module_.functions) {
      if (candidate.name == callee && candidate.has_body) target = &candidate;
    }
    if (target == nullptr)
      throw PtxError(statement.line, "call of '" + callee + "', which the module does not define");
    Collect(*target);
  }
}

// Registers, shared, local and parameter memory of every function: each has its own, since no
// function runs twice at a time in one lane.
void Decoder::Layout() {
  int64_t shared = 0;
  int64_t local = 0;
  for (const Function* function : functions_) {
    function_ = function;
    registers_[function];
    for (const auto& [name, place] :
         PlaceRegisters(*function, [this](int bits) { return Grow(bits); })) {
      registers_[function][name] = {place, function->registers.at(name).bits};
    }
    const auto place = [&](const Variable& variable, int64_t* cursor) {
      *cursor = RoundUp(*cursor, variable.alignment);
      const int64_t at = *cursor;
      *cursor += variable.bytes;
      return at;
    };
    for (const Variable& variable : function->variables) {
      if (variable.space == StateSpace::kShared) {
        const int64_t at = place(variable, &shared);
        places_[Scoped(variable.name)] = {StateSpace::kShared, kSharedBase + at, variable.bytes};
      } else if (variable.space == StateSpace::kLocal) {
        const int64_t at = place(variable, &local);
        places_[Scoped(variable.name)] = {StateSpace::kLocal, static_cast<uint64_t>(at),
                                          variable.bytes};
      } else {
        const int64_t at = place(variable, &local);
        parameters_[Scoped(variable.name)] = {false, at, variable.bytes};
      }
    }
    int64_t offset = 0;
    for (const Variable& variable : function->parameters) {
      if (function->is_entry) {
        const int64_t at = place(variable, &offset);
        parameters_[Scoped(variable.name)] = {true, at, variable.bytes};
        program_->parameters.emplace_back(at, variable.bytes);
      } else {
        parameters_[Scoped(variable.name)] = {false, place(variable, &local), variable.bytes};
      }
    }
    for (const Variable& variable : function->results) {
      parameters_[Scoped(variable.name)] = {false, place(variable, &local), variable.bytes};
    }
    if (function->is_entry) program_->parameter_bytes = offset;
  }
  // Module-level shared memory: sized variables, then where the dynamic part begins.
  int64_t dynamic_alignment = 16;
  for (const Variable& variable : module_.variables) {
    if (variable.space != StateSpace::kShared) continue;
    if (variable.bytes == 0) {
      dynamic_alignment = std::max(dynamic_alignment, variable.alignment);
      continue;
    }
    shared = RoundUp(shared, variable.alignment);
    places_["/" + variable.name] = {StateSpace::kShared,
                                    kSharedBase + static_cast<uint64_t>(shared), variable.bytes};
    shared += variable.bytes;
  }
  shared = RoundUp(shared, dynamic_alignment);
  bool dynamic = false;
  for (const Variable& variable : module_.variables) {
    if (variable.space != StateSpace::kShared || variable.bytes != 0) continue;
    places_["/" + variable.name] = {StateSpace::kShared,
                                    kSharedBase + static_cast<uint64_t>(shared), 0};
    dynamic = true;
  }
  (void)dynamic;
  program_->static_shared_bytes = shared;
  program_->local_bytes = RoundUp(local, 16);
}

void Decoder::BindCall(const std::string& callee, const std::vector<Operand>& results,
                       const std::vector<Operand>& arguments,
                       const std::function<void(int64_t, int64_t, int64_t)>& copy) {
  const Function* target = nullptr;
  for (const Function* candidate : functions_) {
    if (candidate->name == callee) target = candidate;
  }
  if (target == nullptr || target->parameters.size() != arguments.size() ||
      target->results.size() != results.size()) {
    Fail("the call does not fit the declaration of '" + callee + "'");
  }
  for (size_t i = 0; i < results.size(); ++i) {
    // No function runs twice at a time, so the caller may read the result where callee left it.
    parameters_[Scoped(results[i].name)] = parameters_.at(callee + "/" + target->results[i].name);
  }
  for (size_t i = 0; i < arguments.size(); ++i) {
    const Parameter* from = FindParameter(arguments[i].name);
    if (from == nullptr || from->in_launch)
      Fail("argument '" + arguments[i].name + "' is no .param variable");
    const Parameter& to = parameters_.at(callee + "/" + target->parameters[i].name);
    copy(from->offset, to.offset, std::min(from->bytes, to.bytes));
  }
}

Instruction Decoder::DecodeStatement(const Statement& statement) {
  statement_ = &statement;
  Instruction instruction;
  instruction.line = statement.line;
  if (!statement.guard.empty()) {
    Operand guard;
    guard.name = statement.guard;
    instruction.guard = SourceOf(guard, 1);
    instruction.guard_negated = statement.guard_negated;
  }
  const bool known = DecodeControlFlow(*this, statement, &instruction) ||
                     DecodeMove(*this, &instruction) || DecodeMemory(*this, &instruction) ||
                     DecodeInteger(*this, &instruction) || DecodeFloat(*this, &instruction) ||
                     DecodeCompare(*this, &instruction) || DecodeConvert(*this, &instruction) ||
                     DecodeAtomic(*this, &instruction) || DecodeAsyncCopy(*this, &instruction) ||
                     DecodeWarp(*this, &instruction) || DecodeBarrier(*this, &instruction) ||
                     DecodeMatrix(*this, &instruction) || DecodeWarpgroup(*this, &instruction);
  if (!known)
    throw PtxError(statement.line,
                   "the emulator does not know the instruction " + statement.Text());
  return instruction;
}

void Decoder::DecodeFunction(const Function& function) {
  function_ = &function;
  const size_t begin = program_->code.size();
  entry_points_[function.name] = static_cast<int32_t>(begin);
  for (const Statement& statement : function.statements) {
    program_->code.push_back(DecodeStatement(statement));
    program_->source[statement.line] = statement.Text();
  }
  // Falling off the end returns.
  statement_ = nullptr;
  program_->code.push_back(ReturnInstruction(
      function.statements.empty() ? function.line : function.statements.back().line));
  ConnectBranches(function, begin, program_.get());
}

int32_t Decoder::Fragment(int32_t offset) const {
  const auto found = fragments_.find(offset);
  if (found == fragments_.end()) Fail("an operand that is no register of a wgmma of the kernel");
  return found->second;
}

void Decoder::FindFragments() {
  for (const Function* function : functions_) {
    function_ = function;
    for (const Statement& statement : function->statements) {
      if (!IsWarpgroupProduct(statement)) continue;
      for (const Operand& operand : statement.operands) {
        for (const Operand& part : operand.parts) {
          const Place* place = FindRegister(part.name);
          if (place == nullptr) continue;
          const int32_t number = static_cast<int32_t>(program_->fragment_names.size());
          if (fragments_.emplace(place->offset, number).second)
            program_->fragment_names.push_back(part.name);
        }
      }
    }
  }
}

// Has the instruction note, when it runs, which registers of products it reads or writes.
void Decoder::WatchFragments(size_t at, const Statement& statement) {
  Watch& watch = program_->watches[at];
  watch = Watch();
  if (IsWarpgroupProduct(statement)) return;
  const std::function<void(const Operand&)> look = [&](const Operand& operand) {
    for (const std::string* name : {&operand.name, &operand.second}) {
      const Place* place = name->empty() ? nullptr : FindRegister(*name);
      if (place == nullptr) continue;
      const auto found = fragments_.find(place->offset);
      if (found != fragments_.end()) watch.fragments.push_back(found->second);
    }
    for (const Operand& part : operand.parts) look(part);
  };
  for (const Operand& operand : statement.operands) look(operand);
  if (watch.fragments.empty()) return;
  watch.run = program_->code[at].run;
  program_->code[at].run = RunWatched;
}

// Writes the constants made since image_ had that many into the register file.
void Decoder::PlaceConstants(size_t first) {
  // Registers hold poison until written; constants are written here once and for all warps.
  program_->registers.resize(static_cast<size_t>(file_bytes_), 0xFF);
  for (size_t i = first; i < image_.size(); ++i) {
    std::copy(image_[i].second.begin(), image_[i].second.end(),
              program_->registers.begin() + image_[i].first);
  }
}

std::shared_ptr<Program> Decoder::Run(const Function& entry) {
  program_ = std::make_shared<Program>();
  program_->name = entry.name;
  Collect(entry);
  Layout();
  FindFragments();
  for (const Function* function : functions_) DecodeFunction(*function);
  for (Instruction& instruction : program_->code) {
    if (instruction.extra != nullptr) ResolveCall(&instruction, entry_points_);
  }
  if (!fragments_.empty()) {
    program_->watches.resize(program_->code.size());
    for (const Function* function : functions_) {
      function_ = function;
      size_t at = static_cast<size_t>(entry_points_.at(function->name));
      for (const Statement& statement : function->statements) WatchFragments(at++, statement);
    }
  }
  program_->reached.reset(new uint8_t[program_->code.size()]());
  program_->max_threads = entry.max_threads[0] * entry.max_threads[1] * entry.max_threads[2];
  std::copy_n(entry.required_threads, 3, program_->required_threads);
  PlaceConstants(0);
  const std::string& target = module_.target;
  program_->target = std::atoi(target.c_str() + (target.rfind("sm_", 0) == 0 ? 3 : 0));
  program_->target_is_specific = !target.empty() && (target.back() == 'a' || target.back() == 'f');
  return program_;
}

bool Decoder::Replace(const Function& function, const Statement& statement) {
  const auto found =
      std::find_if(program_->code.begin(), program_->code.end(),
                   [&](const Instruction& i) { return i.line == statement.line; });
  if (found == program_->code.end()) return false;
  function_ = &function;
  const size_t at = static_cast<size_t>(found - program_->code.begin());
  mark_ = std::make_unique<Mark>(
      Mark{at, *found, fragments_.empty() ? Watch() : program_->watches[at], file_bytes_,
           image_.size(), new_constants_.size(), program_->specials.size(),
           program_->lists.size(), program_->extras.size()});
  Instruction made;
  try {
    made = DecodeStatement(statement);
  } catch (const PtxError&) {
    Restore();
    throw;
  }
  if (IsFlow(statement)) {  // goes where it went
    made.extra = mark_->instruction.extra;
    made.target = mark_->instruction.target;
    made.reconvergence = mark_->instruction.reconvergence;
  }
  program_->code[mark_->at] = made;
  if (!fragments_.empty()) WatchFragments(at, statement);
  PlaceConstants(mark_->image);
  return true;
}

void Decoder::Restore() {
  if (mark_ == nullptr) return;
  program_->code[mark_->at] = mark_->instruction;
  if (!fragments_.empty()) program_->watches[mark_->at] = mark_->watch;
  for (; new_constants_.size() > mark_->constants; new_constants_.pop_back()) {
    constants_.erase(new_constants_.back());
  }
  for (; program_->specials.size() > mark_->specials; program_->specials.pop_back()) {
    specials_.erase(program_->specials.back().name);
  }
  image_.resize(mark_->image);
  program_->lists.resize(mark_->lists);
  program_->extras.resize(mark_->extras);
  file_bytes_ = mark_->file_bytes;
  program_->registers.resize(static_cast<size_t>(file_bytes_));
  mark_.reset();
}

std::shared_ptr<Program> DecodeProgram(const Module& module, const Function& entry,
                                       const std::map<std::string, Placement>& globals) {
  return Decoder(module, globals).Run(entry);
}

}  // namespace nibble::cuda::emulator
