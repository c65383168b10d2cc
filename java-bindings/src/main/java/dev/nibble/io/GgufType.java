// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.util.Arrays;
import java.util.stream.Collectors;

/**
 * How a GGUF file stores a tensor: the numbers of the GGUF specification, with the size of a block.
 * A block holds consecutive elements of one row. Types with a block of 0 elements are known by name
 * only.
 */
enum GgufType {
  F32(0, 1, 4),
  F16(1, 1, 2),
  /** d F16, 16 bytes of nibbles: d * (q - 8). */
  Q4_0(2, 32, 18),
  /** d F16, m F16, 16 bytes of nibbles: d * q + m. */
  Q4_1(3, 32, 20),
  /** d F16, 4 bytes of fifth bits, 16 of nibbles: d * (q - 16). */
  Q5_0(6, 32, 22),
  /** d F16, m F16, 4 bytes of fifth bits, 16 of nibbles: d * q + m. */
  Q5_1(7, 32, 24),
  /** d F16, 32 signed bytes: d * q. */
  Q8_0(8, 32, 34),
  Q8_1(9),
  Q2_K(10),
  Q3_K(11),
  /** d F16, dmin F16, 12 bytes of 6-bit scales and minima, 128 of nibbles: d * s * q - dmin * m. */
  Q4_K(12, 256, 144),
  /** As Q4_K, with 32 bytes of fifth bits before the nibbles. */
  Q5_K(13, 256, 176),
  /** 128 bytes of low nibbles, 64 of high pairs, 16 signed scales, d F16: d * s * (q - 32). */
  Q6_K(14, 256, 210),
  Q8_K(15),
  IQ2_XXS(16),
  IQ2_XS(17),
  IQ3_XXS(18),
  IQ1_S(19),
  IQ4_NL(20),
  IQ3_S(21),
  IQ2_S(22),
  IQ4_XS(23),
  I8(24),
  I16(25),
  I32(26),
  I64(27),
  F64(28),
  IQ1_M(29),
  BF16(30, 1, 2),
  Q4_0_4_4(31),
  Q4_0_4_8(32),
  Q4_0_8_8(33),
  TQ1_0(34),
  TQ2_0(35),
  MXFP4(39);

  private static final GgufType[] VALUES = values();

  private final int id;
  private final int blockElements;
  private final int blockBytes;

  GgufType(int id, int blockElements, int blockBytes) {
    this.id = id;
    this.blockElements = blockElements;
    this.blockBytes = blockBytes;
  }

  GgufType(int id) {
    this(id, 0, 0);
  }

  /** Elements of a block, 1 for floats; 0 where Nibble does not read the type. */
  int blockElements() {
    return blockElements;
  }

  /** Bytes of a block. */
  int blockBytes() {
    return blockBytes;
  }

  /** Whether elements are floats of their own. */
  boolean isFloat() {
    return blockElements == 1;
  }

  /** The type of a float tensor in a {@link TensorStore}; bytes for all others. */
  DataType dataType() {
    return isFloat() ? DataType.valueOf(name()) : DataType.U8;
  }

  /** The type of that number, or null. */
  static GgufType of(int id) {
    for (var type : VALUES) {
      if (type.id == id) {
        return type;
      }
    }
    return null;
  }

  /** The types that Nibble reads, for messages. */
  static String supported() {
    return Arrays.stream(VALUES).filter(type -> type.blockElements > 0).map(Enum::name)
        .collect(Collectors.joining(", "));
  }
}
