// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;

/**
 * How the weights of one matrix W [N rows][K columns] are stored: {@code nb_weight_format}.
 *
 * @param code what one weight is
 * @param scale how a group's scale is stored; {@link ScaleType#NONE} for unquantized codes
 * @param groupSize columns that share a scale: a multiple of 16, or 0 for the whole row; 0 for
 *     unquantized codes
 */
public record WeightFormat(CodeType code, ScaleType scale, int groupSize) {

  /** 32-bit floats. */
  public static final WeightFormat F32 = new WeightFormat(CodeType.F32, ScaleType.NONE, 0);

  /** bfloat16. */
  public static final WeightFormat BF16 = new WeightFormat(CodeType.BF16, ScaleType.NONE, 0);

  /** FireQ's weights: INT4 in groups of 128 with E4M3 scales. */
  public static final WeightFormat W4 = new WeightFormat(CodeType.I4, ScaleType.E4M3, 128);

  /** ZeroQuant(4+2)'s weights: FP6 E3M2, one F32 scale a row. */
  public static final WeightFormat W6 = new WeightFormat(CodeType.E3M2, ScaleType.F32, 0);

  /** INT8, one F32 scale a row. */
  public static final WeightFormat W8 = new WeightFormat(CodeType.I8, ScaleType.F32, 0);

  /**
   * INT8 in groups of 32 with F32 scales: what other projects' matrices become where no format
   * holds them exactly.
   */
  public static final WeightFormat FOREIGN = new WeightFormat(CodeType.I8, ScaleType.F32, 32);

  /**
   * Checks the combination against the table in {@code nibble.h}.
   *
   * @throws InvalidArgumentException for a null part or a group size that is not legal
   * @throws UnsupportedException for a scale type that the code type cannot have
   */
  public WeightFormat {
    if (code == null || scale == null) {
      throw new InvalidArgumentException("weight format: code and scale must not be null");
    }
    if (groupSize < 0 || groupSize % 16 != 0) {
      throw new InvalidArgumentException("group size: " + groupSize
          + " given, expected a positive multiple of 16, or 0 for the whole row");
    }
    if (!code.isQuantized() && (scale != ScaleType.NONE || groupSize != 0)) {
      throw new UnsupportedException("weights " + code.option()
          + " are not quantized: they have no scale type and no group size (given: "
          + scale.id() + ", " + groupSize + ")");
    }
    if (code.isQuantized() && !scalesOf(code).contains(scale.id())) {
      throw new UnsupportedException("weights " + code.option() + " with " + scale.id()
          + " scales: no kernel has these, expected one of " + scalesOf(code));
    }
  }

  private static String scalesOf(CodeType code) {
    return code == CodeType.I4 ? "e4m3, pow2, f16, bf16, f32" : "f16, bf16, f32";
  }

  /** The usual format of a code type: W4 with G = 128 and E4M3 scales, others per row in F32. */
  public static WeightFormat of(CodeType code) {
    if (!code.isQuantized()) {
      return new WeightFormat(code, ScaleType.NONE, 0);
    }
    return code == CodeType.I4 ? W4 : new WeightFormat(code, ScaleType.F32, 0);
  }

  /** This format with another scale type. */
  public WeightFormat withScale(ScaleType scale) {
    return new WeightFormat(code, scale, groupSize);
  }

  /** This format with another group size; 0 for the whole row. */
  public WeightFormat withGroupSize(int groupSize) {
    return new WeightFormat(code, scale, groupSize);
  }

  /** Bytes of the {@code codes} part of an [rows, cols] matrix. */
  public long codeBytes(long rows, long cols) {
    return Math.multiplyExact(rows, code.codeBytes(cols));
  }

  /** Bytes of the {@code codes_high} part; 0 where the format has none. */
  public long highBytes(long rows, long cols) {
    return Math.multiplyExact(rows, code.highBytes(cols));
  }

  /** Groups, and so scales, of a row of {@code cols} columns; 0 for unquantized codes. */
  public long groups(long cols) {
    if (!code.isQuantized()) {
      return 0;
    }
    return groupSize == 0 ? 1 : Math.ceilDiv(cols, (long) groupSize);
  }

  /** Bytes of the {@code scales} part; 0 where the format has none. */
  public long scaleBytes(long rows, long cols) {
    return Math.multiplyExact(Math.multiplyExact(rows, groups(cols)), (long) scale.bytes());
  }

  /** F32 elements of the {@code factors} part: 1, {@code rows}, or 0 where absent. */
  public long factorCount(long rows) {
    if (code != CodeType.I4) {
      return 0;
    }
    return switch (scale) {
      case E4M3 -> 1;
      case POW2 -> rows;
      default -> 0;
    };
  }

  /** Bytes of all parts of an [rows, cols] matrix. */
  public long bytes(long rows, long cols) {
    return codeBytes(rows, cols) + highBytes(rows, cols) + scaleBytes(rows, cols)
        + 4 * factorCount(rows);
  }

  /** For people: {@code w4, e4m3 scales for groups of 128}. */
  public String describe() {
    if (!code.isQuantized()) {
      return code.option();
    }
    return code.option() + ", " + scale.id() + " scales "
        + (groupSize == 0 ? "per row" : "for groups of " + groupSize);
  }
}
