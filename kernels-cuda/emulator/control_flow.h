// SPDX-License-Identifier: Apache-2.0
//
// Branches, calls and exits, and where diverged lanes meet again.
#pragma once

#include <map>
#include <string>

#include "kernels-cuda/emulator/decoder.h"

namespace nibble::cuda::emulator {

bool DecodeControlFlow(Decoder& decoder, const Statement& statement, Instruction* instruction);
Instruction ReturnInstruction(int line);

// Fills in the targets of the function's branches, whose code begins at begin, and for each the
// instruction where its lanes meet again: the first that every path to a return passes
// (immediate post-dominator).
void ConnectBranches(const Function& function, size_t begin, Program* program);

// Fills in where a call goes, once all functions lie in the code.
void ResolveCall(Instruction* instruction, const std::map<std::string, int32_t>& entry_points);

}  // namespace nibble::cuda::emulator
