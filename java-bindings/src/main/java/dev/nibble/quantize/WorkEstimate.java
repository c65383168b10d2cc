// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.model.LlamaConfig;
import java.util.List;

/** About how long each step of a run takes, in millions of multiplications: for time left. */
final class WorkEstimate {
  private static final List<String> STEPS =
      List.of("", "attention", "feed-forward", "scaling", "rounding");
  /** What reading, converting and scaling a weight costs, in multiplications at products' speed. */
  private static final long READING = 400;
  private static final long SCALING = 600;
  private static final long ROUNDING = 1000;

  private final int layers;
  private final long[] costs = new long[STEPS.size()];

  WorkEstimate(LlamaConfig config, Recipe recipe, long tokens) {
    layers = config.layers();
    long hidden = config.hiddenSize();
    long query = config.querySize();
    long attention = hidden * (2 * query + 2L * config.kvSize());
    long feedForward = 3 * hidden * config.intermediateSize();
    long weights = attention + feedForward;
    costs[0] = weights * READING;
    costs[1] = attention * tokens;
    costs[2] = feedForward * tokens;
    costs[3] = weights * SCALING;
    costs[4] = weights * ROUNDING;
    if (recipe.compensation() == Compensation.GPTQ) {
      // The quantized stream, its moments (half of a square each) and the sweeps; where matrices
      // are fitted first the exact stream, whole squares of moments, a product and substitutions.
      long inner = config.intermediateSize();
      boolean fits = CompensatedBlock.fitsAny(config, tokens);
      long moments = tokens / 2 * (2 * hidden * hidden + query * query + inner * inner);
      long squares = (attention + 2 * hidden * inner) * hidden + hidden * inner * inner;
      costs[4] += (fits ? 2 : 1) * weights * tokens + (fits ? 3 : 1) * moments
          + squares * (fits ? 5 : 1) / 2 + inner * inner * inner / 3;
    }
  }

  /** The work of the whole run. */
  long total() {
    return Math.max(1, done(layers, ""));
  }

  /** The work behind, when a step of a layer begins. */
  long done(int layer, String step) {
    long sum = 0;
    long perLayer = 0;
    for (int i = 0; i < costs.length; i++) {
      perLayer += costs[i] / 1_000_000 + 1;
      if (i < STEPS.indexOf(step)) {
        sum += costs[i] / 1_000_000 + 1;
      }
    }
    return perLayer * layer + sum;
  }
}
