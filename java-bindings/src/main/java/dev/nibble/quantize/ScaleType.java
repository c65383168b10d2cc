// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.DataType;
import java.util.Locale;

/** How a group's scale is stored: the scale types of {@code nb_weight_format}. */
public enum ScaleType {
  /** No scales: unquantized weights. */
  NONE(0, 0),
  /** OCP FP8 E4M3, with one F32 factor for the whole matrix (FireQ, arXiv 2505.20839). */
  E4M3(4, 1),
  /** A power of two in one signed byte, with one F32 factor per row. */
  POW2(12, 1),
  /** IEEE 754 binary16. */
  F16(2, 2),
  /** bfloat16. */
  BF16(3, 2),
  /** IEEE 754 binary32. */
  F32(1, 4);

  private final int nativeId;
  private final int bytes;

  ScaleType(int nativeId, int bytes) {
    this.nativeId = nativeId;
    this.bytes = bytes;
  }

  /** The value of {@code nb_dtype}. */
  public int nativeId() {
    return nativeId;
  }

  /** Bytes of one scale; 0 for {@link #NONE}. */
  public int bytes() {
    return bytes;
  }

  /** The type of a file's tensor of such scales; a power of two is its exponent, an I8. */
  public DataType dataType() {
    return this == POW2 ? DataType.I8 : DataType.valueOf(name());
  }

  /** The name in files and on the command line: {@code e4m3}, {@code pow2}, ... */
  public String id() {
    return name().toLowerCase(Locale.ROOT);
  }

  /**
   * The scale type of a {@code --scale-type} value.
   *
   * @throws InvalidArgumentException naming the values that exist
   */
  public static ScaleType ofOption(String option) {
    for (var type : values()) {
      if (type != NONE && type.id().equals(option)) {
        return type;
      }
    }
    throw new InvalidArgumentException("--scale-type: unknown type \"" + option
        + "\", expected one of e4m3, pow2, f16, bf16, f32");
  }
}
