// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/testing/mutate.h"

#include <cstdlib>
#include <functional>
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

// line with the capture group replaced by what change makes of it ("" : no mutant).
std::string Replaced(const std::string& line, const std::regex& pattern, int group,
                     const std::function<std::string(const std::string&)>& change) {
  std::smatch match;
  if (!std::regex_search(line, match, pattern)) return "";
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

std::string Dropped(const std::string& line) { return "// " + line; }

void MutateLine(const std::string& line,
                const std::function<void(const char*, const std::string&)>& add) {
  static const std::regex kDrop(
      "^\\s*\\{?\\s*(bar\\.sync|barrier\\.sync|bar\\.warp\\.sync|bar\\.arrive|cp\\.async|(@!?%p\\d+"
      "\\s+)?st\\.(shared|global))");
  static const std::regex kWait("cp\\.async\\.wait_group\\s+(\\d+)");
  static const std::regex kAnd("\\band\\.b(?:16|32|64)\\s[^;]*,\\s*(-?\\d+);");
  static const std::regex kSelector("\\bprmt\\.b32\\s[^;]*,\\s*(\\d+);");
  static const std::regex kTable("\\blop3\\.b32\\s[^;]*,\\s*((?:0x)?[0-9A-Fa-f]+);");
  static const std::regex kGuard("^\\s*(@!?)%p");
  static const std::regex kCompare("\\bsetp\\.(lt|le|gt|ge|eq|ne)\\b");
  static const std::regex kWide(
      "ldmatrix\\.sync\\.aligned\\.m8n8\\.(x4|x2)(\\.trans)?\\.shared\\.b16\\s*\\{([^}]*)\\}");
  static const std::regex kFragment(
      "mma\\.sync[^{]*\\{[^}]*\\}\\s*,\\s*\\{\\s*([^,}]*),\\s*([^,}]*)");
  static const std::regex kAddress("\\[(%r[d]?\\d+|\\w+)(\\+-?\\d+)?\\]");
  static const std::regex kShift("\\bsh[lr]\\.[bsu](?:16|32|64)\\s[^;]*,\\s*(\\d+);");
  static const std::regex kConstant(
      "\\b(?:add\\.s(?:16|32|64)|mul\\.lo\\.s32|mul\\.wide\\.[su]32)\\s[^;]*,\\s*(-?\\d+);");
  static const std::regex kSelect("\\bselp\\.\\w+\\s+([^,;]+),\\s*([^,;]+),\\s*([^,;]+),");

  if (std::regex_search(line, kDrop)) add("drop", Dropped(line));
  add("wait", Replaced(line, kWait, 1, PlusOne));
  add("mask", Replaced(line, kAnd, 1, [](const std::string& number) {
        const long long value = std::strtoll(number.c_str(), nullptr, 0);
        return value == 0 ? std::string() : std::to_string(value & (value - 1));
      }));
  add("permute", Replaced(line, kSelector, 1, [](const std::string& number) {
        return std::to_string(std::strtoll(number.c_str(), nullptr, 0) ^ 1);
      }));
  add("permute", Replaced(line, kTable, 1, [](const std::string& number) {
        return std::to_string(std::strtoll(number.c_str(), nullptr, 0) ^ 0x10);
      }));
  add("predicate", Replaced(line, kGuard, 1, [](const std::string& at) {
        return std::string(at == "@" ? "@!" : "@");
      }));
  add("compare", Replaced(line, kCompare, 1, [](const std::string& test) {
        static const char* const kTests[][2] = {{"lt", "le"}, {"le", "lt"}, {"gt", "ge"},
                                                {"ge", "gt"}, {"eq", "ne"}, {"ne", "eq"}};
        for (const auto& pair : kTests) {
          if (test == pair[0]) return std::string(pair[1]);
        }
        return std::string();
      }));
  std::smatch match;
  if (std::regex_search(line, match, kWide)) {
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
  if (std::regex_search(line, match, kFragment)) {
    const std::string a = match[1].str(), b = match[2].str();
    std::string mutated = line;
    mutated.replace(static_cast<size_t>(match.position(2)), b.size(), a);
    mutated.replace(static_cast<size_t>(match.position(1)), a.size(), b);
    if (a != b) add("fragment", mutated);
  }
  if (std::regex_search(line, match, kAddress) && !Has(line, ".param")) {
    const long long offset =
        match[2].matched ? std::strtoll(match[2].str().c_str() + 1, nullptr, 10) : 0;
    add("offset", line.substr(0, static_cast<size_t>(match.position(0))) + "[" + match[1].str() +
                      "+" + std::to_string(offset + AccessBytes(line)) + "]" +
                      line.substr(static_cast<size_t>(match.position(0) + match.length(0))));
  }
  add("shift", Replaced(line, kShift, 1, [](const std::string& count) {
        return count == "0" ? std::string()
                            : std::to_string(std::strtoll(count.c_str(), nullptr, 10) - 1);
      }));
  add("constant", Replaced(line, kConstant, 1, PlusOne));
  if (std::regex_search(line, match, kSelect) && match[2].str() != match[3].str()) {
    const std::string a = match[2].str(), b = match[3].str();
    std::string mutated = line;
    mutated.replace(static_cast<size_t>(match.position(3)), b.size(), a);
    mutated.replace(static_cast<size_t>(match.position(2)), a.size(), b);
    add("select", mutated);
  }
}

}  // namespace

std::vector<Mutant> Mutants(const std::string& ptx, const std::set<int>& lines) {
  static const std::regex kEntry(
      "^\\s*(?:\\.visible |\\.weak )*\\.(?:entry|func)\\s+(?:\\([^)]*\\)\\s*)?(\\w+)");
  std::vector<Mutant> mutants;
  std::string kernel;
  int number = 0;
  for (const std::string& line : Split(ptx)) {
    ++number;
    std::smatch match;
    if (line.find(".entry") != std::string::npos || line.find(".func") != std::string::npos) {
      if (std::regex_search(line, match, kEntry)) kernel = match[1].str();
    }
    if (lines.count(number) == 0) continue;
    MutateLine(line, [&](const char* change, const std::string& mutated) {
      if (!mutated.empty() && mutated != line)
        mutants.push_back({number, kernel, change, line, mutated});
    });
  }
  return mutants;
}

bool MovesData(const Mutant& mutant) {
  for (const char* change : {"drop", "wait", "matrix", "fragment", "offset", "permute"}) {
    if (mutant.change == change) return true;
  }
  return false;
}

std::string Apply(const std::string& ptx, const Mutant& mutant) {
  size_t begin = 0;
  for (int line = 1; line < mutant.line; ++line) begin = ptx.find('\n', begin) + 1;
  const size_t end = std::min(ptx.find('\n', begin), ptx.size());
  return ptx.substr(0, begin) + mutant.mutated + ptx.substr(end);
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
