// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

/** Scales that matter by their ratios alone. */
final class Ratios {
  private static final double LARGEST = 1e5;

  private Ratios() {}

  /** Divides by the geometric mean and bounds what is left, so that no F32 product overflows. */
  static void normalize(double[] scales) {
    double logs = 0;
    for (double scale : scales) {
      logs += Math.log(scale);
    }
    double mean = Math.exp(logs / scales.length);
    for (int i = 0; i < scales.length; i++) {
      scales[i] = Math.clamp(scales[i] / mean, 1 / LARGEST, LARGEST);
    }
  }

  static float[] toFloats(double[] values) {
    var floats = new float[values.length];
    for (int i = 0; i < values.length; i++) {
      floats[i] = (float) values[i];
    }
    return floats;
  }

  /** 1 / each. */
  static float[] inverse(float[] values) {
    var inverse = new float[values.length];
    for (int i = 0; i < values.length; i++) {
      inverse[i] = 1 / values[i];
    }
    return inverse;
  }
}
