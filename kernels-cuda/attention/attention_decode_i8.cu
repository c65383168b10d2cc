// SPDX-License-Identifier: Apache-2.0
//
// Attention of few rows over KV8: attention_decode.cuh.
#include "kernels-cuda/attention/attention_decode.cuh"

NIBBLE_DECODE_KERNELS(i8, kI8)
