// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.io.DataType;
import dev.nibble.model.LlamaConfig;
import dev.nibble.tensor.CalibrationKernels;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.QuantizedWeights;
import dev.nibble.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.function.BiConsumer;
import java.util.function.Consumer;

/**
 * Quantizes a block with compensation. Two streams run through it in step: one through the blocks
 * as they will be, quantized, and the exact one. Each projection is first fitted, so that what it
 * makes of the quantized stream's input is what it made of the exact one's (the target of GPTAQ,
 * arXiv 2504.02692), then rounded for the inputs that it will really get (GPTQ, arXiv 2210.17323),
 * in the order in which a block computes. Where the calibration has too few tokens for a fit, that
 * is left out, and the exact stream with it if no projection needs it.
 *
 * <p>Owns its scratch. For one thread.
 */
final class CompensatedBlock implements AutoCloseable {
  /**
   * Tokens for each input of a projection that a fit needs. With fewer it learns what is peculiar
   * to the calibration text: with 16 (5 for the down projection) it cost more than it gave.
   */
  private static final int TOKENS_PER_INPUT = 20;

  private final Context context;
  private final Recipe recipe;
  private final MatrixQuantizer quantizer;
  private final BlockForward block;
  private final LayerPass pass;
  private final boolean fitsAny; // else there is no exact stream
  private final Tensor exact;
  private final Tensor exactAttended;
  private final Tensor exactInner;

  CompensatedBlock(Context context, LlamaConfig config, Recipe recipe, BlockForward block) {
    this.context = context;
    this.recipe = recipe;
    this.block = block;
    pass = block.pass;
    quantizer = new MatrixQuantizer(context, recipe);
    fitsAny = fitsAny(config, pass.tokens());
    exact = fitsAny
        ? Tensor.allocate(DataType.F32, pass.tokens(), config.hiddenSize()) : null;
    exactAttended = fitsAny ? Tensor.allocate(DataType.F32, block.attended.shape()) : null;
    exactInner = fitsAny ? Tensor.allocate(DataType.F32, block.inner.shape()) : null;
  }

  /** Whether so many tokens are enough to fit any projection of a model. */
  static boolean fitsAny(LlamaConfig config, long tokens) {
    return fits(Math.min(config.hiddenSize(),
        Math.min(config.querySize(), config.intermediateSize())), tokens);
  }

  private static boolean fits(long inputs, long tokens) {
    return tokens >= TOKENS_PER_INPUT * inputs;
  }

  /** Keeps what goes into the block, F32 [tokens, hidden], of the exact stream. */
  void begin(Tensor states) {
    if (fitsAny) {
      MemorySegment.copy(states.segment(), 0, exact.segment(), 0, states.byteSize());
    }
  }

  /**
   * Quantizes the block.
   *
   * @param weights scaled; changed by the fit
   * @param states what goes into the block, and then comes out, of the quantized stream
   */
  void quantize(
      LayerWeights weights, Tensor states, CacheScales cache, LayerQuantizer.Sink sink) {
    var activations = recipe.scheme().activations();
    var attended = block.attended;
    var inner = block.inner;
    step(weights, List.of(LayerWeights.Q, LayerWeights.K, LayerWeights.V), sink,
        inputs -> pass.normed(weights, LayerWeights.ATTENTION_NORM, states, inputs),
        inputs -> pass.normed(weights, LayerWeights.ATTENTION_NORM, states, exact, inputs),
        linears -> pass.attention(weights, linears, ActivationType.F32, KvType.F32, null, exact,
            null, exactAttended),
        linears -> pass.attention(weights, linears, activations, recipe.scheme().cache(), cache,
            states, null, attended));
    step(weights, List.of(LayerWeights.O), sink,
        inputs -> pass.chunks(attended, inputs),
        inputs -> pass.chunks(attended, exactAttended, inputs),
        linears -> pass.addProjection(
            LayerWeights.O, linears[0], ActivationType.F32, exactAttended, exact),
        linears -> pass.addProjection(LayerWeights.O, linears[0], activations, attended, states));
    step(weights, List.of(LayerWeights.GATE, LayerWeights.UP), sink,
        inputs -> pass.normed(weights, LayerWeights.FEED_FORWARD_NORM, states, inputs),
        inputs -> pass.normed(weights, LayerWeights.FEED_FORWARD_NORM, states, exact, inputs),
        linears -> pass.gateUp(
            weights, linears[0], linears[1], ActivationType.F32, exact, exactInner),
        linears -> pass.gateUp(weights, linears[0], linears[1], activations, states, inner));
    // What the exact stream makes of the last projection comes out of the block as it was.
    step(weights, List.of(LayerWeights.DOWN), sink,
        inputs -> pass.chunks(inner, inputs),
        inputs -> pass.chunks(inner, exactInner, inputs), null,
        linears -> pass.addProjection(LayerWeights.DOWN, linears[0], activations, inner, states));
  }

