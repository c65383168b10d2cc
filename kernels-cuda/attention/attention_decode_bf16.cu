// SPDX-License-Identifier: Apache-2.0
//
// Attention of few rows over KV16: attention_decode.cuh.
#include "kernels-cuda/attention/attention_decode.cuh"

NIBBLE_DECODE_KERNELS(bf16, kBF16)
