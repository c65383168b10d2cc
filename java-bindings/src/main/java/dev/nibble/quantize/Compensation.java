// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import java.util.Locale;

/** How the rounding of some weights of a matrix makes up for the error of others. */
public enum Compensation {
  /** Not at all: each weight is rounded to the nearest code by itself. */
  NONE,
  /**
   * Column by column, the error of each is spread over those that are not rounded yet, by the
   * inverse of the Hessian of the output error (GPTQ, arXiv 2210.17323). Before, where the
   * calibration has 20 tokens or more for each input, the matrix is fitted to inputs that have
   * drifted in the quantized layers before it, so that it makes of them what it made of the
   * original ones (the target of GPTAQ, arXiv 2504.02692).
   */
  GPTQ,
  /**
   * Columns whose activations are large are scaled up before rounding, by the power of their
   * magnitude that gives the smallest output error, and the scaling is folded into what comes
   * before (AWQ, arXiv 2306.00978).
   */
  AWQ;

  /** The name in a recipe's name: {@code gptq}, {@code awq}. */
  public String id() {
    return name().toLowerCase(Locale.ROOT);
  }
}
