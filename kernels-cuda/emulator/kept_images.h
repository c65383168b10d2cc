// SPDX-License-Identifier: Apache-2.0
//
// Images that are parsed and kernels that are decoded once, and changes of their statements: see
// KeepImages and ReplaceLine in emulator.h.
#pragma once

#include <memory>

#include "kernels-cuda/emulator/driver_state.h"

namespace nibble::cuda::emulator {

// The image's tree, through the hook where one is set. Throws PtxError.
std::shared_ptr<const Module> ParseImage(const char* image);

// Throws PtxError.
std::shared_ptr<Program> DecodeKernel(const LoadedModule& loaded, const Function& entry);

}  // namespace nibble::cuda::emulator
