// SPDX-License-Identifier: Apache-2.0
//
// Attention of many rows over KV8: attention_prefill.cuh.
#include "kernels-cuda/attention/attention_prefill.cuh"

NIBBLE_PREFILL_KERNELS(i8, kI8)
