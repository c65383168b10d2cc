// SPDX-License-Identifier: Apache-2.0
//
// Attention of many rows over KV16: attention_prefill.cuh.
#include "kernels-cuda/attention/attention_prefill.cuh"

NIBBLE_PREFILL_KERNELS(bf16, kBF16)
