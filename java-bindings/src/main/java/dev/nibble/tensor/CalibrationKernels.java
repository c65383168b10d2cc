// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ffi.nb_calibration_options;
import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import dev.nibble.quantize.WeightFormat;

/**
 * What a calibrating quantizer computes natively: statistics of activations, scaling of weights,
 * and quantization by the error of the output. All work on ordinary memory with the threads of a
 * {@link Context} on the CPU; each method is one call of the C ABI and thread-safe like it.
 */
public final class CalibrationKernels {

  /**
   * How {@link #quantize} chooses codes: {@code nb_calibration_options}.
   *
   * @param clipping search each group's scale for the least error; 4-bit codes only
   * @param byMagnitude with moments: columns with the largest moments first
   * @param damping with moments: this share of the mean of their diagonal is added to it; above 0
   * @param factor the matrix factor of E4M3 scales; 0 for round-to-nearest's
   */
  public record Options(boolean clipping, boolean byMagnitude, float damping, float factor) {}

  private CalibrationKernels() {}

  /**
   * Adds the squares of each column to sums, and raises maxima to the largest magnitudes.
   *
   * @param x F32 [M, K]
   * @param sums F32 [K], or null; maxima likewise
   */
  public static void channelStatistics(Context context, Tensor x, Tensor sums, Tensor maxima) {
    Tensor.check("x", x, DataType.F32, -1, -1);
    try (var call = context.new Call(x.leases(), leasesOf(sums, x), leasesOf(maxima, x))) {
      Status.check(nibble_h.nb_channel_statistics(context.handle(), call.describe(x),
          call.describe(sums), call.describe(maxima)));
    }
  }

  /** moments += x^T x. x: F32 [M, K]; moments: F32 [K, K]. */
  public static void secondMoments(Context context, Tensor x, Tensor moments) {
    Tensor.check("x", x, DataType.F32, -1, -1);
    try (var call = context.new Call(x.leases(), moments.leases())) {
      Status.check(nibble_h.nb_second_moments(
          context.handle(), call.describe(x), call.describe(moments)));
    }
  }

  /** moments += x^T y. x, y: F32 [M, K]; moments: F32 [K, K]. */
  public static void crossMoments(Context context, Tensor x, Tensor y, Tensor moments) {
    Tensor.check("x", x, DataType.F32, -1, -1);
    try (var call = context.new Call(x.leases(), y.leases(), moments.leases())) {
      Status.check(nibble_h.nb_cross_moments(context.handle(), call.describe(x),
          call.describe(y), call.describe(moments)));
    }
  }

  /**
   * Fits weights, in place, to inputs x that stand where the unquantized model has y, as {@code
   * nb_correct_drift} defines it.
   *
   * @param weights F32 [N, K]
   * @param moments F32 [K, K] of {@link #secondMoments} of x
   * @param cross F32 [K, K] of {@link #crossMoments} of x and y
   * @param damping this share of the mean of the moments' diagonal keeps weights from changing;
   *     above 0
   */
  public static void correctDrift(
      Context context, Tensor weights, Tensor moments, Tensor cross, float damping) {
    Tensor.check("weights", weights, DataType.F32, -1, -1);
    try (var call = context.new Call(weights.leases(), moments.leases(), cross.leases())) {
      Status.check(nibble_h.nb_correct_drift(context.handle(), call.describe(weights),
          call.describe(moments), call.describe(cross), damping));
    }
  }

  /**
   * Multiplies row n of weights by rowFactors[n] and column k by colFactors[k], in place.
   *
   * @param weights F32 [N, K]
   * @param rowFactors N of them, or null for ones
   * @param colFactors K of them, or null for ones
   */
  public static void scale(
      Context context, Tensor weights, float[] rowFactors, float[] colFactors) {
    Tensor.check("weights", weights, DataType.F32, -1, -1);
    try (var rows = vector(rowFactors); var cols = vector(colFactors);
        var call = context.new Call(
            weights.leases(), leasesOf(rows, weights), leasesOf(cols, weights))) {
      Status.check(nibble_h.nb_scale_matrix(context.handle(), call.describe(weights),
          call.describe(rows), call.describe(cols)));
    }
  }

  /**
   * Quantizes weights to the canonical form so that the output changes little, as {@code
   * nb_quantize_calibrated} defines it; the caller closes the result.
   *
   * @param weights F32 [N, K], finite
   * @param format quantized
   * @param importance K second moments of the inputs for clipping, or null for ones
   * @param moments F32 [K, K] of {@link #secondMoments} for compensation, or null
   * @throws InvalidArgumentException naming the element that is NaN or infinite
   */
  public static QuantizedWeights quantize(Context context, Tensor weights, WeightFormat format,
      float[] importance, Tensor moments, Options options) {
    Tensor.check("weights", weights, DataType.F32, -1, -1);
    var result = QuantizedWeights.allocate(format, weights.dim(0), weights.dim(1));
    boolean complete = false;
    try (var weighting = vector(importance);
        var call = context.new Call(weights.leases(), result.leases(),
            leasesOf(weighting, weights), leasesOf(moments, weights))) {
      var struct = nb_calibration_options.allocate(call.arena);
      nb_calibration_options.struct_size(struct, nb_calibration_options.sizeof());
      nb_calibration_options.clipping(struct, options.clipping ? 1 : 0);
      nb_calibration_options.by_magnitude(struct, options.byMagnitude ? 1 : 0);
      nb_calibration_options.damping(struct, options.damping);
      nb_calibration_options.factor(struct, options.factor);
      Status.check(nibble_h.nb_quantize_calibrated(context.handle(),
          Context.describe(call.arena, format), struct, call.describe(weights),
          call.describe(weighting), call.describe(moments), result.codesDescriptor(call.arena),
          result.codesHighDescriptor(call.arena), result.scalesDescriptor(call.arena),
          result.factorsDescriptor(call.arena)));
      complete = true;
      return result;
    } finally {
      if (!complete) {
        result.close();
      }
    }
  }

  private static Tensor vector(float[] values) {
    return values == null ? null : Tensor.of(values, values.length);
  }

  /** A tensor's leases; those of another operand where there is no tensor. */
  private static Leases leasesOf(Tensor tensor, Tensor other) {
    return tensor == null ? other.leases() : tensor.leases();
  }
}
