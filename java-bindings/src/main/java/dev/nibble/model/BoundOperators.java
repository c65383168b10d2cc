// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.io.DataType;
import dev.nibble.tensor.Attention;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.Embedding;
import dev.nibble.tensor.Graph;
import dev.nibble.tensor.KvCache;
import dev.nibble.tensor.MatMul;
import dev.nibble.tensor.Projection;
import dev.nibble.tensor.RopeAngles;
import dev.nibble.tensor.RopeAppend;
import dev.nibble.tensor.SequenceBatch;
import dev.nibble.tensor.Tensor;
import dev.nibble.tensor.TensorArena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.HashMap;
import java.util.Map;

/**
 * What a session's forward pass runs on: scratch tensors for {@link #MAX_ROWS} tokens, and every
 * operation bound to them and to the model's weights, so that a run allocates nothing. The pass
 * itself is in {@link Session}.
 *
 * <p>The tensors lie where the context computes. On a GPU token ids go there and logits come from
 * there by copies, and the step that decodes one token is recorded once and then launched as one
 * graph.
 */
final class BoundOperators {
  /** Tokens of one run: enough to decode a prompt's weights rarely, few enough to cache. */
  static final int MAX_ROWS = 512;

  /** Bytes of logits computed together when every token's are asked for. */
  private static final long LOGITS_BYTES = 16L << 20;

  /** The first graph of a step is for so many tokens; the next ones for twice as many each. */
  private static final long MIN_GRAPH_TOKENS = 256;

  private final int maxRows;
  private final Context context;
  private final long capacity;
  final SequenceBatch sequence;
  private final Tensor ids;
  private final Tensor idsHost; // ids itself on the CPU
  private final MemorySegment idsSegment;
  final Embedding embed;
  final RopeAngles angles;
  final Block[] blocks;
  private final MatMul lastHead;
  private final Tensor lastLogits;
  private final Tensor lastLogitsHost;
  private final MemorySegment lastLogitsSegment;

  private final LlamaModel model;
  private final TensorArena arena; // where the context computes
  private final TensorArena host;  // ordinary memory
  private final Tensor x;
  private Tensor spare; // made when a block's gate and up projections differ in format
  private Tensor allLogits; // made when first asked for
  private Tensor allLogitsHost;
  private MatMul allHead;
  private MemorySegment[] allRows;

  private final Map<SampleSettings, DeviceChoice> choices = new HashMap<>();
  private Graph step;          // null until it is needed
  private DeviceChoice stepChoice; // what step chooses by, or null
  private long stepTokens;     // that step may hold

  /** One transformer block, bound to its weights and the scratch tensors. */
  record Block(
      MatMul qkv,
      RopeAppend ropeAppend,
      Attention attention,
      MatMul attentionOutput,
      GateUp gateUp,
      MatMul down) {}

