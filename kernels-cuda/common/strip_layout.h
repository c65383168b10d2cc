// SPDX-License-Identifier: Apache-2.0
//
// The packed layout of a weight matrix W [N][K] that gemm_f6 and gemm_dense share, the same for
// every generation and every type of activations: the left operand of mma.m16n8kX, in the order in
// which the lanes of a warp hold it.
//
//   matrix = | codes | scales |
//   codes  = strips of 32 output rows, each a row of bricks
//              | strip 0: brick 0 | brick 1 | ... | strip 1: brick 0 | ... |
//   brick  = 32 rows x 64 columns (16-bit codes: 32 columns, F32: 16): 3 or 4 words of 16 bytes a
//            lane, word by word, so that a warp reads 512 bytes in one go
//              | word 0: lane 0 | lane 1 | ... | lane 31 | word 1: lane 0 | ... |
//   scales = | strip 0: group 0 | group 1 | ... | strip 1: ... |, each 32 scales, one a row, in
//            their stored type
//
// Lane l has group = l / 4 and member = l % 4. It holds rows 4 group + i, i = 0..3, of its strip
// and, of every slice j of 16 columns, the columns 16 j + 4 member + c, c = 0..3. Two products
// of 16 rows make a strip; row `group + 8 h` of product t is output row 4 group + 2 t + h, so
// that a lane's sums are four neighbours in a row of the result, and eight lanes' are 128 bytes.
// The four columns of a lane in a slice are its share of one m16n8k16 (16-bit) or of half an
// m16n8k32 (8-bit): no slice of 16 columns, and so no group, is ever cut by an instruction.
//
//   8 bits    word j                  register i: columns 0 1 2 3
//   16 bits   word 2 j + t            registers: columns 0 1 of h = 0 and 1, columns 2 3 likewise
//   32 bits   word i                  registers: c 0..3
//   6 bits    two planes (FP6-LLM, arXiv 2401.14112, section 5), for a slice's four "quads" i of
//             four columns:
//     low nibbles, word j / 2, register 2 (j % 2) + i / 2, shifted left by 4 (i % 2):
//               bit  31        23        15        7
//                    |.... 3333|.... 1111|.... 2222|.... 0000|     the columns' nibbles
//     high pairs, word 2, register j: the sign of column c and the bit below it (E3M2: e2, E2M3:
//             e1) stand so that rotating left by r puts the signs of a column pair into bits 31
//             and 15, and the other bits where the BF16 has them: 6 (E3M2) or 7 (E2M3) lower.
//             r is HighRotation(i) for columns 2 and 3, that + 8 for columns 0 and 1. The 16 pairs
//             of positions fill the 32 bits exactly (checked below).
//
// Padding, of the last strip to 32 rows and of a row to whole bricks, has codes 0 and scales 0.
//
// Limits: any N and K from 1 to 2^31 - 1 whose bytes fit an int64_t.
#pragma once

#include <cstdint>

#include "kernels-cpu/numerics/types.h"

