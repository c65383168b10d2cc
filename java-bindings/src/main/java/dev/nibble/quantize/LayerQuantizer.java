// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.model.LlamaConfig;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.QuantizedWeights;
import dev.nibble.tensor.Tensor;
import java.util.List;
import java.util.function.Consumer;

/**
 * Quantizes one transformer block after the other. Each is first run as it is, which gives the
 * statistics and the next block's input; then scaled; then rounded: each matrix by itself, or with
 * compensation ({@link CompensatedBlock}) for the inputs that it will get from a second stream of
 * states, which runs through the quantized blocks.
 *
 * <p>Owns its scratch. For one thread.
 */
final class LayerQuantizer implements AutoCloseable {
  /** Hears of each matrix as soon as it is quantized. */
  @FunctionalInterface
  interface Sink {
    void accept(String name, QuantizedWeights weights);
  }

  private final Context context;
  private final LlamaConfig config;
  private final Recipe recipe;
  private final BlockForward block;
  private final CompensatedBlock compensated; // or null
  private final MatrixQuantizer quantizer;
  private final LayerScaling scaling;

  LayerQuantizer(Context context, LlamaConfig config, Recipe recipe, Calibration calibration) {
    this.context = context;
    this.config = config;
    this.recipe = recipe;
    quantizer = new MatrixQuantizer(context, recipe);
    scaling = new LayerScaling(context, config, recipe);
    block = new BlockForward(context, config, calibration);
    compensated = recipe.compensation() == Compensation.GPTQ
        ? new CompensatedBlock(context, config, recipe, block) : null;
  }

  /**
   * Quantizes a block.
   *
   * @param weights the block's; scaled in place
   * @param states what goes into the block, F32 [tokens, hidden]; afterwards what comes out
   * @param quantizedStates the same behind quantized blocks, or null without compensation by GPTQ
   * @param step hears before each step what it is
   * @return what the block's cache needs
   */
  CacheScales quantize(LayerWeights weights, Tensor states, Tensor quantizedStates,
      Consumer<String> step, Sink sink) {
    try (var statistics = new LayerStatistics(context, config)) {
      if (compensated != null) {
        compensated.begin(states);
      }
      block.run(weights, states, statistics, step);
      step.accept("scaling");
      var inputs = scaling.apply(weights, statistics, block.pass.tokens());
      step.accept("rounding");
      if (compensated == null) {
        round(weights, inputs, sink);
      } else {
        compensated.quantize(weights, quantizedStates, inputs.cache(), sink);
      }
      return inputs.cache();
    }
  }

  /** Every matrix by itself. */
  private void round(LayerWeights weights, LayerScaling.Inputs inputs, Sink sink) {
    for (var name : LayerWeights.PROJECTIONS) {
      round(weights, name, inputs.of(name), sink);
    }
  }

  private void round(LayerWeights weights, String name, float[] meanSquares, Sink sink) {
    var fileName = weights.fileName(name);
    try (var quantized = quantizer.quantize(
        weights.matrix(name), recipe.scheme().formatOf(fileName), meanSquares, null)) {
      sink.accept(fileName, quantized);
    }
  }

  @Override
  public void close() {
    if (compensated != null) {
      compensated.close();
    }
    block.close();
  }
}
