// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.io.DataType;
import dev.nibble.tensor.CalibrationKernels;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Chooses factors for the inputs of projections: column k of the weights is multiplied by s[k], the
 * input divided by it in whatever makes the input. The product stays what it is; the error of
 * rounding does not.
 *
 * <p>Let a be the root mean square of an input on the calibration tokens and b that of its column.
 * Where a group's step is proportional to the root mean square of its scaled weights, the error of
 * the output is least for s = sqrt(a / b) (Cauchy's inequality). Channel-wise scaling tries s = (a
 * b)^c / b for several c, which all give the same result when an input is multiplied by anything
 * and its column divided by it; AWQ (arXiv 2306.00978) tries s = a^c. These, and s = 1, are judged
 * by the error of the output on a sample of rows, quantized as the whole will be.
 */
final class InputScaling {
  private static final double[] CHANNEL_EXPONENTS = {0, 0.125, 0.25, 0.375, 0.5, 0.625};
  private static final int AWQ_STEPS = 20;
  private static final int SAMPLE_ROWS = 256;

  private final Context context;
  private final Recipe recipe;

  InputScaling(Context context, Recipe recipe) {
    this.context = context;
    this.recipe = recipe;
  }

  /** A projection to be quantized: its weights, F32 [N, K], and their format. */
  record Target(Tensor weights, WeightFormat format) {}

  /** Adds to the error of a candidate what else it changes. */
  @FunctionalInterface
  interface OtherError {
    double of(double[] scales);
  }

  /**
   * The factors for K inputs that all targets share.
   *
   * @param meanSquares of the inputs, [K]
   */
  float[] choose(float[] meanSquares, List<Target> targets) {
    return choose(meanSquares, targets, Sharing.NONE, scales -> 0);
  }

  /** Which inputs must have one factor. */
  interface Sharing {
    Sharing NONE = new Sharing() {
      @Override
      public int count(int inputs) {
        return inputs;
      }

      @Override
      public int of(int input) {
        return input;
      }
    };

    /** How many factors there are for so many inputs. */
    int count(int inputs);

    /** The factor of an input. */
    int of(int input);
  }

  /** The same, where inputs share factors: one for each of sharing.count(K). */
  float[] choose(
      float[] meanSquares, List<Target> targets, Sharing sharing, OtherError otherError) {
    int inputs = meanSquares.length;
    var columns = columnSquares(targets, inputs);
    int count = sharing.count(inputs);
    var a = new double[count];
    var b = new double[count];
    for (int k = 0; k < inputs; k++) {
      a[sharing.of(k)] += meanSquares[k];
      b[sharing.of(k)] += columns[k];
    }
    for (int i = 0; i < count; i++) {
      a[i] = Math.sqrt(a[i]);
      b[i] = Math.sqrt(b[i]);
    }
    var samples = new ArrayList<Tensor>();
    try {
      for (var target : targets) {
        samples.add(sample(target.weights()));
      }
      double[] best = null;
      double bestError = Double.POSITIVE_INFINITY;
      for (var candidate : candidates(a, b)) {
        double error = otherError.of(candidate);
        for (int i = 0; i < samples.size(); i++) {
          error += error(samples.get(i), targets.get(i), meanSquares, candidate, sharing);
        }
        if (error < bestError) {
          bestError = error;
          best = candidate;
        }
      }
      return Ratios.toFloats(best);
    } finally {
      samples.forEach(Tensor::close);
    }
  }

  private List<double[]> candidates(double[] a, double[] b) {
    var candidates = new ArrayList<double[]>();
    if (recipe.channelScaling()) {
      for (double exponent : CHANNEL_EXPONENTS) {
        candidates.add(powers(a, exponent, b, exponent - 1));
      }
    }
    if (recipe.compensation() == Compensation.AWQ) {
      for (int i = 1; i <= AWQ_STEPS; i++) {
        candidates.add(powers(a, (double) i / AWQ_STEPS, b, 0));
      }
    }
    candidates.add(powers(a, 0, b, 0)); // as it is, if nothing is better
    return candidates;
  }

