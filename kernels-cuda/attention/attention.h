// SPDX-License-Identifier: Apache-2.0
//
// Rotary embedding, KV cache append and causal attention on the device: the counterpart of
// kernels-cpu/attention/, with the same meaning of every argument.
//
// A cache is one block of device memory that the caller allocates (KvCacheBytes) and prepares
// once (PrepareKvCache); the number of tokens in it is the caller's to keep. Tokens behind a
// sequence's own rows may hold anything: no kernel lets them reach a result.
//
// The layout of a cache (blocks of 16 tokens, so that a block is one run of bytes):
//
//   cache  = | factors: F32 [layers][2], key and value | 0..255 unused
//            | layer 0: head 0 | head 1 | ... | layer 1: head 0 | ...
//   head   = | block 0: tokens 0..15 | block 1: tokens 16..31 | ... |
//   block  = | key scales | value scales | keys [16][row bytes] | values [16][row bytes] |
//
//   scales   KV4: E4M3 [groups][16 tokens]     KV8: F32 [16]     KV16 and F32: none
//   row      one token's head in its natural order, zeros up to a multiple of 16 bytes. KV4:
//            eight elements a word; nibble i holds element 2 i, nibble i + 4 element 2 i + 1,
//            so that the decoders of common/decode.cuh give neighbours as pairs.
//
//   bytes of a block = 2 (scales + 16 RoundUp(row bytes, 16)), which is, for head size 128,
//   2112 (KV4, one group), 4224 (KV8), 8192 (KV16), 16384 (F32).
//
// The values of codes are those of kernels-cpu/attention/kv_cache.h, bit for bit.
//
// Every function returns at once with the work queued on the device, in order. What varies
// from token to token (positions, rows, caches) is read from the device's array of sequences;
// what is passed from the host are bounds, so that a step can be captured in a graph and
// replayed after the array was overwritten, as long as the bounds hold. The caller has checked
// shapes and positions. Thread-safety is the Device's.
#pragma once

#include <cstdint>

#include "kernels-cpu/attention/kv_cache.h"
#include "kernels-cuda/attention/sequence.h"
#include "kernels-cuda/common/device.h"
#include "kernels-cuda/common/gemm_call.h"

namespace nibble::cuda::attention {

// Bytes of device memory of a cache, which must lie on a boundary of 256 bytes; -1 where they do
// not fit in 63 bits. shape.group_size: as KvCacheShape says, 0 is not allowed for KV4.
int64_t KvCacheBytes(const KvCacheShape& shape);

// Writes the factors of an empty cache: kI4 only, one F32 a layer, positive normal numbers, or
// null for 1. Must be called once before the cache is used. `memory`: KvCacheBytes(shape) bytes.
Status PrepareKvCache(Device& device, const KvCacheShape& shape, const float* key_factors,
                      const float* value_factors, DevicePtr memory);

// The sequences of a call, and bounds on what they hold (on every replay of it).
struct SequenceBatch {
  DevicePtr sequences;  // DeviceSequence [count]; all of one shape but for the capacity
  int64_t count;
  int64_t total_rows;   // at least the sum of all rows
  int64_t max_rows;     // at least the rows of any sequence
  int64_t max_keys;     // at least start + rows of any sequence
};

// Rows of F32 on the device, `stride` elements from one to the next (any, at least the width).
struct DeviceRows {
  DevicePtr values;
  int64_t stride;
};

// Rotates q in place ([total_rows][q_heads * head_dim]) and appends the rotated k, and v
// ([total_rows][kv_heads * head_dim], not changed), to layer of each sequence's cache; codes
// and rotated values have the CPU's bits (of a CPU with fused multiply-add). angles:
// [total_rows][head_dim], cosines then sines, or values = 0 for no rotation.
Status RopeAppend(Device& device, const KvCacheShape& shape, int layer, int64_t q_heads,
                  const DeviceRows& q, const DeviceRows& k, const DeviceRows& v,
                  const DeviceRows& angles, const SequenceBatch& batch);

// Bytes of scratch that Attention needs for batches within these bounds (batch.sequences is not
// looked at); grows with every bound.
int64_t ScratchBytes(const KvCacheShape& shape, int64_t q_heads, const SequenceBatch& batch);

// output = softmax(scale * q k^T) v, causal: the token at position p sees positions 0..p of
// its sequence, all of which the cache's layer holds. q, output: F32
// [total_rows][q_heads * head_dim]; they must not overlap. scale: finite, of either sign.
// A sequence has the same bits in any batch and on every run. Precision: attention_*.cuh.
Status Attention(Device& device, const KvCacheShape& shape, int layer, int64_t q_heads,
                 const DeviceRows& q, float scale, const DeviceRows& output,
                 const SequenceBatch& batch, const Scratch& scratch);

}  // namespace nibble::cuda::attention
