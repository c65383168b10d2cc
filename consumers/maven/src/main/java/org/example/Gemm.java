// SPDX-License-Identifier: Apache-2.0
package org.example;

import dev.nibble.quantize.ActivationType;
import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.QuantizedWeights;
import dev.nibble.tensor.Tensor;
import java.lang.foreign.ValueLayout;
import java.util.Random;

/**
 * An application whose one dependency is {@code dev.nibble:nibble}: INT4 weights times FP8
 * activations through the tensor facade, checked against the definition in double precision.
 */
public final class Gemm {

  // Odd sizes: the last group of 64 columns holds only 8.
  private static final int M = 4;
  private static final int N = 23;
  private static final int K = 200;
  private static final int GROUP = 64;
  private static final float FACTOR = 0.0078125f;

  private Gemm() {}

  public static void main(String[] args) {
    var random = new Random(11);
    var x = new float[M * K];
    for (int i = 0; i < x.length; i++) {
      x[i] = random.nextFloat(-1, 1);
    }
    var format = WeightFormat.W4.withGroupSize(GROUP);
    try (var context = Context.create();
        var weights = QuantizedWeights.allocate(format, N, K)) {
      fill(weights, random);
      try (var matrix = context.pack(weights);
          var input = Tensor.of(x, M, K);
          var output = context.matmul(ActivationType.A8F, input, matrix)) {
        double worst = compare(weights, x, output.toFloats());
        System.out.printf(
            "INT4-FP8 product %dx%dx%d is right; worst error %.2g of the tolerance%n",
            M, N, K, worst);
      }
    }
  }

  private static void fill(QuantizedWeights weights, Random random) {
    for (long i = 0; i < weights.codes().byteSize(); i++) {
      weights.codes().set(ValueLayout.JAVA_BYTE, i, (byte) random.nextInt(256));
    }
    for (long i = 0; i < weights.scales().byteSize(); i++) {
      weights.scales().set(ValueLayout.JAVA_BYTE, i, (byte) random.nextInt(8, 104)); // E4M3
    }
    weights.factors().set(ValueLayout.JAVA_FLOAT, 0, FACTOR);
  }

  /**
   * The largest error as a share of the tolerance. Every product is exact in F32; what rounds is
   * fewer than K additions and three multiplications by scales, each by at most 2^-24 of the sum
   * of the magnitudes.
   */
  private static double compare(QuantizedWeights weights, float[] x, float[] y) {
    double worst = 0;
    for (int m = 0; m < M; m++) {
      float amax = 0;
      for (int k = 0; k < K; k++) {
        amax = Math.max(amax, Math.abs(x[m * K + k]));
      }
      float scale = amax / 448f;
      for (int n = 0; n < N; n++) {
        double sum = 0;
        double magnitude = 0;
        for (int k = 0; k < K; k++) {
          double product = weight(weights, n, k) * roundToE4m3(x[m * K + k] / scale) * scale;
          sum += product;
          magnitude += Math.abs(product);
        }
        double tolerance = magnitude * (K + 3) * 0x1p-24;
        double error = Math.abs(y[m * N + n] - sum);
        if (!(error <= tolerance)) {
          throw new IllegalStateException(
              "y[%d][%d] = %s, expected %s within %s".formatted(m, n, y[m * N + n], sum, tolerance));
        }
        worst = Math.max(worst, error / tolerance);
      }
    }
    return worst;
  }

  private static double weight(QuantizedWeights weights, int n, int k) {
    int nibble = weights.codes().get(ValueLayout.JAVA_BYTE, (n * K + k) / 2) >> (k % 2 * 4) & 15;
    int group = n * Math.ceilDiv(K, GROUP) + k / GROUP;
    int code = weights.scales().get(ValueLayout.JAVA_BYTE, group);
    int exponent = code >> 3;
    int mantissa = code & 7;
    double scale = exponent == 0 ? mantissa * 0x1p-9 : Math.scalb(8.0 + mantissa, exponent - 10);
    return (nibble >= 8 ? nibble - 16 : nibble) * scale * FACTOR;
  }

  /** The nearest E4M3 value, ties to even, saturating at 448. */
  private static double roundToE4m3(double value) {
    double step = Math.scalb(1.0, Math.max(Math.getExponent(value), -6) - 3);
    return Math.clamp(Math.rint(value / step) * step, -448, 448);
  }
}
