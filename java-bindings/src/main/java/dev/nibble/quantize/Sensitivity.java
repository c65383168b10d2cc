// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.generate.Comparison;
import dev.nibble.io.CheckpointNames;
import dev.nibble.io.DataType;
import dev.nibble.io.TensorStore;
import dev.nibble.model.LlamaConfig;
import dev.nibble.model.ProgressListener;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.Norm;
import dev.nibble.tensor.PackedMatrix;
import dev.nibble.tensor.Projection;
import dev.nibble.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.function.IntToDoubleFunction;
import java.util.stream.IntStream;

/**
 * Measures what each format costs each projection of a model, with one block in memory at a time:
 *
 * <pre>
 *   KL of a projection in a format  =  L  *  E / sum of E  *  e / e4
 *
 *   L    KL divergence from the model in F32 if all projections of the block, and no other, are W4:
 *        states that differ from that block on run through all that follow, and the head
 *   E    squared error of the block's output if this projection alone is W4
 *   e    squared error of the projection's own output in the format; e4 in W4
 * </pre>
 *
 * <p>All weights are first scaled as the recipe says, and rounded as it does but for compensation.
 * For B blocks this takes B^2 / 2 passes over a block for L and 8 B for the rest; states of B + 2
 * kinds are in memory. With 1,024 tokens Llama-2-7B would take 22 minutes on two cores and 3 GB:
 * 39 seconds of one core a block and 2.6 for each block before it, measured on two blocks of its
 * shape, times 32 and 496. For one thread.
 */
final class Sensitivity {
  /** Projections that have a format together, as {@link MixedPrecision.Item} has them. */
  static final List<List<String>> ITEMS = List.of(
      List.of(LayerWeights.Q), List.of(LayerWeights.K), List.of(LayerWeights.V),
      List.of(LayerWeights.O), List.of(LayerWeights.GATE, LayerWeights.UP),
      List.of(LayerWeights.DOWN));

  /** Rows of logits at a time. */
  private static final int LOGIT_ROWS = 64;
  private static final int PASSES = ITEMS.size() + 1; // over a block, beside those of L

  private final TensorStore store;
  private final LlamaConfig config;
  private final Context context;
  private final Calibration calibration;
  private final ProgressListener progress;
  private final LayerScaling scaling;
  private final MatrixQuantizer quantizer;
  private final InputScaling rounding;
  private final long total;
  private long done;

  /** recipe: for weights of which most are W4; the rest stays the caller's. */
  Sensitivity(TensorStore store, LlamaConfig config, Recipe recipe, Calibration calibration,
      Context context, ProgressListener progress) {
    this.store = store;
    this.config = config;
    this.context = context;
    this.calibration = calibration;
    this.progress = progress;
    scaling = new LayerScaling(context, config, recipe);
    quantizer = new MatrixQuantizer(context, recipe);
    rounding = new InputScaling(context, recipe);
    long layers = config.layers();
    total = layers * (layers - 1) / 2 + layers * PASSES + layers; // and the head
  }

  /**
   * Measures.
   *
   * @param formats to be measured, W4 among them
   * @return for each block, item and format the KL divergence in nats a token
   */
  double[][][] measure(List<WeightFormat> formats) {
    var losses = new double[config.layers()][][];
    var streams = new ArrayList<Tensor>(); // stream i: block i in W4; behind them the exact one
    try (var block = new BlockForward(context, config, calibration)) {
      streams.add(LayerWeights.embed(store, context, config, calibration));
      for (int layer = 0; layer < config.layers(); layer++) {
        losses[layer] = block(layer, block, streams, formats);
      }
      var divergences = divergences(streams);
      for (int layer = 0; layer < config.layers(); layer++) {
        for (var item : losses[layer]) {
          for (int f = 0; f < item.length; f++) {
            item[f] *= divergences[layer];
          }
        }
      }
    } finally {
      streams.forEach(Tensor::close);
    }
    progress.progress("", total, total);
    return losses;
  }

  private void step(int layer, int passes) {
    progress.progress("layers." + layer, done, total);
    done += passes;
  }

