// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.CheckpointNames;
import dev.nibble.io.DataType;
import dev.nibble.io.TensorInfo;
import dev.nibble.io.TensorStore;
import dev.nibble.model.LlamaConfig;
import dev.nibble.tensor.CalibrationKernels;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.Norm;
import dev.nibble.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The weights of one transformer block in F32, as a quantizer reads, scales and rounds them. Owns
 * its tensors. For one thread.
 */
final class LayerWeights implements AutoCloseable {
  static final String Q = "self_attn.q_proj";
  static final String K = "self_attn.k_proj";
  static final String V = "self_attn.v_proj";
  static final String O = "self_attn.o_proj";
  static final String GATE = "mlp.gate_proj";
  static final String UP = "mlp.up_proj";
  static final String DOWN = "mlp.down_proj";
  static final String ATTENTION_NORM = "input_layernorm";
  static final String FEED_FORWARD_NORM = "post_attention_layernorm";

  /** All projections, in the order in which a block computes. */
  static final List<String> PROJECTIONS = List.of(Q, K, V, O, GATE, UP, DOWN);

  private final String prefix;
  private final float epsilon;
  private final Map<String, Tensor> tensors = new LinkedHashMap<>();

  private LayerWeights(int layer, float epsilon) {
    this.prefix = prefix(layer);
    this.epsilon = epsilon;
  }

  /** The names of all tensors of all layers of a model. */
  static Set<String> names(LlamaConfig config) {
    var names = new HashSet<String>();
    for (int layer = 0; layer < config.layers(); layer++) {
      for (var projection : PROJECTIONS) {
        names.add(prefix(layer) + projection + ".weight");
        if (projection.startsWith("mlp.") ? config.mlpBias() : config.attentionBias()) {
          names.add(prefix(layer) + projection + ".bias");
        }
      }
      names.add(prefix(layer) + ATTENTION_NORM + ".weight");
      names.add(prefix(layer) + FEED_FORWARD_NORM + ".weight");
    }
    return names;
  }

  /** The beginning of the names of a layer's tensors. */
  static String prefix(int layer) {
    return "model.layers." + layer + ".";
  }

  /**
   * Reads a layer.
   *
   * @throws dev.nibble.ModelFormatException naming a tensor that is missing, of another type or
   *     shape, or holds NaN or infinity
   */
  static LayerWeights read(TensorStore store, LlamaConfig config, int layer, Context context) {
    var weights = new LayerWeights(layer, config.rmsNormEps());
    boolean complete = false;
    try {
      int hidden = config.hiddenSize();
      int inner = config.intermediateSize();
      int query = config.querySize();
      int kv = config.kvSize();
      weights.read(store, context, ATTENTION_NORM + ".weight", hidden);
      weights.linear(store, context, Q, query, hidden, config.attentionBias());
      weights.linear(store, context, K, kv, hidden, config.attentionBias());
      weights.linear(store, context, V, kv, hidden, config.attentionBias());
      weights.linear(store, context, O, hidden, query, config.attentionBias());
      weights.read(store, context, FEED_FORWARD_NORM + ".weight", hidden);
      weights.linear(store, context, GATE, inner, hidden, config.mlpBias());
      weights.linear(store, context, UP, inner, hidden, config.mlpBias());
      weights.linear(store, context, DOWN, hidden, inner, config.mlpBias());
      complete = true;
      return weights;
    } finally {
      if (!complete) {
        weights.close();
      }
    }
  }

  private void linear(TensorStore store, Context context, String name, int rows, int cols,
      boolean bias) {
    read(store, context, name + ".weight", rows, cols);
    if (bias) {
      read(store, context, name + ".bias", rows);
    }
  }

  private void read(TensorStore store, Context context, String name, long... shape) {
    tensors.put(name, readFloats(store, context, prefix + name, shape));
  }

