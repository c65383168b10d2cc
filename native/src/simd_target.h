// SPDX-License-Identifier: Apache-2.0
//
// The choice of the SIMD target, made once per process. A target is one of Highway's, or one of
// those with a way of multiplying bytes that Highway does not tell apart (byte_dot.h), as
// AVX2_VNNI or NEON_I8MM.
#pragma once

#include "native/src/status.h"

namespace nibble::abi {

// Applies NIBBLE_SIMD_TARGET, the first time it is called in the process, before anything
// is dispatched; later calls (from any thread) only return what that gave: NB_OK, or the
// failure with its message set for the calling thread, which then begins with `function`.
nb_status ApplySimdTarget(const char* function);

// Space-separated names of the targets that this build has and this CPU announces, best first;
// not affected by NIBBLE_SIMD_TARGET. Lives as long as the process.
const char* UsableSimdTargets();

// The name of the target in use. Lives as long as the process.
const char* SimdTargetInUse();

}  // namespace nibble::abi