  /** a^c b^d, with 1 for inputs or columns that are all zero. */
  private static double[] powers(double[] a, double c, double[] b, double d) {
    var scales = new double[a.length];
    for (int i = 0; i < scales.length; i++) {
      boolean used = a[i] > 0 && b[i] > 0;
      scales[i] = used ? Math.pow(a[i], c) * Math.pow(b[i], d) : Double.NaN;
    }
    double logs = 0;
    int used = 0;
    for (double scale : scales) {
      if (!Double.isNaN(scale)) {
        logs += Math.log(scale);
        used++;
      }
    }
    double middle = used == 0 ? 1 : Math.exp(logs / used);
    for (int i = 0; i < scales.length; i++) {
      scales[i] = Double.isNaN(scales[i]) ? middle : scales[i];
    }
    Ratios.normalize(scales);
    return scales;
  }

  /** The sum of the squares of each column of all targets. */
  float[] columnSquares(List<Target> targets, int inputs) {
    try (var sums = Tensor.allocate(DataType.F32, inputs)) {
      for (var target : targets) {
        CalibrationKernels.channelStatistics(context, target.weights(), sums, null);
      }
      return sums.toFloats();
    }
  }

  /** Some rows, spread over all. */
  private static Tensor sample(Tensor weights) {
    long rows = weights.dim(0);
    long bytes = 4 * weights.dim(1);
    int count = (int) Math.min(rows, SAMPLE_ROWS);
    var sample = Tensor.allocate(DataType.F32, count, weights.dim(1));
    for (int i = 0; i < count; i++) {
      MemorySegment.copy(weights.segment(), rows * i / count * bytes, sample.segment(), i * bytes,
          bytes);
    }
    return sample;
  }

  /**
   * The squared error of a projection's output, summed over its rows, for a mean token, if it is
   * quantized as it is.
   *
   * @param meanSquares of the inputs, [K]
   */
  double error(Target target, float[] meanSquares) {
    var ones = new double[meanSquares.length];
    Arrays.fill(ones, 1);
    try (var sample = sample(target.weights())) {
      return error(sample, target, meanSquares, ones, Sharing.NONE);
    }
  }

  /** The mean over rows of the output's squared error, times the rows of the whole matrix. */
  private double error(Tensor sample, Target target, float[] meanSquares, double[] candidate,
      Sharing sharing) {
    if (!target.format().code().isQuantized()) {
      return 0;
    }
    int inputs = meanSquares.length;
    var scales = new float[inputs];
    var importance = new float[inputs];
    for (int k = 0; k < inputs; k++) {
      scales[k] = (float) candidate[sharing.of(k)];
      importance[k] = meanSquares[k] / (scales[k] * scales[k]);
    }
    long rows = sample.dim(0);
    try (var scaled = Tensor.allocate(DataType.F32, rows, inputs)) {
      MemorySegment.copy(sample.segment(), 0, scaled.segment(), 0, sample.byteSize());
      CalibrationKernels.scale(context, scaled, null, scales);
      try (var quantized = CalibrationKernels.quantize(context, scaled, target.format(),
              importance, null, MatrixQuantizer.options(recipe, target.format()));
          var packed = context.pack(quantized);
          var back = context.dequantize(packed);
          var sums = Tensor.allocate(DataType.F32, inputs)) {
        subtract(back, scaled);
        CalibrationKernels.channelStatistics(context, back, sums, null);
        double error = 0;
        var squares = sums.toFloats();
        for (int k = 0; k < inputs; k++) {
          error += (double) squares[k] * importance[k];
        }
        return error * target.weights().dim(0) / rows;
      }
    }
  }

  private static void subtract(Tensor from, Tensor what) {
    var a = from.segment();
    var b = what.segment();
    for (long i = 0; i < from.size(); i++) {
      a.setAtIndex(ValueLayout.JAVA_FLOAT, i, a.getAtIndex(ValueLayout.JAVA_FLOAT, i)
          - b.getAtIndex(ValueLayout.JAVA_FLOAT, i));
    }
  }
}
