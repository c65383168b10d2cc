// SPDX-License-Identifier: Apache-2.0
//
// Which kernel a product takes, and over how many blocks. A plan depends on the shape and the
// number of multiprocessors alone, so that a call gives the same bits on every run.
#pragma once

#include "kernels-cuda/gemm_i4f8/gemm_i4f8.h"

namespace nibble::cuda::gemm_i4f8 {

struct Plan {
  int block_tokens;  // few_rows.cuh: 8 or 16, and all tokens; tiled.cuh: 32, 64 or 128
  int64_t splits;    // of the steps of 64 columns
  // tiled_wgmma.cuh instead of tiled.cuh: E4M3 activations, blocks of 128, a unit of 32 or 64
  // columns, sm_90. The same blocks, splits and scratch.
  bool warpgroup = false;
};

// The block sizes that there are kernels for with this unit (16, 32 or 64 columns) and this
// number of tokens.
bool HasKernel(int unit, int block_tokens, int64_t tokens);

// Columns summed in the tensor cores before a group's scale is applied.
int UnitColumns(const WeightFormat& format);

// pair: of two matrices.
Plan MakePlan(const WeightFormat& format, int64_t rows, int64_t cols, int64_t tokens, bool pair,
              int multiprocessors);

// Whether this device is to take the kernel that Plan::warpgroup asks for: whether it has it, and
// has passed its trial, which is held once a process (warpgroup_trial.cc).
bool UsesWarpgroups(Device& device, int unit);

// The trial: *same is whether the kernel gave the same bits as the 16-bit one.
Status TryWarpgroups(Device& device, int unit, bool* same);

// Scratch of a plan.
int64_t PlanScratchBytes(const Plan& plan, int64_t rows, int64_t tokens, bool pair);

// Run (up null) or RunSwiGlu as planned: any plan with a kernel and 1 to 65535 splits will do.
Status RunPlanned(Device& device, const Plan& plan, const DeviceWeights& weights,
                  const DeviceWeights* up, const GemmLeft& left, const GemmResult& result,
                  const Scratch& scratch);

}  // namespace nibble::cuda::gemm_i4f8
