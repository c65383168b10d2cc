// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.model.LlamaConfig;
import dev.nibble.tensor.Context;
import java.util.Arrays;
import java.util.List;

/**
 * Scales a block's weights without changing what it computes, so that rounding them, and its keys
 * and values, costs less: FireQ's channel-wise and pre-RoPE scaling (arXiv 2505.20839), folded
 * into the weights, and the scales for its cache.
 *
 * <pre>
 *   inputs of          are divided in
 *   q, k, v            the attention norm
 *   o                  the rows of v; query heads share those of their value head
 *   gate, up           the feed-forward norm
 *   down               the rows of up
 *   keys               the rows of k, and multiplied in the rows of q
 * </pre>
 */
final class LayerScaling {
  /**
   * How much of the error of a value survives attention, in squares: it averages values with
   * weights p, and sum p^2 is what a few effective tokens leave.
   */
  private static final double AVERAGING = 0.25;

  /**
   * The scaled block's inputs: mean squares, by which errors are weighted.
   *
   * @param cache what the scaled keys and values need
   */
  record Inputs(
      float[] qkv, float[] output, float[] feedForward, float[] down, CacheScales cache) {
    /** The mean squares of a projection's inputs. */
    float[] of(String projection) {
      return switch (projection) {
        case LayerWeights.Q, LayerWeights.K, LayerWeights.V -> qkv;
        case LayerWeights.O -> output;
        case LayerWeights.GATE, LayerWeights.UP -> feedForward;
        case LayerWeights.DOWN -> down;
        default -> throw new IllegalArgumentException(projection);
      };
    }
  }

  private final Context context;
  private final LlamaConfig config;
  private final Recipe recipe;
  private final InputScaling inputScaling;

  LayerScaling(Context context, LlamaConfig config, Recipe recipe) {
    this.context = context;
    this.config = config;
    this.recipe = recipe;
    inputScaling = new InputScaling(context, recipe);
  }

  private boolean scalesInputs() {
    return recipe.channelScaling() || recipe.compensation() == Compensation.AWQ;
  }

  /** Scales weights in place by what statistics of so many tokens tell. */
  Inputs apply(LayerWeights weights, LayerStatistics statistics, long tokens) {
    var qkv = LayerStatistics.meanSquares(statistics.qkvInputs, tokens);
    var output = LayerStatistics.meanSquares(statistics.outputInputs, tokens);
    var feedForward = LayerStatistics.meanSquares(statistics.feedForwardInputs, tokens);
    var down = LayerStatistics.meanSquares(statistics.downInputs, tokens);
    var values = ones(config.kvSize());
    if (scalesInputs()) {
      values = scaleValues(weights, statistics, output);
      var inner = scaleInputs(weights, down, LayerWeights.DOWN);
      weights.scaleRows(context, Ratios.inverse(inner), LayerWeights.UP);
      var query = scaleInputs(weights, qkv, LayerWeights.Q, LayerWeights.K, LayerWeights.V);
      weights.scaleNorm(Ratios.inverse(query), LayerWeights.ATTENTION_NORM);
      var gate = scaleInputs(weights, feedForward, LayerWeights.GATE, LayerWeights.UP);
      weights.scaleNorm(Ratios.inverse(gate), LayerWeights.FEED_FORWARD_NORM);
    }
    return new Inputs(qkv, output, feedForward, down, scaleKeys(weights, statistics, values));
  }

  /** Scales the columns of projections, and meanSquares with them; returns the factors. */
  private float[] scaleInputs(LayerWeights weights, float[] meanSquares, String... projections) {
    var factors = inputScaling.choose(meanSquares, targets(weights, projections));
    weights.scaleColumns(context, factors, projections);
    divideSquares(meanSquares, factors);
    return factors;
  }

  private List<InputScaling.Target> targets(LayerWeights weights, String... projections) {
    return Arrays.stream(projections)
        .map(name -> new InputScaling.Target(
            weights.matrix(name), recipe.scheme().formatOf(weights.fileName(name))))
        .toList();
  }

