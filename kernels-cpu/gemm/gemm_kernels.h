// SPDX-License-Identifier: Apache-2.0
//
// What gemm.cc needs of the SIMD kernels: the sums of some rows of activations with one
// or two neighbouring panels of weights.
#pragma once

#include <cstdint>

#include "kernels-cpu/gemm/gemm_input.h"
#include "kernels-cpu/gemm/packed_matrix.h"

namespace nibble {

// A unit of work: two panels, 32 output columns, so that a register tile of the widest
// vectors has two columns of accumulators. Units do not depend on the thread count.
inline constexpr int64_t kUnitPanels = 2;
inline constexpr int64_t kUnitColumns = kUnitPanels * kPanelRows;

// Scratch of one thread: a decoded segment of two panels in F32, 64-byte aligned.
inline constexpr int64_t kUnitScratchBytes = kUnitPanels * kMaxSegment * kPanelRows * 4;

// acc[r][c] = sum over k of input row (row + r) times weight row (panel * 16 + c), group
// scales applied, token scale and factor not. acc: [rows][kUnitColumns]; when panels is 1
// the second half is undefined. row: a multiple of kInputTileRows, or at most kFewRows rows
// in all.
using UnitKernel = void (*)(const PackedMatrix& matrix, int64_t panel, int64_t panels,
                            const PreparedInput& input, int64_t row, int64_t rows,
                            uint8_t* scratch, float* acc);

UnitKernel FloatUnitKernel();    // every code type; F32, A16 and A8F values
UnitKernel IntegerUnitKernel();  // I4 and I8 codes; A8I

}  // namespace nibble
