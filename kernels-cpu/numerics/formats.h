// SPDX-License-Identifier: Apache-2.0
//
// One scalar encoder and one scalar decoder for every format: the definitions that all
// other code is tested against. Encoding rounds to nearest, ties to even, saturates, and
// keeps NaN where the format has one (elsewhere NaN encodes as 0: callers check first).
//
// Sources: OCP 8-bit Floating Point Specification 1.0 (E4M3, E5M2), OCP Microscaling
// Formats 1.0 (E3M2, E2M3), IEEE 754 (F16), upper half of binary32 (BF16).
#pragma once

#include <cstdint>

#include "kernels-cpu/numerics/types.h"

namespace nibble {

uint8_t EncodeE4M3(float value);
uint8_t EncodeE5M2(float value);
uint8_t EncodeE3M2(float value);
uint8_t EncodeE2M3(float value);
uint16_t EncodeF16(float value);   // saturates to 65504; infinity stays infinity
uint16_t EncodeBF16(float value);  // saturates; infinity stays infinity
int8_t EncodeI4(float value);      // -8..7
int8_t EncodeI8(float value);      // -128..127

float DecodeE4M3(uint8_t code);
float DecodeE5M2(uint8_t code);
float DecodeE3M2(uint8_t code);
float DecodeE2M3(uint8_t code);
float DecodeF16(uint16_t code);
float DecodeBF16(uint16_t code);
inline float DecodeI4(uint8_t code) { return static_cast<float>(((code & 15) ^ 8) - 8); }
inline float DecodeI8(uint8_t code) { return static_cast<float>(static_cast<int8_t>(code)); }

// The same by type; code types of at most 16 bits, and kPow2 (a signed exponent byte).
uint32_t Encode(DType type, float value);
float Decode(DType type, uint32_t code);

// The largest finite value of a code type (I4: 7, I8: 127, as the quantizers use them).
float MaxValue(DType type);

}  // namespace nibble