  /**
   * What goes into the first layer: the rows of the embedding that the calibration's tokens name,
   * F32 [tokens, hidden]; the caller closes it.
   */
  static Tensor embed(
      TensorStore store, Context context, LlamaConfig config, Calibration calibration) {
    long bytes = 4L * config.hiddenSize();
    var states = Tensor.allocate(DataType.F32, calibration.tokens(), config.hiddenSize());
    boolean complete = false;
    try (var table = readFloats(store, context, CheckpointNames.EMBEDDING, config.vocabSize(),
        config.hiddenSize())) {
      long row = 0;
      for (int i = 0; i < calibration.windows(); i++) {
        for (int token : calibration.window(i)) {
          MemorySegment.copy(
              table.segment(), bytes * token, states.segment(), bytes * row++, bytes);
        }
      }
      complete = true;
      return states;
    } finally {
      if (!complete) {
        states.close();
      }
    }
  }

  /** A tensor of a checkpoint, converted to F32; the caller closes it. */
  static Tensor readFloats(TensorStore store, Context context, String name, long... shape) {
    var info = store.info(name);
    check(info, shape);
    long rows = shape.length == 1 ? 1 : shape[0];
    long cols = shape[shape.length - 1];
    try (var raw = Tensor.allocate(info.dataType(), rows, cols)) {
      store.read(name, raw.segment());
      try (var converted = context.quantize(raw, WeightFormat.F32)) {
        var floats = Tensor.allocate(DataType.F32, shape);
        MemorySegment.copy(converted.codes(), 0, floats.segment(), 0, floats.byteSize());
        return floats;
      } catch (InvalidArgumentException e) {
        // All that the conversion refuses in weights of a legal shape and type is NaN and infinity.
        throw info.problem(e.getMessage());
      }
    }
  }

  private static void check(TensorInfo info, long... shape) {
    if (!info.dataType().isFloat()) {
      throw info.problem("dtype " + info.dataType().safetensorsName()
          + ", expected F32, F16 or BF16");
    }
    if (!Arrays.equals(info.shape(), shape)) {
      throw info.problem("shape " + info.shapeText() + ", but the model needs "
          + Arrays.toString(shape));
    }
  }

  /** A projection's weights, F32 [N, K]. */
  Tensor matrix(String projection) {
    return tensors.get(projection + ".weight");
  }

  /** A projection's bias, F32 [N], or null. */
  Tensor bias(String projection) {
    return tensors.get(projection + ".bias");
  }

  /** A norm with its weight. */
  Norm norm(String name) {
    return new Norm(tensors.get(name + ".weight"), epsilon);
  }

  /** The name of a projection's or norm's weight in files. */
  String fileName(String name) {
    return prefix + name + ".weight";
  }

  /** Norms and biases, by their names in files, F32 vectors. */
  Map<String, Tensor> vectors() {
    var vectors = new LinkedHashMap<String, Tensor>();
    tensors.forEach((name, tensor) -> {
      if (tensor.rank() == 1) {
        vectors.put(prefix + name, tensor);
      }
    });
    return vectors;
  }

  /** Multiplies column k of each projection's weights by factors[k]. */
  void scaleColumns(Context context, float[] factors, String... projections) {
    for (var projection : projections) {
      CalibrationKernels.scale(context, matrix(projection), null, factors);
    }
  }

  /** Multiplies row n of a projection, and its bias, by factors[n]. */
  void scaleRows(Context context, float[] factors, String projection) {
    CalibrationKernels.scale(context, matrix(projection), factors, null);
    if (bias(projection) != null) {
      scaleVector(bias(projection), factors);
    }
  }

  /** Multiplies a norm's weight by factors. */
  void scaleNorm(float[] factors, String norm) {
    scaleVector(tensors.get(norm + ".weight"), factors);
  }

  private static void scaleVector(Tensor vector, float[] factors) {
    var values = vector.toFloats();
    for (int i = 0; i < values.length; i++) {
      values[i] *= factors[i];
    }
    vector.copyFrom(values);
  }

  @Override
  public void close() {
    tensors.values().forEach(Tensor::close);
    tensors.clear();
  }
}