  private static void divideSquares(float[] meanSquares, float[] factors) {
    for (int i = 0; i < factors.length; i++) {
      meanSquares[i] /= factors[i] * factors[i];
    }
  }

  /** Scales values and the output projection's columns; returns what values are divided by. */
  private float[] scaleValues(
      LayerWeights weights, LayerStatistics statistics, float[] meanSquares) {
    int dim = config.headDim();
    int group = config.heads() / config.kvHeads();
    var sharing = new InputScaling.Sharing() {
      @Override
      public int count(int inputs) {
        return config.kvSize();
      }

      @Override
      public int of(int input) {
        return input / dim / group * dim + input % dim;
      }
    };
    var targets = targets(weights, LayerWeights.O);
    var columns = inputScaling.columnSquares(targets, config.querySize());
    var outputWeights = new double[config.kvSize()];
    for (int i = 0; i < columns.length; i++) {
      outputWeights[sharing.of(i)] += columns[i] * AVERAGING;
    }
    boolean kv4 = recipe.scheme().cache() == KvType.KV4;
    var factors = inputScaling.choose(meanSquares, targets, sharing,
        scales -> kv4 ? valueError(statistics, scales, outputWeights) : 0);
    weights.scaleRows(context, Ratios.inverse(factors), LayerWeights.V);
    var byInput = new float[config.querySize()];
    for (int i = 0; i < byInput.length; i++) {
      byInput[i] = factors[sharing.of(i)];
    }
    weights.scaleColumns(context, byInput, LayerWeights.O);
    divideSquares(meanSquares, byInput);
    return factors;
  }

  /** The error of the output that rounding sampled values makes, a token. */
  private double valueError(
      LayerStatistics statistics, double[] scales, double[] outputWeights) {
    int dim = config.headDim();
    double error = 0;
    for (int head = 0; head < config.kvHeads(); head++) {
      int first = head * dim;
      var headScales = Arrays.copyOfRange(scales, first, first + dim);
      var headWeights = Arrays.copyOfRange(outputWeights, first, first + dim);
      for (var token : statistics.values) {
        error += CacheRounding.error(token, first, dim, headScales, headWeights);
      }
    }
    return error / statistics.values.length;
  }

  /** Pre-RoPE scaling of keys and queries, and what is left to the cache. */
  private CacheScales scaleKeys(
      LayerWeights weights, LayerStatistics statistics, float[] valueScales) {
    if (recipe.scheme().cache() != KvType.KV4) {
      return CacheScales.NONE;
    }
    var scaling = new KeyScaling(config, statistics);
    var keyScales = ones(config.kvSize());
    if (recipe.preRopeScaling()) {
      keyScales = scaling.preRope();
      weights.scaleRows(context, Ratios.inverse(keyScales), LayerWeights.K);
      int dim = config.headDim();
      int group = config.heads() / config.kvHeads();
      var queryScales = new float[config.querySize()];
      for (int i = 0; i < queryScales.length; i++) {
        queryScales[i] = keyScales[i / dim / group * dim + i % dim];
      }
      weights.scaleRows(context, queryScales, LayerWeights.Q);
    }
    var online = recipe.postRopeChannels() > 0
        ? scaling.postRope(keyScales, recipe.postRopeChannels())
        : null;
    if (!recipe.cacheFactors()) {
      return new CacheScales(0, 0, online);
    }
    return new CacheScales(
        factor(statistics.keyMaxima.toFloats(), keyScales, online),
        factor(statistics.valueMaxima.toFloats(), valueScales, null), online);
  }

  /** Puts the largest scale of the calibration tokens at 56, an eighth of the largest E4M3. */
  private static float factor(float[] maxima, float[] scales, float[] online) {
    float largest = 0;
    for (int i = 0; i < maxima.length; i++) {
      float scale = online == null ? scales[i] : scales[i] * online[i];
      largest = Math.max(largest, maxima[i] / scale);
    }
    float factor = largest / 7 / 56;
    return factor >= Float.MIN_NORMAL ? factor : 1;
  }

  private static float[] ones(int count) {
    var ones = new float[count];
    Arrays.fill(ones, 1);
    return ones;
  }
}
