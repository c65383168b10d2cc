// SPDX-License-Identifier: Apache-2.0
//
// The plain definitions of rotary embedding and attention, in F64.
#pragma once

#include <cstdint>

#include "kernels-cpu/attention/attention.h"

namespace nibble {

// One head of 2 * half elements rotated by its row of angles.
void RotateHeadReference(const float* x, const float* angles, int64_t half, double* y);

// Attention on the exact values that the caches hold; queries against KV4 and KV8 are
// rounded to E4M3 as the kernel rounds them. y, bound: [rows][q_heads * head_dim], dense.
// bound: how far a result in F32 may be from y (derived in attention_reference.cc).
void AttentionReference(int layer, const float* q, int64_t q_stride, int64_t q_heads, float scale,
                        const Sequence* sequences, int count, double* y, double* bound);

}  // namespace nibble