  /**
   * Allocates the scratch tensors and binds every operation.
   *
   * @param context the session's, of the model's device
   * @param cache the sequence's keys and values
   * @param arena of context, for scratch tensors
   * @param host of ordinary memory, for what goes to and fro; may be arena
   */
  BoundOperators(LlamaModel model, Context context, KvCache cache, TensorArena arena,
      TensorArena host) {
    this.model = model;
    this.context = context;
    this.capacity = cache.capacity();
    this.arena = arena;
    this.host = host;
    var config = model.config();
    var weights = model.weights();
    var activations = model.scheme().activations();
    maxRows = (int) Math.min(MAX_ROWS, cache.capacity());
    sequence = new SequenceBatch(cache);

    ids = arena.allocate(DataType.I32, maxRows);
    idsHost = onHost(ids);
    idsSegment = idsHost.segment();
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
          new GateUp(context, activations, x, w, hidden, this::spare),
          context.bindMatMul(activations, hidden, null,
              new Projection(w.down().matrix(), w.down().bias(), x, x)));
    }
    lastLogits = arena.allocate(DataType.F32, 1, config.vocabSize());
    lastLogitsHost = onHost(lastLogits);
    lastLogitsSegment = lastLogitsHost.segment();
    lastHead = bindHead(lastLogits);
  }

  /** The tensor itself where Java reaches it, else one like it in ordinary memory. */
  private Tensor onHost(Tensor tensor) {
    return tensor.onDevice() ? host.allocate(tensor.type(), tensor.shape()) : tensor;
  }

  private Tensor spare() {
    if (spare == null) {
      spare = arena.allocate(DataType.F32, maxRows, model.config().intermediateSize());
    }
    return spare;
  }

  private MatMul bindHead(Tensor logits) {
    var weights = model.weights();
    return context.bindMatMul(model.scheme().headActivations(), x, weights.finalNorm,
        new Projection(weights.head, logits));
  }

  /** The most tokens of one run. */
  int maxRows() {
    return maxRows;
  }

  /** Whether the tensors lie on a device, and a step is best launched as a graph. */
  boolean onDevice() {
    return ids.onDevice();
  }

  /** Sets token i of the next run. */
  void setToken(int i, int id) {
    idsSegment.setAtIndex(ValueLayout.JAVA_INT, i, id);
  }

  /** To be called after setToken, before the run. */
  void sendTokens(int rows) {
    if (idsHost != ids) {
      context.copy(idsHost, ids, rows);
    }
  }

  /** Logits of token row of the last run, F32 [vocabulary]; overwritten by the next call. */
  MemorySegment logits(int row) {
    lastHead.run(row, 1);
    return lastLogits();
  }

  /** The logits that the head made last. */
  MemorySegment lastLogits() {
    if (lastLogitsHost != lastLogits) {
      context.copy(lastLogits, lastLogitsHost, 1);
    }
    return lastLogitsSegment;
  }

  /** How many rows {@link #logits(int, int)} takes at most. */
  int maxLogitsRows() {
    if (allHead == null) {
      long vocabulary = model.config().vocabSize();
      int rows = Math.clamp(LOGITS_BYTES / (4 * vocabulary), 1, maxRows);
      allLogits = arena.allocate(DataType.F32, rows, vocabulary);
      allLogitsHost = onHost(allLogits);
      allRows = new MemorySegment[rows];
      for (int i = 0; i < rows; i++) {
        allRows[i] = allLogitsHost.rows(i, 1).segment();
      }
      allHead = bindHead(allLogits);
    }
    return allRows.length;
  }

  /** Logits of tokens firstRow .. firstRow + rows - 1 of the last run, one segment each. */
  MemorySegment[] logits(int firstRow, int rows) {
    allHead.run(firstRow, rows);
    if (allLogitsHost != allLogits) {
      context.copy(allLogits, allLogitsHost, rows);
    }
    return allRows;
  }

  // ---- on a device --------------------------------------------------------------------------

  /** Choosing by these settings where the logits are. */
  DeviceChoice choice(SampleSettings settings) {
    return choices.computeIfAbsent(settings,
        wanted -> new DeviceChoice(context, wanted, host, arena, lastLogits, ids));
  }

  /** The choice that follows token row of the last run, which becomes the next run's token 0. */
  void choose(int row, DeviceChoice choice) {
    lastHead.run(row, 1);
    choice.run();
  }

  /**
   * Takes the token in row 0 of ids through forward and the head, and on to choice, as one graph.
   *
   * @param forward the pass of one row; it is recorded when there is no graph for it yet
   * @param position of the token
   * @param choice makes the next choice, or null
   */
  void launchStep(Runnable forward, long position, DeviceChoice choice) {
    if (step == null || stepChoice != choice || position >= stepTokens) {
      closeStep();
      stepTokens = Math.min(capacity, Math.max(MIN_GRAPH_TOKENS, 2 * position));
      step = context.record(stepTokens, sequence, () -> {
        forward.run();
        lastHead.run(0, 1);
        if (choice != null) {
          choice.run();
        }
      });
      stepChoice = choice;
    }
    step.launch();
  }

  /** Frees the graph; the tensors are their arenas'. */
  void closeStep() {
    if (step != null) {
      step.close();
      step = null;
    }
  }
}