  /**
   * Fits and rounds projections of one input, and goes on with them.
   *
   * @param inputs hands the quantized stream's inputs to its argument, chunk by chunk
   * @param bothInputs the same of both streams, the exact one second
   * @param goOnExact runs the projections as they are, or null
   * @param goOn runs the quantized projections
   */
  private void step(LayerWeights weights, List<String> names, LayerQuantizer.Sink sink,
      Consumer<Consumer<Tensor>> inputs, Consumer<BiConsumer<Tensor, Tensor>> bothInputs,
      Consumer<LayerPass.Linear[]> goOnExact, Consumer<LayerPass.Linear[]> goOn) {
    var linears = new LayerPass.Linear[names.size()];
    try {
      long cols = weights.matrix(names.getFirst()).dim(1);
      try (var moments = Tensor.allocate(DataType.F32, cols, cols)) {
        if (fits(cols, pass.tokens())) {
          fit(weights, names, moments, bothInputs, goOnExact);
        } else {
          inputs.accept(rows -> CalibrationKernels.secondMoments(context, rows, moments));
          goOnExact(weights, names, goOnExact);
        }
        for (int i = 0; i < linears.length; i++) {
          linears[i] = round(weights, names.get(i), moments, sink);
        }
      }
      goOn.accept(linears);
    } finally {
      for (var linear : linears) {
        if (linear != null) {
          linear.matrix().close();
        }
      }
    }
  }

  /** Fits projections, and leaves their inputs' moments. */
  private void fit(LayerWeights weights, List<String> names, Tensor moments,
      Consumer<BiConsumer<Tensor, Tensor>> bothInputs, Consumer<LayerPass.Linear[]> goOnExact) {
    try (var cross = Tensor.allocate(DataType.F32, moments.shape())) {
      bothInputs.accept((quantized, original) -> {
        CalibrationKernels.secondMoments(context, quantized, moments);
        CalibrationKernels.crossMoments(context, quantized, original, cross);
      });
      goOnExact(weights, names, goOnExact);
      for (var name : names) {
        CalibrationKernels.correctDrift(
            context, weights.matrix(name), moments, cross, MatrixQuantizer.DAMPING);
      }
    }
  }

  /** Before any of the projections is changed. */
  private void goOnExact(LayerWeights weights, List<String> names,
      Consumer<LayerPass.Linear[]> goOnExact) {
    if (fitsAny && goOnExact != null) {
      block.withFloats(weights, names, goOnExact);
    }
  }

  private LayerPass.Linear round(
      LayerWeights weights, String name, Tensor moments, LayerQuantizer.Sink sink) {
    var fileName = weights.fileName(name);
    try (QuantizedWeights quantized = quantizer.quantize(
        weights.matrix(name), recipe.scheme().formatOf(fileName), null, moments)) {
      sink.accept(fileName, quantized);
      return new LayerPass.Linear(context.pack(quantized), weights.bias(name));
    }
  }

  @Override
  public void close() {
    if (fitsAny) {
      exact.close();
      exactAttended.close();
      exactInner.close();
    }
  }
}
