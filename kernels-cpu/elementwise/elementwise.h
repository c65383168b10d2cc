// SPDX-License-Identifier: Apache-2.0
//
// RMSNorm, SwiGLU, residual add, activation quantizers, embedding lookup.
#pragma once

#include <cstdint>

#include "kernels-cpu/gemm/packed_matrix.h"
#include "kernels-cpu/threads/workspace.h"

namespace nibble {

// One row, on the calling thread: y = x / sqrt(mean(x^2) + epsilon) * weight, n elements,
// in F32 as Hugging Face's LLaMA computes it (arXiv 1910.07467); y may be x. n = 0 does
// nothing. The building block of the fused operators.
void RmsNormRow(const float* x, const float* weight, float epsilon, int64_t n, float* y);

// One row, on the calling thread, exactly as nb_quantize_activations defines it: writes n
// codes and returns the scale, amax/448 or amax/127 in F32 but never less than the
// smallest normal F32 (2^-126): a subnormal scale would have too few bits left to divide
// by. Each code is Encode(x / scale). A row of zeros (or of no elements): codes 0, scale 0;
// a row with a NaN or an infinity: codes 0, scale NaN.
float QuantizeRowE4M3(const float* x, int64_t n, uint8_t* codes);
float QuantizeRowI8(const float* x, int64_t n, int8_t* codes);

// Whole operators, on all threads; rows are `stride` elements apart. Every result depends
// on its row alone, so any number of threads gives the same bits. None allocates once the
// workspace has grown.
void RmsNorm(Workspace& workspace, const float* x, int64_t x_stride, const float* weight,
             float epsilon, int64_t rows, int64_t cols, float* y, int64_t y_stride);
void SwiGlu(Workspace& workspace, const float* gate, int64_t gate_stride, const float* up,
            int64_t up_stride, int64_t rows, int64_t cols, float* y, int64_t y_stride);
void Add(Workspace& workspace, const float* a, int64_t a_stride, const float* b, int64_t b_stride,
         int64_t rows, int64_t cols, float* y, int64_t y_stride);
// norm: RMSNorm weight or null. type: kE4M3 or kI8.
void QuantizeActivations(Workspace& workspace, DType type, const float* x, int64_t x_stride,
                         const float* norm, float epsilon, int64_t rows, int64_t cols,
                         uint8_t* codes, int64_t codes_stride, float* scales);
void Embedding(Workspace& workspace, const PackedMatrix& table, const int32_t* ids, int64_t rows,
               float* y, int64_t y_stride);

// n elements on the calling thread: y = silu(gate) * up, silu(x) = x / (1 + exp(-x)). The
// relative error is below 2^-21, the absolute error of silu where it underflows below
// 2^-120. NaN gives NaN; finite inputs never give NaN. y may be gate or up.
void SwiGluRow(const float* gate, const float* up, int64_t n, float* y);

// n elements on the calling thread: y = a + b. y may be a or b.
void AddRow(const float* a, const float* b, int64_t n, float* y);

}  // namespace nibble
