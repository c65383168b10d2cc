// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import java.util.Arrays;
import java.util.Locale;
import java.util.stream.Collectors;

/** What one stored weight is: the code types of {@code nb_weight_format} in {@code nibble.h}. */
public enum CodeType {
  /** Two's complement, -8..7; two codes a byte. */
  I4(8, 4, "w4"),
  /** OCP MX FP6 E3M2; a 4-bit and a 2-bit plane. */
  E3M2(6, 6, "w6"),
  /** OCP MX FP6 E2M3; a 4-bit and a 2-bit plane. */
  E2M3(7, 6, "w6e2m3"),
  /** Two's complement, -128..127. */
  I8(9, 8, "w8"),
  /** OCP FP8 E4M3 (FN). */
  E4M3(4, 8, "w8e4m3"),
  /** OCP FP8 E5M2. */
  E5M2(5, 8, "w8e5m2"),
  /** bfloat16, unquantized. */
  BF16(3, 16, "bf16"),
  /** IEEE 754 binary16, unquantized. */
  F16(2, 16, "f16"),
  /** IEEE 754 binary32, unquantized. */
  F32(1, 32, "f32");

  private final int nativeId;
  private final int bits;
  private final String option;

  CodeType(int nativeId, int bits, String option) {
    this.nativeId = nativeId;
    this.bits = bits;
    this.option = option;
  }

  /** The value of {@code nb_dtype}. */
  public int nativeId() {
    return nativeId;
  }

  /** Bits of one code: 4, 6, 8, 16 or 32. */
  public int bits() {
    return bits;
  }

  /** The name on the command line ({@code --weights}), such as {@code w4}. */
  public String option() {
    return option;
  }

  /** The name in files: {@code i4}, {@code e3m2}, ... */
  public String id() {
    return name().toLowerCase(Locale.ROOT);
  }

  /** Whether the codes need scales; false for the 16- and 32-bit floats. */
  public boolean isQuantized() {
    return bits < 16;
  }

  /** Bytes of one row of {@code cols} columns in the {@code codes} part. */
  public long codeBytes(long cols) {
    return switch (this) {
      case I4, E3M2, E2M3 -> (cols >> 1) + (cols & 1);
      case I8, E4M3, E5M2 -> cols;
      case BF16, F16 -> Math.multiplyExact(cols, 2L);
      case F32 -> Math.multiplyExact(cols, 4L);
    };
  }

  /** Bytes of one row of {@code cols} columns in the {@code codes_high} part; 0 where absent. */
  public long highBytes(long cols) {
    return bits == 6 ? (cols >> 2) + ((cols & 3) != 0 ? 1 : 0) : 0;
  }

  /**
   * The code type of a {@code --weights} value.
   *
   * @throws InvalidArgumentException naming the values that exist
   */
  public static CodeType ofOption(String option) {
    for (var type : values()) {
      if (type.option.equals(option)) {
        return type;
      }
    }
    throw new InvalidArgumentException("--weights: unknown format \"" + option
        + "\", expected one of "
        + Arrays.stream(values()).map(CodeType::option).collect(Collectors.joining(", ")));
  }
}
