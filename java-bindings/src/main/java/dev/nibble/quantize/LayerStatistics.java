// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.io.DataType;
import dev.nibble.model.LlamaConfig;
import dev.nibble.tensor.CalibrationKernels;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * What the unquantized block does on the calibration tokens: the second moments of what goes into
 * its projections, and its queries, keys and values. Owns its tensors. For one thread.
 */
final class LayerStatistics implements AutoCloseable {
  /** Tokens whose queries, keys and values are kept, for trying cache scales on. */
  static final int SAMPLE_TOKENS = 512;

  /** Sums of squares of the inputs of q, k and v; of o; of gate and up; of down. */
  final Tensor qkvInputs;
  final Tensor outputInputs;
  final Tensor feedForwardInputs;
  final Tensor downInputs;

  /** Rotated queries of sampled tokens, [SAMPLE_TOKENS][querySize], and keys; and values. */
  float[][] queries = {};
  float[][] keys = {};
  float[][] values = {};

  /** The largest magnitude of each rotated key's element, and of each value's. */
  final Tensor keyMaxima;
  final Tensor valueMaxima;

  /** The largest norm of each pair (i, i + headDim / 2) of keys, [kvHeads * headDim / 2]. */
  final float[] pairMaxima;

  private final Context context;
  private final LlamaConfig config;
  private long tokens;

  LayerStatistics(Context context, LlamaConfig config) {
    this.context = context;
    this.config = config;
    qkvInputs = Tensor.allocate(DataType.F32, config.hiddenSize());
    outputInputs = Tensor.allocate(DataType.F32, config.querySize());
    feedForwardInputs = Tensor.allocate(DataType.F32, config.hiddenSize());
    downInputs = Tensor.allocate(DataType.F32, config.intermediateSize());
    keyMaxima = Tensor.allocate(DataType.F32, config.kvSize());
    valueMaxima = Tensor.allocate(DataType.F32, config.kvSize());
    pairMaxima = new float[config.kvSize() / 2];
  }

  /** Adds the squares of inputs to sums. */
  void add(Tensor inputs, Tensor sums) {
    CalibrationKernels.channelStatistics(context, inputs, sums, null);
  }

  /** Adds rotated queries and keys, and values. */
  void add(LayerPass.Heads heads) {
    CalibrationKernels.channelStatistics(context, heads.k(), null, keyMaxima);
    CalibrationKernels.channelStatistics(context, heads.v(), null, valueMaxima);
    addPairs(heads.k());
    if (tokens == 0) {
      queries = sample(heads.q());
      keys = sample(heads.k());
      values = sample(heads.v());
    }
    tokens += heads.k().dim(0);
  }

  /** A rotation keeps the norm of a pair. */
  private void addPairs(Tensor keys) {
    int half = config.headDim() / 2;
    for (long row = 0; row < keys.dim(0); row++) {
      var values = row(keys, row);
      for (int head = 0; head < config.kvHeads(); head++) {
        int first = head * config.headDim();
        for (int i = 0; i < half; i++) {
          float a = values[first + i];
          float b = values[first + half + i];
          int pair = head * half + i;
          pairMaxima[pair] = Math.max(pairMaxima[pair], a * a + b * b);
        }
      }
    }
  }

  private static float[] row(Tensor tensor, long row) {
    int cols = (int) tensor.dim(1);
    var values = new float[cols];
    MemorySegment.copy(
        tensor.segment(), ValueLayout.JAVA_FLOAT, 4L * row * cols, values, 0, cols);
    return values;
  }

  private static float[][] sample(Tensor rows) {
    int count = (int) Math.min(SAMPLE_TOKENS, rows.dim(0));
    var sample = new float[count][];
    for (int i = 0; i < count; i++) {
      sample[i] = row(rows, rows.dim(0) * i / count);
    }
    return sample;
  }

  /** The mean square of each input: sums over the number of tokens. */
  static float[] meanSquares(Tensor sums, long tokens) {
    var values = sums.toFloats();
    for (int i = 0; i < values.length; i++) {
      values[i] /= tokens;
    }
    return values;
  }

  /** The largest norm of each pair, now that all tokens are added. */
  float[] pairNorms() {
    var norms = new float[pairMaxima.length];
    for (int i = 0; i < norms.length; i++) {
      norms[i] = (float) Math.sqrt(pairMaxima[i]);
    }
    return norms;
  }

  @Override
  public void close() {
    qkvInputs.close();
    outputInputs.close();
    feedForwardInputs.close();
    downInputs.close();
    keyMaxima.close();
    valueMaxima.close();
  }
}
