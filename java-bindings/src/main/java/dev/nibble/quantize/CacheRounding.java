// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

/**
 * The 4-bit cache's rounding of one head, for trying scales on sampled tokens: one scale for the
 * head, as {@code nb_rope_append} does it but for the rounding of the scale itself.
 */
final class CacheRounding {
  private static final int SCALE_BITS = 4; // of an E4M3 number, with the implicit one

  private CacheRounding() {}

  /**
   * The error of a head's elements x[first .. first + size), when they are stored divided by
   * scales, weighted: sum of weights[i] * error[i]^2.
   *
   * @param scales for each of size elements
   * @param weights likewise
   */
  static double error(float[] x, int first, int size, double[] scales, double[] weights) {
    double largest = 0;
    for (int i = 0; i < size; i++) {
      largest = Math.max(largest, Math.abs(x[first + i] / scales[i]));
    }
    if (largest == 0) {
      return 0;
    }
    double step = rounded(largest / 7);
    double sum = 0;
    for (int i = 0; i < size; i++) {
      double code = Math.clamp(Math.rint(x[first + i] / scales[i] / step), -8, 7);
      double error = x[first + i] - code * step * scales[i];
      sum += weights[i] * error * error;
    }
    return sum;
  }

  /** To the significant bits of an E4M3 number, of any magnitude. */
  private static double rounded(double scale) {
    double unit = Math.scalb(1.0, Math.getExponent(scale) - SCALE_BITS + 1);
    return Math.rint(scale / unit) * unit;
  }
}
