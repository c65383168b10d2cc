// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.io.DataType;
import dev.nibble.tensor.Attention;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.Embedding;
import dev.nibble.tensor.KvCache;
import dev.nibble.tensor.MatMul;
import dev.nibble.tensor.Projection;
import dev.nibble.tensor.RopeAngles;
import dev.nibble.tensor.RopeAppend;
import dev.nibble.tensor.SequenceBatch;
import dev.nibble.tensor.SwiGluMatMul;
import dev.nibble.tensor.Tensor;
import dev.nibble.tensor.TensorArena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * What a session's forward pass runs on: scratch tensors for {@link #MAX_ROWS} tokens, and every
 * operation bound to them and to the model's weights, so that a run allocates nothing. The pass
 * itself is in {@link Session}.
 */
final class BoundOperators {
  /** Tokens of one run: enough to decode a prompt's weights rarely, few enough to cache. */
  static final int MAX_ROWS = 512;

  /** Bytes of logits computed together when every token's are asked for. */
  private static final long LOGITS_BYTES = 16L << 20;

  private final int maxRows;
  final SequenceBatch sequence;
  private final Tensor ids;
  final Embedding embed;
  final RopeAngles angles;
  final Block[] blocks;
  private final MatMul lastHead;
  private final Tensor lastLogits;

  private final LlamaModel model;
  private final TensorArena arena;
  private final Tensor x;
  private Tensor allLogits; // made when first asked for
  private MatMul allHead;
  private MemorySegment[] allRows;

  /** One transformer block, bound to its weights and the scratch tensors. */
  record Block(
      MatMul qkv,
      RopeAppend ropeAppend,
      Attention attention,
      MatMul attentionOutput,
      SwiGluMatMul gateUp,
      MatMul down) {}

  /**
   * Allocates the scratch tensors in arena and binds every operation.
   *
   * @param cache the sequence's keys and values
   */
  BoundOperators(LlamaModel model, KvCache cache, TensorArena arena) {
    this.model = model;
    this.arena = arena;
    var config = model.config();
    var weights = model.weights();
    var context = model.context();
    var activations = model.scheme().activations();
    maxRows = (int) Math.min(MAX_ROWS, cache.capacity());
    sequence = new SequenceBatch(cache);

    ids = arena.allocate(DataType.I32, maxRows);
    x = arena.allocate(DataType.F32, maxRows, config.hiddenSize());
    var q = arena.allocate(DataType.F32, maxRows, config.querySize());
    var k = arena.allocate(DataType.F32, maxRows, config.kvSize());
    var v = arena.allocate(DataType.F32, maxRows, config.kvSize());
    var attended = arena.allocate(DataType.F32, maxRows, config.querySize());
    var hidden = arena.allocate(DataType.F32, maxRows, config.intermediateSize());
    var rotation = arena.allocate(DataType.F32, maxRows, config.headDim());
    float scale = (float) (1 / Math.sqrt(config.headDim()));

    embed = context.bindEmbedding(weights.embedding, ids, x);
    angles = context.bindRopeAngles(weights.inverseFrequencies, sequence, rotation);
    blocks = new Block[config.layers()];
    for (int i = 0; i < blocks.length; i++) {
      var w = weights.layers.get(i);
      blocks[i] = new Block(
          context.bindMatMul(activations, x, w.attentionNorm(),
              new Projection(w.q().matrix(), w.q().bias(), null, q),
              new Projection(w.k().matrix(), w.k().bias(), null, k),
              new Projection(w.v().matrix(), w.v().bias(), null, v)),
          context.bindRopeAppend(i, q, k, v, rotation, sequence),
          context.bindAttention(i, q, scale, sequence, attended),
          context.bindMatMul(activations, attended, null,
              new Projection(w.o().matrix(), w.o().bias(), x, x)),
          context.bindSwiGluMatMul(activations, x, w.feedForwardNorm(),
              w.gate().matrix(), w.gate().bias(), w.up().matrix(), w.up().bias(), hidden),
          context.bindMatMul(activations, hidden, null,
              new Projection(w.down().matrix(), w.down().bias(), x, x)));
    }
    lastLogits = arena.allocate(DataType.F32, 1, config.vocabSize());
    lastHead = bindHead(context, lastLogits);
  }

  private MatMul bindHead(Context context, Tensor logits) {
    var weights = model.weights();
    return context.bindMatMul(model.scheme().headActivations(), x, weights.finalNorm,
        new Projection(weights.head, logits));
  }

  /** The most tokens of one run. */
  int maxRows() {
    return maxRows;
  }

  /** Sets token i of the next run. */
  void setToken(int i, int id) {
    ids.segment().setAtIndex(ValueLayout.JAVA_INT, i, id);
  }

  /** Logits of token row of the last run, F32 [vocabulary]; overwritten by the next call. */
  MemorySegment logits(int row) {
    lastHead.run(row, 1);
    return lastLogits.segment();
  }

  /** How many rows {@link #logits(int, int)} takes at most. */
  int maxLogitsRows() {
    if (allHead == null) {
      long vocabulary = model.config().vocabSize();
      int rows = Math.clamp(LOGITS_BYTES / (4 * vocabulary), 1, maxRows);
      allLogits = arena.allocate(DataType.F32, rows, vocabulary);
      allRows = new MemorySegment[rows];
      for (int i = 0; i < rows; i++) {
        allRows[i] = allLogits.rows(i, 1).segment();
      }
      allHead = bindHead(model.context(), allLogits);
    }
    return allRows.length;
  }

  /** Logits of tokens firstRow .. firstRow + rows - 1 of the last run, one segment each. */
  MemorySegment[] logits(int firstRow, int rows) {
    allHead.run(firstRow, rows);
    return allRows;
  }
}
