// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/emulator/kept_images.h"

#include <algorithm>

#include "kernels-cuda/emulator/decoder.h"

namespace nibble::cuda::emulator {

namespace {

struct KeptKernel {
  std::unique_ptr<Decoder> decoder;  // that made the program, with its places for names
  std::shared_ptr<Program> program;
};

struct KeptImage {
  std::shared_ptr<const Module> module;
  std::map<std::string, KeptKernel> kernels;
};

bool keep_images = false;
std::map<const char*, KeptImage>& Kept() {
  static auto* kept = new std::map<const char*, KeptImage>;
  return *kept;
}

bool HasVariables(const Module& module) {
  return std::any_of(module.variables.begin(), module.variables.end(), [](const Variable& v) {
    return v.space == StateSpace::kGlobal || v.space == StateSpace::kConst;
  });
}

const std::map<std::string, Placement>& NoGlobals() {
  static const auto* none = new std::map<std::string, Placement>;
  return *none;
}

using Names = std::map<std::string, std::string>;

// What names in a statement as written stand for, seen from the same statement in the tree.
void Match(const Operand& written, const Operand& meant, Names* names) {
  if (!written.name.empty()) (*names)[written.name] = meant.name;
  if (!written.second.empty()) (*names)[written.second] = meant.second;
  for (size_t i = 0; i < written.parts.size() && i < meant.parts.size(); ++i) {
    Match(written.parts[i], meant.parts[i], names);
  }
}

void Rename(const Names& names, std::string* name) {
  const auto found = names.find(*name);
  if (found != names.end()) *name = found->second;
}

void Rename(const Names& names, Operand* operand) {
  Rename(names, &operand->name);
  Rename(names, &operand->second);
  for (Operand& part : operand->parts) Rename(names, &part);
}

// The statement that `text` makes of `original`, which stands on that line of the image.
Statement Changed(const Statement& original, const std::string& written, const std::string& text) {
  if (text.empty()) {
    Statement nothing;
    nothing.line = original.line;
    nothing.opcode = {kNothing};
    return nothing;
  }
  const Statement before = ParseStatement(written, original.line);
  Statement after = ParseStatement(text, original.line);
  Names names;
  if (!before.guard.empty()) names[before.guard] = original.guard;
  for (size_t i = 0; i < before.operands.size() && i < original.operands.size(); ++i) {
    Match(before.operands[i], original.operands[i], &names);
  }
  Rename(names, &after.guard);
  for (Operand& operand : after.operands) Rename(names, &operand);
  return after;
}

}  // namespace

std::shared_ptr<const Module> ParseImage(const char* image) {
  const std::string hooked = HookedPtx(image);
  if (!hooked.empty()) return std::make_shared<const Module>(ParsePtx(hooked));
  if (!keep_images) return std::make_shared<const Module>(ParsePtx(image));
  const auto kept = Kept().find(image);
  if (kept != Kept().end()) return kept->second.module;
  auto module = std::make_shared<const Module>(ParsePtx(image));
  if (!HasVariables(*module)) Kept()[image].module = module;
  return module;
}

std::shared_ptr<Program> DecodeKernel(const LoadedModule& loaded, const Function& entry) {
  const auto kept = Kept().find(loaded.image);
  if (kept == Kept().end() || kept->second.module != loaded.module) {
    return DecodeProgram(*loaded.module, entry, loaded.globals);
  }
  KeptKernel& kernel = kept->second.kernels[entry.name];
  if (kernel.program == nullptr) {
    kernel.decoder = std::make_unique<Decoder>(*loaded.module, NoGlobals());
    kernel.program = kernel.decoder->Run(entry);
  }
  return kernel.program;
}

void KeepImages(bool keep) {
  const auto lock = Lock();
  keep_images = keep;
  if (!keep) Kept().clear();
}

std::set<int> StatementLines(const char* image) {
  const auto lock = Lock();
  std::set<int> lines;
  const auto kept = Kept().find(image);
  if (kept == Kept().end()) return lines;
  for (const Function& function : kept->second.module->functions) {
    for (const Statement& statement : function.statements) lines.insert(statement.line);
  }
  return lines;
}

std::string ReplaceLine(const char* image, int line, const std::string& written,
                        const std::string& text) {
  const auto lock = Lock();
  const auto kept = Kept().find(image);
  if (kept == Kept().end()) return "the image is not kept";
  const Function* function = nullptr;
  const Statement* original = nullptr;
  for (const Function& candidate : kept->second.module->functions) {
    const auto& statements = candidate.statements;
    if (statements.empty() || line < statements.front().line || line > statements.back().line)
      continue;
    for (const Statement& statement : statements) {
      if (statement.line != line) continue;
      if (original != nullptr) return "several statements on the line";
      function = &candidate;
      original = &statement;
    }
  }
  if (original == nullptr) return "no statement on the line";
  bool replaced = false;
  try {
    const Statement statement = Changed(*original, written, text);
    for (auto& [name, kernel] : kept->second.kernels) {
      if (kernel.program != nullptr && kernel.decoder->Replace(*function, statement)) {
        replaced = true;
      }
    }
  } catch (const PtxError& error) {
    RestoreLine();
    return error.what();
  }
  return replaced ? "" : "no kernel with the line has been decoded";
}

void RestoreLine() {
  const auto lock = Lock();
  for (auto& [image, kept] : Kept()) {
    for (auto& [name, kernel] : kept.kernels) {
      if (kernel.decoder != nullptr) kernel.decoder->Restore();
    }
  }
}

}  // namespace nibble::cuda::emulator
