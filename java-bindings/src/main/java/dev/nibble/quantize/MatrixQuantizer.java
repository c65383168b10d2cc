// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.tensor.CalibrationKernels;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.QuantizedWeights;
import dev.nibble.tensor.Tensor;

/** Rounds one matrix as a recipe says. */
final class MatrixQuantizer {
  /**
   * The share of the mean second moment that is added to each: what GPTQ's authors use. It keeps
   * errors from being spread over inputs that the calibration text hardly shows.
   */
  static final float DAMPING = 0.01f;

  private final Context context;
  private final Recipe recipe;

  MatrixQuantizer(Context context, Recipe recipe) {
    this.context = context;
    this.recipe = recipe;
  }

  /** How a matrix of that format is quantized. */
  static CalibrationKernels.Options options(Recipe recipe, WeightFormat format) {
    boolean i4 = format.code() == CodeType.I4;
    boolean e4m3 = i4 && format.scale() == ScaleType.E4M3;
    return new CalibrationKernels.Options(recipe.clipping() && i4, false, DAMPING,
        e4m3 && !recipe.tensorScale() ? 1 : 0);
  }

  /**
   * Quantizes a matrix; the caller closes the result.
   *
   * @param meanSquares of the inputs, [K]; used without moments
   * @param moments F32 [K, K] of the inputs, or null
   */
  QuantizedWeights quantize(
      Tensor weights, WeightFormat format, float[] meanSquares, Tensor moments) {
    if (!format.code().isQuantized()) {
      return context.quantize(weights, format);
    }
    return CalibrationKernels.quantize(
        context, weights, format, meanSquares, moments, options(recipe, format));
  }
}
