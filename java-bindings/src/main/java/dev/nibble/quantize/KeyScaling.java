// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.model.LlamaConfig;
import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;

/**
 * Scales of keys and queries that leave their products as they are and make keys easier to round
 * (FireQ, arXiv 2505.20839).
 *
 * <p>Before the rotation: one factor a pair (i, i + headDim / 2), which the rotation keeps. FireQ
 * takes the pair's largest norm over the calibration tokens. A step of the 4-bit grid is common to
 * a head, so that the error of a score is the sum of step^2 * factor^2 * query^2: where queries are
 * large, keys should be stored large. The factor here is norm^b / query^(1 - b), b between 1/2 and
 * 1 (FireQ) by the error on sampled tokens. It does not change when a pair of keys is multiplied by
 * anything and that of queries divided by it.
 *
 * <p>Behind the rotation: the pairs with the largest elements get one factor an element, online.
 */
final class KeyScaling {
  private static final double[] EXPONENTS = {1, 0.9, 0.8, 0.7, 0.6, 0.5};
  /** Online scaling costs time: it must lower the error by this share to be kept. */
  private static final double WORTHWHILE = 0.02;

  private final LlamaConfig config;
  private final LayerStatistics statistics;

  KeyScaling(LlamaConfig config, LayerStatistics statistics) {
    this.config = config;
    this.statistics = statistics;
  }

  /** The factor of each key element by which keys are divided and queries multiplied, [kvSize]. */
  float[] preRope() {
    int dim = config.headDim();
    int half = dim / 2;
    var norms = statistics.pairNorms();
    var factors = new float[config.kvSize()];
    for (int head = 0; head < config.kvHeads(); head++) {
      var weights = queryWeights(head);
      double[] best = null;
      double bestError = Double.POSITIVE_INFINITY;
      for (double exponent : EXPONENTS) {
        var candidate = new double[dim];
        for (int i = 0; i < half; i++) {
          double query = Math.sqrt(weights[i] + weights[half + i]);
          double norm = norms[head * half + i];
          candidate[i] = norm > 0 && query > 0
              ? Math.pow(norm, exponent) * Math.pow(query, exponent - 1)
              : 1;
          candidate[half + i] = candidate[i];
        }
        Ratios.normalize(candidate);
        double error = error(head, candidate, weights);
        if (error < bestError) {
          bestError = error;
          best = candidate;
        }
      }
      for (int i = 0; i < dim; i++) {
        factors[head * dim + i] = (float) best[i];
      }
    }
    return factors;
  }

  /**
   * The scale of each key element behind the rotation, [kvSize], or null where none is worth it.
   *
   * @param preRope what keys are divided by before it
   * @param pairs of a head to be scaled
   */
  float[] postRope(float[] preRope, int pairs) {
    int dim = config.headDim();
    int half = dim / 2;
    var maxima = statistics.keyMaxima.toFloats();
    var scales = new float[config.kvSize()];
    Arrays.fill(scales, 1);
    boolean any = false;
    for (int head = 0; head < config.kvHeads(); head++) {
      int first = head * dim;
      var largest = new double[dim];
      var pre = new double[dim];
      for (int i = 0; i < dim; i++) {
        pre[i] = preRope[first + i];
        largest[i] = maxima[first + i] / pre[i];
      }
      var order = IntStream.range(0, half).boxed()
          .sorted(Comparator.comparingDouble(
              (Integer i) -> -Math.max(largest[i], largest[half + i])))
          .mapToInt(Integer::intValue).toArray();
      int count = Math.min(pairs, half - 1);
      double reference = Math.max(largest[order[count]], largest[half + order[count]]);
      if (!(reference > 0)) {
        continue;
      }
      var weights = queryWeights(head);
      double bestError = error(head, pre, weights) * (1 - WORTHWHILE);
      for (double exponent : new double[] {1, 0.75, 0.5}) {
        var candidate = pre.clone();
        var online = new double[dim];
        Arrays.fill(online, 1);
        for (int j = 0; j < count; j++) {
          for (int i : new int[] {order[j], half + order[j]}) {
            online[i] = Math.max(1, Math.pow(largest[i] / reference, exponent));
            candidate[i] *= online[i];
          }
        }
        double error = error(head, candidate, weights);
        if (error < bestError) {
          bestError = error;
          any = true;
          for (int i = 0; i < dim; i++) {
            scales[first + i] = (float) online[i];
          }
        }
      }
    }
    return any ? scales : null;
  }

  /** The mean square of the queries that meet each key element of a head, [headDim]. */
  private double[] queryWeights(int head) {
    int dim = config.headDim();
    int group = config.heads() / config.kvHeads();
    var weights = new double[dim];
    for (var token : statistics.queries) {
      for (int g = 0; g < group; g++) {
        int first = (head * group + g) * dim;
        for (int i = 0; i < dim; i++) {
          weights[i] += (double) token[first + i] * token[first + i];
        }
      }
    }
    return weights;
  }

  private double error(int head, double[] scales, double[] weights) {
    double sum = 0;
    for (var token : statistics.keys) {
      sum += CacheRounding.error(
          token, head * config.headDim(), config.headDim(), scales, weights);
    }
    return sum;
  }
}
