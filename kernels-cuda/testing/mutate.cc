// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/testing/mutate.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <functional>
#include <map>
#include <regex>

namespace nibble::cuda {

namespace {

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> lines;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

bool Has(const std::string& line, const char* word) { return line.find(word) != std::string::npos; }

// Where the line holds the word, whether it matches: most lines hold none.
bool Matches(const std::string& line, const char* word, const std::regex& pattern,
             std::smatch* match) {
  return Has(line, word) && std::regex_search(line, *match, pattern);
}

// line with the capture group replaced by what change makes of it ("" : no mutant).
std::string Replaced(const std::string& line, const char* word, const std::regex& pattern,
                     int group, const std::function<std::string(const std::string&)>& change) {
  std::smatch match;
  if (!Matches(line, word, pattern, &match)) return "";
  const std::string with = change(match[group].str());
  if (with.empty()) return "";
  return line.substr(0, static_cast<size_t>(match.position(group))) + with +
         line.substr(static_cast<size_t>(match.position(group) + match.length(group)));
}

std::string PlusOne(const std::string& number) {
  return std::to_string(std::strtoll(number.c_str(), nullptr, 0) + 1);
}

// Bytes that an access moves: of the type times the vector.
int AccessBytes(const std::string& line) {
  if (Has(line, "ldmatrix") || Has(line, "stmatrix") || Has(line, "cp.async")) return 16;
  std::smatch match;
  static const std::regex kType("\\.[busf](8|16|32|64)\\b");
  if (!std::regex_search(line, match, kType)) return 4;
  return std::atoi(match[1].str().c_str()) / 8 * (Has(line, ".v4") ? 4 : Has(line, ".v2") ? 2 : 1);
}

void MutateLine(int number, const std::string& kernel, const std::string& line,
                std::vector<Mutant>* mutants) {
  const auto add = [&](const char* change, const std::string& mutated) {
    if (!mutated.empty() && mutated != line)
      mutants->push_back({number, kernel, change, line, mutated});
  };
  static const std::regex kDrop(
      "^\\s*\\{?\\s*(bar\\.sync|barrier\\.sync|bar\\.warp\\.sync|bar\\.arrive|cp\\.async|"
      "wgmma\\.|fence\\.proxy\\.async|(@!?%p\\d+\\s+)?st\\.(shared|global))");
  static const std::regex kWait(
      "(?:cp\\.async\\.wait_group|wgmma\\.wait_group\\.sync\\.aligned)\\s+(\\d+)");
  static const std::regex kAnd("\\band\\.b(?:16|32|64)\\s[^;]*,\\s*(-?\\d+);");
  static const std::regex kSelector("\\bprmt\\.b32\\s[^;]*,\\s*(\\d+);");
  static const std::regex kTable("\\blop3\\.b32\\s[^;]*,\\s*((?:0x)?[0-9A-Fa-f]+);");
  static const std::regex kGuard("^\\s*(@!?)%p");
  static const std::regex kCompare("\\bsetp\\.(lt|le|gt|ge|eq|ne)\\b");
  static const std::regex kWide(
      "ldmatrix\\.sync\\.aligned\\.m8n8\\.(x4|x2)(\\.trans)?\\.shared\\.b16\\s*\\{([^}]*)\\}");
  static const std::regex kFragment(
      "mma(?:_async)?\\.sync[^{]*\\{[^}]*\\}\\s*,\\s*\\{\\s*([^,}]*),\\s*([^,}]*)");
  static const std::regex kAddress("\\[(%r[d]?\\d+|\\w+)(\\+-?\\d+)?\\]");
  static const std::regex kShift("\\bsh[lr]\\.[bsu](?:16|32|64)\\s[^;]*,\\s*(\\d+);");
  static const std::regex kConstant(
      "\\b(?:add\\.s(?:16|32|64)|mul\\.lo\\.s32|mul\\.wide\\.[su]32)\\s[^;]*,\\s*(-?\\d+);");
  static const std::regex kSelect("\\bselp\\.\\w+\\s+([^,;]+),\\s*([^,;]+),\\s*([^,;]+),");

  if (std::regex_search(line, kDrop)) mutants->push_back({number, kernel, "drop", line, ""});
  add("wait", Replaced(line, "wait_group", kWait, 1, PlusOne));
  add("mask", Replaced(line, "and.b", kAnd, 1, [](const std::string& number) {
        const long long value = std::strtoll(number.c_str(), nullptr, 0);
        return value == 0 ? std::string() : std::to_string(value & (value - 1));
      }));
  add("permute", Replaced(line, "prmt", kSelector, 1, [](const std::string& number) {
        return std::to_string(std::strtoll(number.c_str(), nullptr, 0) ^ 1);
      }));
  add("permute", Replaced(line, "lop3", kTable, 1, [](const std::string& number) {
        return std::to_string(std::strtoll(number.c_str(), nullptr, 0) ^ 0x10);
      }));
  add("predicate", Replaced(line, "@", kGuard, 1, [](const std::string& at) {
        return std::string(at == "@" ? "@!" : "@");
      }));
  add("compare", Replaced(line, "setp", kCompare, 1, [](const std::string& test) {
        static const char* const kTests[][2] = {{"lt", "le"}, {"le", "lt"}, {"gt", "ge"},
                                                {"ge", "gt"}, {"eq", "ne"}, {"ne", "eq"}};
        for (const auto& pair : kTests) {
          if (test == pair[0]) return std::string(pair[1]);
        }
        return std::string();
      }));
  std::smatch match;
  if (Matches(line, "ldmatrix", kWide, &match)) {
    std::vector<std::string> registers;
    const std::string list = match[3].str();
    for (size_t begin = 0; begin <= list.size();) {
      const size_t end = std::min(list.find(',', begin), list.size());
      registers.push_back(list.substr(begin, end - begin));
      begin = end + 1;
    }
    std::string kept;
    for (size_t i = 0; i < registers.size() / 2; ++i) kept += (i == 0 ? "" : ",") + registers[i];
    const std::string trans = match[2].str();
    const std::string head =
        line.substr(0, static_cast<size_t>(match.position(0))) + "ldmatrix.sync.aligned.m8n8.";
    const std::string tail = line.substr(static_cast<size_t>(match.position(0) + match.length(0)));
    add("matrix", head + (match[1].str() == "x4" ? "x2" : "x1") + trans + ".shared.b16 {" + kept +
                      "}" + tail);
    add("matrix", head + match[1].str() + (trans.empty() ? ".trans" : "") + ".shared.b16 {" + list +
                      "}" + tail);
  }
  if (Matches(line, "mma", kFragment, &match)) {
    const std::string a = match[1].str(), b = match[2].str();
    std::string mutated = line;
    mutated.replace(static_cast<size_t>(match.position(2)), b.size(), a);
    mutated.replace(static_cast<size_t>(match.position(1)), a.size(), b);
    if (a != b) add("fragment", mutated);
  }
  if (Matches(line, "[", kAddress, &match) && !Has(line, ".param")) {
    const long long offset =
        match[2].matched ? std::strtoll(match[2].str().c_str() + 1, nullptr, 10) : 0;
    add("offset", line.substr(0, static_cast<size_t>(match.position(0))) + "[" + match[1].str() +
                      "+" + std::to_string(offset + AccessBytes(line)) + "]" +
                      line.substr(static_cast<size_t>(match.position(0) + match.length(0))));
  }
  add("shift", Replaced(line, "sh", kShift, 1, [](const std::string& count) {
        return count == "0" ? std::string()
                            : std::to_string(std::strtoll(count.c_str(), nullptr, 10) - 1);
      }));
  add("constant", Replaced(line, Has(line, "mul.") ? "mul." : "add.s", kConstant, 1, PlusOne));
  if (Matches(line, "selp", kSelect, &match) && match[2].str() != match[3].str()) {
    const std::string a = match[2].str(), b = match[3].str();
    std::string mutated = line;
    mutated.replace(static_cast<size_t>(match.position(3)), b.size(), a);
    mutated.replace(static_cast<size_t>(match.position(2)), a.size(), b);
    add("select", mutated);
  }
}

// By register, the lines of one kernel that name it.
using Uses = std::map<std::string, std::vector<int>>;

bool BeginsFunction(const std::string& line) { return Has(line, ".entry") || Has(line, ".func"); }

// Of the function that begins in line first, from 0.
Uses UsesOf(const std::vector<std::string>& lines, size_t first) {
  Uses uses;
  for (size_t i = first; i < lines.size() && (i == first || !BeginsFunction(lines[i])); ++i) {
    const std::string& line = lines[i];
    for (size_t at = line.find("%r"); at != std::string::npos; at = line.find("%r", at + 1)) {
      size_t end = at + 2;
      while (end < line.size() && std::isalnum(static_cast<unsigned char>(line[end]))) ++end;
      std::vector<int>& numbers = uses[line.substr(at, end - at)];
      const int number = static_cast<int>(i) + 1;
      if (numbers.empty() || numbers.back() != number) numbers.push_back(number);
    }
  }
  return uses;
}

// Whether a mask's lowest bit, which the mutant loses, is shifted out wherever its result is used:
// then the mutant is the same program.
bool IsShiftedOut(const std::vector<std::string>& lines, const Uses& uses, const Mutant& mutant) {
  static const std::regex kMask("^\\s*and\\.b(?:32|64)\\s+(%rd?\\d+),[^;]*,\\s*(-?\\d+);");
  std::smatch mask;
  if (mutant.change != "mask" || !std::regex_search(mutant.original, mask, kMask)) return false;
  const long long value = std::strtoll(mask[2].str().c_str(), nullptr, 0);
  const std::regex shift("^\\s*shr\\.[us](?:32|64)\\s+%rd?\\d+,\\s*" + mask[1].str() +
                         ",\\s*(\\d+);");
  const auto found = uses.find(mask[1].str());
  if (found == uses.end()) return false;
  for (const int number : found->second) {
    if (number == mutant.line) continue;
    std::smatch by;
    const std::string& line = lines[static_cast<size_t>(number) - 1];
    if (!std::regex_search(line, by, shift)) return false;
    const int bits = std::min(std::atoi(by[1].str().c_str()), 62);
    if ((value & -value) >= 1LL << bits) return false;
  }
  return true;
}

}  // namespace

std::vector<Mutant> Mutants(const std::string& ptx, const std::set<int>& lines) {
  static const std::regex kEntry(
      "^\\s*(?:\\.visible |\\.weak )*\\.(?:entry|func)\\s+(?:\\([^)]*\\)\\s*)?(\\w+)");
  const std::vector<std::string> all = Split(ptx);
  std::vector<Mutant> mutants;
  std::string kernel;
  Uses uses;  // in it
  int number = 0;
  for (const std::string& line : all) {
    ++number;
    std::smatch match;
    if (BeginsFunction(line)) {
      if (std::regex_search(line, match, kEntry)) kernel = match[1].str();
      uses = UsesOf(all, static_cast<size_t>(number) - 1);
    }
    if (lines.count(number) == 0) continue;
    const size_t before = mutants.size();
    MutateLine(number, kernel, line, &mutants);
    mutants.erase(std::remove_if(mutants.begin() + static_cast<std::ptrdiff_t>(before),
                                 mutants.end(),
                                 [&](const Mutant& m) { return IsShiftedOut(all, uses, m); }),
                  mutants.end());
  }
  return mutants;
}

bool IsStrict(const Mutant& mutant) {
  for (const char* change :
       {"drop", "wait", "matrix", "fragment", "offset", "permute", "mask"}) {
    if (mutant.change == change) return true;
  }
  return false;
}

std::string Normalized(const std::string& line) {
  static const std::regex kNumber("(%[a-z]+)\\d+");
  static const std::regex kSpace("\\s+");
  std::string text = std::regex_replace(std::regex_replace(line, kNumber, "$1"), kSpace, " ");
  while (!text.empty() && text.front() == ' ') text.erase(0, 1);
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

}  // namespace nibble::cuda
