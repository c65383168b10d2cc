// SPDX-License-Identifier: Apache-2.0
//
// What the two halves of the driver's functions share.
#pragma once

#include "kernels-cuda/emulator/driver_state.h"

namespace nibble::cuda::emulator {

// Below this a block has its shared memory without asking.
constexpr int kFreeSharedBytes = 48 << 10;

CUcontext CurrentContext();
CUresult Flush(CUstream stream);  // runs what waits in it
CUresult Enqueue(CUstream stream, Operation operation);
CUresult BreakCapture(CUstream stream, const char* what);

}  // namespace nibble::cuda::emulator
