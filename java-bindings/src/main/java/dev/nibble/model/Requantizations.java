// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.io.ForeignMatrix;
import dev.nibble.quantize.WeightFormat;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Consumer;

/**
 * Which matrices of a checkpoint were quantized a second time, and what that cost: the square root
 * of the sum of squared differences over the sum of squared values. For one thread.
 */
final class Requantizations {
  private static final class Cost {
    int matrices;
    double difference;
    double value;
  }

  private final String file;
  private final Consumer<String> warnings;
  private final Map<String, Cost> costs = new TreeMap<>();

  Requantizations(String file, Consumer<String> warnings) {
    this.file = file;
    this.warnings = warnings;
  }

  /** Takes note of a matrix: sums of squares over all its weights. */
  void add(ForeignMatrix matrix, WeightFormat format, double difference, double value) {
    if (difference == 0) {
      return; // nothing was lost
    }
    var cost = costs.computeIfAbsent(
        matrix.encoding() + " to " + format.describe(), what -> new Cost());
    cost.matrices++;
    cost.difference += difference;
    cost.value += value;
  }

  /** One line for each kind. */
  void report() {
    costs.forEach((what, cost) -> warnings.accept(String.format(Locale.ROOT,
        "%s: %d %s from %s, which is not exact: relative error %.3g %%", file, cost.matrices,
        cost.matrices == 1 ? "matrix quantized again" : "matrices quantized again", what,
        100 * Math.sqrt(cost.difference / cost.value))));
  }
}
