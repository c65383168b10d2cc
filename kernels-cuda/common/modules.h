// SPDX-License-Identifier: Apache-2.0
//
// The compiled kernels that this library carries (cmake/CudaModule.cmake makes the table).
#pragma once

#include <cstddef>

namespace nibble::cuda {

// One .cu file, compiled for one target.
struct ModuleImage {
  const char* name;        // the file's name without suffix
  int target;              // 80, 89, 90 (sm_90a), 120 (sm_120a)
  const char* ptx;         // text, NUL-terminated: what the emulator runs; null for targets other
                           // than 89 in the library as it ships
  const void* cubin;       // ptxas's output for it
  size_t cubin_bytes;
};

extern const ModuleImage kModuleImages[];
extern const size_t kModuleImageCount;

}  // namespace nibble::cuda
