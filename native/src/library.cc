// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "kernels-cpu/threads/thread_pool.h"
#include "native/src/checks.h"
#include "native/src/simd_target.h"

using namespace nibble;
using namespace nibble::abi;

// The build defines the version once, for this file, the package files and the SONAME.
#ifndef NIBBLE_VERSION
#define NIBBLE_VERSION "0.1.0"
#endif

int32_t nb_abi_version(void) { return NB_ABI_VERSION; }

const char* nb_version(void) { return NIBBLE_VERSION; }

const char* nb_last_error(void) { return LastMessage(); }

const char* nb_simd_target(void) {
  const char* name = "unknown";  // only if not even the list of names could be allocated
  Guard("nb_simd_target", [&] {
    name = SimdTargetInUse();
    return NB_OK;
  });
  return name;
}

nb_status nb_simd_targets(char* buffer, int64_t buffer_length) {
  constexpr char kFunction[] = "nb_simd_targets";
  return Guard(kFunction, [&] {
    NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "buffer"}, buffer));
    const char* names = UsableSimdTargets();
    const auto needed = static_cast<int64_t>(std::strlen(names)) + 1;
    if (buffer_length < needed) {
      return FailArg(NB_INVALID_ARGUMENT, {kFunction, "buffer_length"},
                     "%lld but at least %lld was expected",
                     static_cast<long long>(buffer_length), static_cast<long long>(needed));
    }
    std::memcpy(buffer, names, static_cast<size_t>(needed));
    return NB_OK;
  });
}

int32_t nb_available_threads(void) {
  int32_t threads = 1;
  Guard("nb_available_threads", [&] {
    threads = AvailableThreads();
    return NB_OK;
  });
  return threads;
}
