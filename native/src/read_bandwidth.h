// SPDX-License-Identifier: Apache-2.0
//
// The rate at which a pool of threads reads memory: the limit of decode, which reads each
// weight once a token.
#pragma once

#include <cstdint>

#include "kernels-cpu/threads/thread_pool.h"

namespace nibble::abi {

// Allocates bytes of memory, each thread's contiguous share first touched by that thread, and
// returns the bytes per second of the best of `repeats` passes over all of it. Throws
// std::bad_alloc.
double MeasureReadBandwidth(ThreadPool& pool, int64_t bytes, int repeats);

}  // namespace nibble::abi
