// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import java.util.Objects;

/**
 * RMSNorm (Zhang and Sennrich, arXiv 1910.07467) fused in front of a product: x / sqrt(mean(x^2) +
 * epsilon) * weight.
 *
 * @param weight F32 [K]
 * @param epsilon above 0
 */
public record Norm(Tensor weight, float epsilon) {
  /** Checks that there is a weight. */
  public Norm {
    Objects.requireNonNull(weight, "weight");
  }
}