  /** Runs a block on all streams, adds its own, and returns its items' shares of its cost. */
  private double[][] block(
      int layer, BlockForward block, List<Tensor> streams, List<WeightFormat> formats) {
    step(layer, layer);
    var exact = streams.getLast();
    var before = copy(exact); // becomes the block's own
    streams.add(layer, before);
    try (var weights = LayerWeights.read(store, config, layer, context);
        var statistics = new LayerStatistics(context, config)) {
      block.run(weights, exact, statistics, what -> { });
      var inputs = scaling.apply(weights, statistics, block.pass.tokens());
      var shares = new double[ITEMS.size()][formats.size()];
      var floats = new HashMap<String, PackedMatrix>();
      var four = new HashMap<String, PackedMatrix>();
      try (var scratch = copy(before)) {
        for (var name : LayerWeights.PROJECTIONS) {
          floats.put(name, context.pack(weights.matrix(name), WeightFormat.F32));
          try (var quantized = quantizer.quantize(
              weights.matrix(name), WeightFormat.W4, inputs.of(name), null)) {
            four.put(name, context.pack(quantized));
          }
        }
        for (int i = 0; i < layer; i++) {
          block.run(weights, floats, streams.get(i));
        }
        step(layer, PASSES);
        double sum = 0;
        for (int i = 0; i < shares.length; i++) {
          var mixed = new HashMap<>(floats);
          ITEMS.get(i).forEach(name -> mixed.put(name, four.get(name)));
          MemorySegment.copy(before.segment(), 0, scratch.segment(), 0, before.byteSize());
          block.run(weights, mixed, scratch);
          double error = squaredDistance(scratch, exact);
          sum += error;
          shares[i] = roundingErrors(weights, ITEMS.get(i), inputs, formats);
          double own = shares[i][formats.indexOf(WeightFormat.W4)];
          for (int f = 0; f < formats.size(); f++) {
            shares[i][f] = own > 0 ? error * shares[i][f] / own : 0;
          }
        }
        for (var share : shares) {
          for (int f = 0; f < share.length; f++) {
            share[f] = sum > 0 ? share[f] / sum : 0;
          }
        }
        block.run(weights, four, before);
        return shares;
      } finally {
        floats.values().forEach(PackedMatrix::close);
        four.values().forEach(PackedMatrix::close);
      }
    }
  }

  private double[] roundingErrors(LayerWeights weights, List<String> item,
      LayerScaling.Inputs inputs, List<WeightFormat> formats) {
    var errors = new double[formats.size()];
    for (int f = 0; f < errors.length; f++) {
      for (var name : item) {
        errors[f] += rounding.error(
            new InputScaling.Target(weights.matrix(name), formats.get(f)), inputs.of(name));
      }
    }
    return errors;
  }

  private static double squaredDistance(Tensor a, Tensor b) {
    long cols = a.dim(1);
    return sum((int) a.dim(0), row -> {
      double sum = 0;
      for (long i = row * cols; i < (row + 1) * cols; i++) {
        double difference = a.segment().getAtIndex(ValueLayout.JAVA_FLOAT, i)
            - b.segment().getAtIndex(ValueLayout.JAVA_FLOAT, i);
        sum += difference * difference;
      }
      return sum;
    });
  }

  /** In parallel, added up in their order: the same bits for any number of threads. */
  private static double sum(int count, IntToDoubleFunction term) {
    double sum = 0;
    for (double value : IntStream.range(0, count).parallel().mapToDouble(term).toArray()) {
      sum += value;
    }
    return sum;
  }

  private static Tensor copy(Tensor states) {
    var copy = Tensor.allocate(DataType.F32, states.shape());
    MemorySegment.copy(states.segment(), 0, copy.segment(), 0, states.byteSize());
    return copy;
  }

  /** The KL divergence of what each stream but the last predicts from what the last one does. */
  private double[] divergences(List<Tensor> streams) {
    progress.progress("head", done, total);
    int vocabulary = config.vocabSize();
    int hidden = config.hiddenSize();
    var name = config.tiedEmbedding() ? CheckpointNames.EMBEDDING : CheckpointNames.HEAD;
    try (var weights = LayerWeights.readFloats(store, context, name, vocabulary, hidden);
        var head = context.pack(weights, WeightFormat.F32);
        var norm = LayerWeights.readFloats(store, context, CheckpointNames.NORM, hidden);
        var x = Tensor.allocate(DataType.F32, LOGIT_ROWS, hidden);
        var logits = Tensor.allocate(DataType.F32, LOGIT_ROWS, vocabulary)) {
      var product = context.bindMatMul(ActivationType.F32, x,
          new Norm(norm, config.rmsNormEps()), new Projection(head, null, null, logits));
      var sums = new double[streams.size() - 1];
      long tokens = streams.getLast().dim(0);
      float[][] exact = null;
      for (long first = 0; first < tokens; first += LOGIT_ROWS) {
        int rows = (int) Math.min(LOGIT_ROWS, tokens - first);
        for (int i = streams.size() - 1; i >= 0; i--) {
          MemorySegment.copy(streams.get(i).segment(), 4 * first * hidden, x.segment(), 0,
              4L * rows * hidden);
          product.run(rows);
          var values = rows(logits, rows);
          if (i == streams.size() - 1) {
            exact = values;
            continue;
          }
          var expected = exact;
          sums[i] += sum(rows, row -> Comparison.klDivergence(expected[row], values[row]));
        }
      }
      for (int i = 0; i < sums.length; i++) {
        sums[i] = Math.max(0, sums[i] / tokens);
      }
      return sums;
    }
  }

  private static float[][] rows(Tensor tensor, int count) {
    int cols = (int) tensor.dim(1);
    var rows = new float[count][cols];
    for (int i = 0; i < count; i++) {
      MemorySegment.copy(
          tensor.segment(), ValueLayout.JAVA_FLOAT, 4L * i * cols, rows[i], 0, cols);
    }
    return rows;
  }
}
