// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.io.DataType;
import dev.nibble.model.LlamaConfig;
import dev.nibble.tensor.CalibrationKernels;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.PackedMatrix;
import dev.nibble.tensor.QuantizedWeights;
import dev.nibble.tensor.Tensor;
import java.util.List;
import java.util.function.Consumer;

/**
 * Quantizes one transformer block after the other. Each is first run as it is, which gives the
 * statistics and the next block's input; then scaled; then rounded. With compensation a second
 * stream of states runs through the quantized blocks, and each projection is rounded for the inputs
 * that it will really get, in the order in which a block computes (GPTQ, arXiv 2210.17323).
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
  private final LayerPass pass;
  private final MatrixQuantizer quantizer;
  private final LayerScaling scaling;
  private final Tensor attended;
  private final Tensor inner;

  LayerQuantizer(Context context, LlamaConfig config, Recipe recipe, Calibration calibration) {
    this.context = context;
    this.config = config;
    this.recipe = recipe;
    quantizer = new MatrixQuantizer(context, recipe);
    scaling = new LayerScaling(context, config, recipe);
    pass = new LayerPass(context, config, calibration);
    attended = Tensor.allocate(DataType.F32, pass.tokens(), config.querySize());
    inner = Tensor.allocate(DataType.F32, pass.tokens(), config.intermediateSize());
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
      run(weights, states, statistics, step);
      step.accept("scaling");
      var inputs = scaling.apply(weights, statistics, pass.tokens());
      step.accept("rounding");
      if (quantizedStates == null) {
        round(weights, inputs, sink);
      } else {
        compensate(weights, quantizedStates, inputs.cache(), sink);
      }
      return inputs.cache();
    }
  }

  /** The unquantized block. */
  private void run(LayerWeights weights, Tensor states, LayerStatistics statistics,
      Consumer<String> step) {
    step.accept("attention");
    pass.normed(weights, LayerWeights.ATTENTION_NORM, states,
        rows -> statistics.add(rows, statistics.qkvInputs));
    withFloats(weights, List.of(LayerWeights.Q, LayerWeights.K, LayerWeights.V), linears ->
        pass.attention(weights, linears, ActivationType.F32, KvType.F32, null, states,
            statistics::add, attended));
    pass.chunks(attended, rows -> statistics.add(rows, statistics.outputInputs));
    withFloats(weights, List.of(LayerWeights.O), linears -> pass.addProjection(
        LayerWeights.O, linears[0], ActivationType.F32, attended, states));
    step.accept("feed-forward");
    pass.normed(weights, LayerWeights.FEED_FORWARD_NORM, states,
        rows -> statistics.add(rows, statistics.feedForwardInputs));
    withFloats(weights, List.of(LayerWeights.GATE, LayerWeights.UP), linears ->
        pass.gateUp(weights, linears[0], linears[1], ActivationType.F32, states, inner));
    pass.chunks(inner, rows -> statistics.add(rows, statistics.downInputs));
    withFloats(weights, List.of(LayerWeights.DOWN), linears -> pass.addProjection(
        LayerWeights.DOWN, linears[0], ActivationType.F32, inner, states));
  }

  private void withFloats(
      LayerWeights weights, List<String> names, Consumer<LayerPass.Linear[]> use) {
    var packed = LayerPass.packFloats(context, weights, names.toArray(String[]::new));
    try {
      var linears = new LayerPass.Linear[packed.size()];
      for (int i = 0; i < linears.length; i++) {
        linears[i] = new LayerPass.Linear(packed.get(i), weights.bias(names.get(i)));
      }
      use.accept(linears);
    } finally {
      packed.forEach(PackedMatrix::close);
    }
  }

  /** Every matrix by itself. */
  private void round(LayerWeights weights, LayerScaling.Inputs inputs, Sink sink) {
    for (var name : List.of(LayerWeights.Q, LayerWeights.K, LayerWeights.V)) {
      round(weights, name, inputs.qkv(), sink);
    }
    round(weights, LayerWeights.O, inputs.output(), sink);
    round(weights, LayerWeights.GATE, inputs.feedForward(), sink);
    round(weights, LayerWeights.UP, inputs.feedForward(), sink);
    round(weights, LayerWeights.DOWN, inputs.down(), sink);
  }

  private void round(LayerWeights weights, String name, float[] meanSquares, Sink sink) {
    var fileName = weights.fileName(name);
    try (var quantized = quantizer.quantize(
        weights.matrix(name), recipe.scheme().formatOf(fileName), meanSquares, null)) {
      sink.accept(fileName, quantized);
    }
  }

  /** Each projection for the inputs that the quantized ones before it produce. */
  private void compensate(LayerWeights weights, Tensor states, CacheScales cache, Sink sink) {
    var activations = recipe.scheme().activations();
    compensate(weights, List.of(LayerWeights.Q, LayerWeights.K, LayerWeights.V),
        add -> pass.normed(weights, LayerWeights.ATTENTION_NORM, states, add), sink,
        linears -> pass.attention(weights, linears, activations, recipe.scheme().cache(), cache,
            states, null, attended));
    compensate(weights, List.of(LayerWeights.O), add -> pass.chunks(attended, add), sink,
        linears ->
            pass.addProjection(LayerWeights.O, linears[0], activations, attended, states));
    compensate(weights, List.of(LayerWeights.GATE, LayerWeights.UP),
        add -> pass.normed(weights, LayerWeights.FEED_FORWARD_NORM, states, add), sink,
        linears -> pass.gateUp(weights, linears[0], linears[1], activations, states, inner));
    compensate(weights, List.of(LayerWeights.DOWN), add -> pass.chunks(inner, add), sink,
        linears -> pass.addProjection(LayerWeights.DOWN, linears[0], activations, inner, states));
  }

  /**
   * Rounds projections of one input, and goes on with them.
   *
   * @param inputs hands the input to its argument, chunk by chunk
   * @param use runs the quantized projections
   */
  private void compensate(LayerWeights weights, List<String> names,
      Consumer<Consumer<Tensor>> inputs, Sink sink, Consumer<LayerPass.Linear[]> use) {
    var linears = new LayerPass.Linear[names.size()];
    try {
      long cols = weights.matrix(names.getFirst()).dim(1);
      try (var moments = Tensor.allocate(DataType.F32, cols, cols)) {
        inputs.accept(rows -> CalibrationKernels.secondMoments(context, rows, moments));
        for (int i = 0; i < linears.length; i++) {
          var fileName = weights.fileName(names.get(i));
          try (var quantized = quantizer.quantize(weights.matrix(names.get(i)),
              recipe.scheme().formatOf(fileName), null, moments)) {
            sink.accept(fileName, quantized);
            linears[i] = new LayerPass.Linear(
                context.pack(quantized), weights.bias(names.get(i)));
          }
        }
      }
      use.accept(linears);
    } finally {
      for (var linear : linears) {
        if (linear != null) {
          linear.matrix().close();
        }
      }
    }
  }

  @Override
  public void close() {
    attended.close();
    inner.close();
    pass.close();
  }
}
