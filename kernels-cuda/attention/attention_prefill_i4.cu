// SPDX-License-Identifier: Apache-2.0
//
// Attention of many rows over KV4: attention_prefill.cuh.
#include "kernels-cuda/attention/attention_prefill.cuh"

NIBBLE_PREFILL_KERNELS(i4, kI4)
