// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/emulator/register_places.h"

#include <algorithm>
#include <map>
#include <vector>

namespace nibble::cuda::emulator {

namespace {

bool IsOneOf(const std::string& word, std::initializer_list<const char*> words) {
  return std::any_of(words.begin(), words.end(), [&](const char* w) { return word == w; });
}

bool EndsBlock(const std::string& opcode) {
  return IsOneOf(opcode, {"bra", "brx", "call", "ret", "exit", "trap"});
}

// Whether operand 0 is what the instruction writes.
bool Writes(const std::string& opcode) {
  return !EndsBlock(opcode) &&
         !IsOneOf(opcode,
                  {"st", "red", "bar", "barrier", "cp", "prefetch", "prefetchu", "membar", "fence",
                   "stmatrix", "nanosleep", "griddepcontrol", "discard", "applypriority",
                   "wgmma"});
}

struct Use {
  int first = -1, last = -1, block = -1;
  bool shares = true;  // lives in one block, written first
  bool asynchronous = false;  // an operand of wgmma: in use beyond its last statement
};

void ForEachName(const Operand& operand, const std::function<void(const std::string&)>& visit) {
  if (!operand.name.empty()) visit(operand.name);
  if (!operand.second.empty()) visit(operand.second);
  for (const Operand& part : operand.parts) ForEachName(part, visit);
}

}  // namespace

bool IsWarpgroupProduct(const Statement& statement) {
  return statement.opcode[0] == "wgmma" && statement.opcode.size() > 1 &&
         statement.opcode[1] == "mma_async";
}

std::unordered_map<std::string, int32_t> PlaceRegisters(
    const Function& function, const std::function<int32_t(int bits)>& grow) {
  const int count = static_cast<int>(function.statements.size());
  std::vector<bool> starts(count + 1, false);
  for (const auto& label : function.labels) starts[label.second] = true;
  std::unordered_map<std::string, Use> uses;
  int block = 0;
  for (int i = 0; i < count; ++i) {
    const Statement& statement = function.statements[i];
    if (starts[i]) ++block;
    const auto touch = [&](const std::string& name, bool written) {
      if (function.registers.count(name) == 0) return;
      Use& use = uses[name];
      if (use.first < 0) {
        use.first = i;
        use.block = block;
        use.shares = written;
      } else if (use.block != block || (use.first == i && !written)) {
        use.shares = false;
      }
      use.last = i;
    };
    if (IsWarpgroupProduct(statement)) {
      for (const Operand& operand : statement.operands) {
        for (const Operand& part : operand.parts) uses[part.name].asynchronous = true;
      }
    }
    const bool writes = Writes(statement.opcode[0]) && statement.guard.empty();
    // Sources first: what an instruction reads and writes has been read before it was written.
    if (!statement.guard.empty()) touch(statement.guard, false);
    for (size_t o = 0; o < statement.operands.size(); ++o) {
      const bool result = o == 0 && writes && statement.operands[o].kind != Operand::Kind::kAddress;
      if (!result)
        ForEachName(statement.operands[o], [&](const std::string& name) { touch(name, false); });
    }
    if (writes && !statement.operands.empty() &&
        statement.operands[0].kind != Operand::Kind::kAddress) {
      ForEachName(statement.operands[0], [&](const std::string& name) { touch(name, true); });
    }
    if (EndsBlock(statement.opcode[0])) ++block;
  }
  std::unordered_map<std::string, int32_t> places;
  std::vector<std::vector<std::string>> begins(count), ends(count);
  for (const auto& [name, use] : uses) {
    const int bits = function.registers.at(name).bits;
    if (!use.shares || use.asynchronous || bits == 1) {
      places[name] = grow(bits);
    } else {
      begins[use.first].push_back(name);
      ends[use.last].push_back(name);
    }
  }
  // A place is free for the instruction after the last use, never within one instruction.
  std::map<int, std::vector<int32_t>> free;
  for (int i = 0; i < count; ++i) {
    for (const std::string& name : begins[i]) {
      const int bits = function.registers.at(name).bits;
      std::vector<int32_t>& pool = free[bits];
      if (pool.empty()) pool.push_back(grow(bits));
      places[name] = pool.back();
      pool.pop_back();
    }
    for (const std::string& name : ends[i])
      free[function.registers.at(name).bits].push_back(places[name]);
  }
  return places;
}

}  // namespace nibble::cuda::emulator
