// SPDX-License-Identifier: Apache-2.0
//
// Rotary embedding, KV cache append and causal attention over a batch of sequences.
// Shapes and positions are already checked. Layout of the cache: kv_cache.h.
#pragma once

#include <cstdint>

#include "kernels-cpu/attention/kv_cache.h"
#include "kernels-cpu/threads/workspace.h"

namespace nibble {

struct Sequence {
  KvCache* cache;
  int64_t start;
  int64_t rows;
};

// angles [total rows][2 * half]: cosines, then sines, of position * inverse_frequencies.
void RopeAngles(Workspace& workspace, const float* inverse_frequencies, int64_t half,
                const Sequence* sequences, int count, float* angles, int64_t stride);

// Rotates q in place ([rows][q_heads * head_dim]), appends rotated k, and v, to the caches.
// angles may be null: no rotation. Sets each cache's length in the layer to start + rows.
void RopeAppend(Workspace& workspace, int layer, float* q, int64_t q_stride, int64_t q_heads,
                const float* k, int64_t k_stride, const float* v, int64_t v_stride,
                const float* angles, int64_t angles_stride, const Sequence* sequences, int count);

// y = softmax(scale * q k^T) v, causal. q, y: [rows][q_heads * head_dim].
void Attention(Workspace& workspace, int layer, const float* q, int64_t q_stride, int64_t q_heads,
               float scale, const Sequence* sequences, int count, float* y, int64_t y_stride);

}  // namespace nibble
