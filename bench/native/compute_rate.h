// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic limits of the CPU: multiply-adds on registers alone, a multiply-add counted as
// two operations.
#pragma once

#include "kernels-cpu/threads/thread_pool.h"

namespace nibble::bench {

enum class Arithmetic {
  kByteDot,  // four u8 x i8 products added to an i32: vpdpbusd, or what stands in for it
  kBF16Dot,  // two BF16 products added to an F32; only where the target has an instruction
  kF32Fma,
};

// Operations a second of all the pool's threads together, the best of `repeats` runs of a fraction
// of a millisecond, on the SIMD target in use; 0 where the target has no such instruction.
double MeasureComputeRate(ThreadPool& pool, Arithmetic arithmetic, int repeats);

}  // namespace nibble::bench
