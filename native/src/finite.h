// SPDX-License-Identifier: Apache-2.0
//
// The search for NaN and infinity in weights before anything is written.
#pragma once

#include "kernels-cpu/threads/thread_pool.h"
#include "native/src/checks.h"

namespace nibble::abi {

// NB_OK if every element of weights (F32, F16 or BF16) is finite; else NB_INVALID_ARGUMENT
// naming the first that is not, in row-major order.
nb_status CheckFinite(const Arg& arg, ThreadPool& pool, const View& weights);

}  // namespace nibble::abi
