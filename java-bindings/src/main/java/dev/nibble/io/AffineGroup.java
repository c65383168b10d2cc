// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

/**
 * Re-expresses a group of values d q + m, q a small unsigned integer, as c s with signed bytes c:
 *
 * <pre>
 *   s = d / k,  c = k q + n,  n = round(k m / d)
 * </pre>
 *
 * <p>for the k that makes n / k the best approximation of m / d while all c fit. All values are off
 * by the same d |k m / d - n| / k, so that steps between values stay as they are; among the first K
 * multiples of any number one is within 1 / (K + 1) of an integer (Dirichlet), and K is some 16 for
 * four bits. Where m is far from 0 and K small, each value is rounded by itself, to amax / 127.
 */
final class AffineGroup {
  private static final int MAX_CODE = 127;

  private AffineGroup() {}

  /**
   * Replaces q by c.
   *
   * @param codes q, then c, from at on
   * @return s, which has the sign of d; not finite where d or m is not
   */
  static float fit(byte[] codes, int at, int count, float d, float m) {
    int low = Byte.MAX_VALUE;
    int high = 0;
    for (int i = at; i < at + count; i++) {
      low = Math.min(low, codes[i]);
      high = Math.max(high, codes[i]);
    }
    double offset = (double) m / d;
    int best = 0;
    int bestShift = 0;
    double bestError = Double.POSITIVE_INFINITY;
    // What is not finite, or beyond any code, finds no k.
    int most = Math.abs(offset) <= MAX_CODE ? 2 * MAX_CODE / Math.max(1, high - low) : 0;
    for (int k = 1; k <= most; k++) {
      double exact = k * offset;
      int shift = (int) Math.rint(exact);
      if (k * low + shift < -MAX_CODE || k * high + shift > MAX_CODE) {
        continue;
      }
      double error = Math.abs(exact - shift) / k;
      if (error < bestError) {
        bestError = error;
        best = k;
        bestShift = shift;
      }
    }
    double largest = Math.max(Math.abs(low + offset), Math.abs(high + offset));
    // Compared with the rounding error of values of their own, uniform in a step: its deviation.
    if (best == 0 || bestError > largest / MAX_CODE / Math.sqrt(12)) {
      return round(codes, at, count, d, m);
    }
    for (int i = at; i < at + count; i++) {
      codes[i] = (byte) (best * codes[i] + bestShift);
    }
    return d / best;
  }

  /** Each value by itself; also where d is 0. */
  private static float round(byte[] codes, int at, int count, float d, float m) {
    float largest = 0;
    for (int i = at; i < at + count; i++) {
      largest = Math.max(largest, Math.abs(d * codes[i] + m));
    }
    float scale = largest / MAX_CODE;
    for (int i = at; i < at + count; i++) {
      codes[i] = scale == 0 ? 0
          : (byte) Math.clamp(Math.rint((d * codes[i] + m) / scale), -MAX_CODE, MAX_CODE);
    }
    return scale;
  }
}