namespace nibble::cuda {

inline constexpr int kStripRows = 32;
inline constexpr int kSliceCols = 16;
inline constexpr int kWordBytes = 512;  // of one word of all lanes

constexpr int CodeBytes(DType code) {  // 0: six bits
  return IsSixBit(code)                                    ? 0
         : code == DType::kF32                             ? 4
         : code == DType::kF16 || code == DType::kBF16 ? 2
                                                           : 1;
}
constexpr int BrickCols(DType code) { return 64 / (CodeBytes(code) > 1 ? CodeBytes(code) : 1); }
// log2 of its slices.
constexpr int BrickShift(DType code) {
  return CodeBytes(code) == 4 ? 0 : CodeBytes(code) == 2 ? 1 : 2;
}
constexpr int BrickWords(DType code) { return IsSixBit(code) ? 3 : 4; }
constexpr int BrickBytes(DType code) { return BrickWords(code) * kWordBytes; }

// --------------------------------------------------------------------------------- six bits

// 0 4 1 5 or 0 2 4 6.
constexpr int HighRotation(DType code, int quad) {
  return code == DType::kE3M2 ? quad % 2 * 4 + quad / 2 : 2 * quad;
}
// How far below the sign a BF16 has the code's second bit.
constexpr int SecondBitDistance(DType code) { return code == DType::kE3M2 ? 6 : 7; }

// The lowest bit of the nibble of column c of quad i.
constexpr int LowBit(int quad, int c) { return 16 * (c % 2) + 8 * (c / 2) + 4 * (quad % 2); }
// The bits of a slice's high register that hold the sign and the second bit.
constexpr int SignBit(DType code, int quad, int c) {
  return (15 + 16 * (c % 2) - HighRotation(code, quad) - (c < 2 ? 8 : 0) + 32) % 32;
}
constexpr int SecondBit(DType code, int quad, int c) {
  return (SignBit(code, quad, c) - SecondBitDistance(code) + 32) % 32;
}

constexpr bool HighBitsAreDistinct(DType code) {
  uint32_t used = 0;
  for (int quad = 0; quad < 4; ++quad) {
    for (int c = 0; c < 4; ++c) {
      used |= 1u << SignBit(code, quad, c) | 1u << SecondBit(code, quad, c);
    }
  }
  return used == 0xFFFFFFFFu;
}
static_assert(HighBitsAreDistinct(DType::kE3M2) && HighBitsAreDistinct(DType::kE2M3),
              "32 bits have 32 places");

// ------------------------------------------------------------------------------------ sizes

struct StripLayout {
  StripLayout(const WeightFormat& format, int64_t rows, int64_t cols)
      : strips(DivUp(rows, kStripRows)),
        bricks(DivUp(cols, BrickCols(format.code))),
        groups(format.Groups(cols)),
        scale_bytes(format.ScaleBytes()),
        strip_code_bytes(bricks * BrickBytes(format.code)),
        strip_scale_bytes(groups * kStripRows * scale_bytes) {}

  int64_t scales_offset() const { return strips * strip_code_bytes; }
  int64_t bytes() const { return strips * (strip_code_bytes + strip_scale_bytes); }

  int64_t strips, bricks;
  int64_t groups;  // that have a scale; 0 where the codes are the values
  int64_t scale_bytes;
  int64_t strip_code_bytes, strip_scale_bytes;
};

// Where a byte-wise code (8, 16 or 32 bits) of row r (of 32) and column k stands in its brick.
constexpr unsigned CodeOffset(DType code, unsigned r, unsigned k) {
  const unsigned lane = r / 4 * 4 + k % kSliceCols / 4, i = r % 4, c = k % 4;
  const unsigned slice = k / kSliceCols;
  const int bytes = CodeBytes(code);
  const unsigned word = bytes == 1 ? slice : bytes == 2 ? 2 * slice + i / 2 : i;
  const unsigned in_word = bytes == 1   ? 4 * i + c
                           : bytes == 2 ? 8 * (c / 2) + 4 * (i % 2) + 2 * (c % 2)
                                        : 4 * c;
  return word * kWordBytes + lane * 16 + in_word;
}

// Where the registers of six-bit codes stand in their brick.
constexpr unsigned LowRegisterOffset(unsigned r, unsigned k) {
  const unsigned lane = r / 4 * 4 + k % kSliceCols / 4, slice = k / kSliceCols;
  return slice / 2 * kWordBytes + lane * 16 + 8 * (slice % 2) + 4 * (r % 4 / 2);
}
constexpr unsigned HighRegisterOffset(unsigned r, unsigned k) {
  const unsigned lane = r / 4 * 4 + k % kSliceCols / 4, slice = k / kSliceCols;
  return 2 * kWordBytes + lane * 16 + 4 * slice;
}

}  // namespace nibble::cuda
