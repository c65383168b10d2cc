// SPDX-License-Identifier: Apache-2.0
//
// Which registers share a place in the register file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>

#include "kernels-cuda/emulator/ptx_module.h"

namespace nibble::cuda::emulator {

// A place for each register that the function uses. PTX has thousands of registers, most of them
// written once and read a few lines on: those that live in one basic block, and are written
// there before they are read, share places, which keeps a warp's file in the CPU's cache. All
// others have a place of their own, so that what was never written is still poison.
std::unordered_map<std::string, int32_t> PlaceRegisters(
    const Function& function, const std::function<int32_t(int bits)>& grow);

// Whether the statement is a wgmma.mma_async, which goes on with its registers after it.
bool IsWarpgroupProduct(const Statement& statement);

}  // namespace nibble::cuda::emulator
