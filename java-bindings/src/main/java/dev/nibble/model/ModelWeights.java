// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.io.CheckpointNames;
import dev.nibble.io.DataType;
import dev.nibble.quantize.Scheme;
import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.Norm;
import dev.nibble.tensor.PackedMatrix;
import dev.nibble.tensor.Tensor;
import dev.nibble.tensor.TensorArena;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * All weights of a LLaMA model under their Hugging Face names, packed. Owns them; a tied embedding
 * is one matrix that serves as both.
 */
final class ModelWeights implements AutoCloseable {

  /** A projection with its bias, which is null where the model has none. */
  record Linear(PackedMatrix matrix, Tensor bias) {}

  /** The weights of one transformer block. */
  record Layer(
      Norm attentionNorm, Linear q, Linear k, Linear v, Linear o,
      Norm feedForwardNorm, Linear gate, Linear up, Linear down) {}

  private final LlamaConfig config;
  private final Scheme scheme;
  private final WeightSource source;
  private final TensorArena arena;
  private final Deque<PackedMatrix> matrices = new ArrayDeque<>();

  final PackedMatrix embedding;
  final List<Layer> layers = new ArrayList<>();
  final Norm finalNorm;
  final PackedMatrix head;
  final Tensor inverseFrequencies;

  /** Takes every weight from source to where context computes; on failure frees those taken. */
  ModelWeights(Context context, LlamaConfig config, Scheme scheme, WeightSource source) {
    this.arena = context.newArena("the model");
    this.config = config;
    this.scheme = scheme;
    this.source = source;
    boolean complete = false;
    try {
      embedding = matrix(CheckpointNames.EMBEDDING, config.vocabSize(), config.hiddenSize(),
          scheme.embedding());
      for (int i = 0; i < config.layers(); i++) {
        layers.add(layer("model.layers." + i + "."));
      }
      finalNorm = norm(CheckpointNames.NORM);
      head = config.tiedEmbedding()
          ? embedding
          : matrix(CheckpointNames.HEAD, config.vocabSize(), config.hiddenSize(),
              scheme.embedding());
      inverseFrequencies = arena.allocate(DataType.F32, config.headDim() / 2);
      inverseFrequencies.copyFrom(config.inverseFrequencies());
      context.synchronize(); // sessions on a device have contexts of their own
      complete = true;
    } finally {
      if (!complete) {
        close();
      }
    }
  }

  private Layer layer(String prefix) {
    int hidden = config.hiddenSize();
    int inner = config.intermediateSize();
    int query = config.querySize();
    int kv = config.kvSize();
    String attention = prefix + "self_attn.";
    String mlp = prefix + "mlp.";
    boolean attentionBias = config.attentionBias();
    boolean mlpBias = config.mlpBias();
    return new Layer(
        norm(prefix + "input_layernorm.weight"),
        linear(attention + "q_proj", query, hidden, attentionBias),
        linear(attention + "k_proj", kv, hidden, attentionBias),
        linear(attention + "v_proj", kv, hidden, attentionBias),
        linear(attention + "o_proj", hidden, query, attentionBias),
        norm(prefix + "post_attention_layernorm.weight"),
        linear(mlp + "gate_proj", inner, hidden, mlpBias),
        linear(mlp + "up_proj", inner, hidden, mlpBias),
        linear(mlp + "down_proj", hidden, inner, mlpBias));
  }

  private Linear linear(String name, int rows, int cols, boolean bias) {
    return new Linear(
        matrix(name + ".weight", rows, cols, scheme.formatOf(name + ".weight")),
        bias ? vector(name + ".bias", rows) : null);
  }

  private PackedMatrix matrix(String name, int rows, int cols, WeightFormat format) {
    var matrix = source.matrix(name, rows, cols, format);
    matrices.push(matrix);
    return matrix;
  }

  private Norm norm(String name) {
    return new Norm(vector(name, config.hiddenSize()), config.rmsNormEps());
  }

  private Tensor vector(String name, int size) {
    var tensor = arena.allocate(DataType.F32, size);
    tensor.copyFrom(source.vector(name, size));
    return tensor;
  }

  /** Packed bytes of the matrices that decoding one token reads: projections and head. */
  long bytesPerToken() {
    long bytes = 0;
    for (var matrix : matrices) {
      bytes += matrix.packedBytes();
    }
    // Of an embedding that is not the head, one row is read.
    return config.tiedEmbedding() ? bytes : bytes - embedding.packedBytes();
  }

  @Override
  public void close() {
    while (!matrices.isEmpty()) {
      matrices.pop().close();
    }
    arena.close();
  }
}
