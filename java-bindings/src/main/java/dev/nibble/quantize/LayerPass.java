// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.io.DataType;
import dev.nibble.model.LlamaConfig;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.KvCache;
import dev.nibble.tensor.MatMul;
import dev.nibble.tensor.PackedMatrix;
import dev.nibble.tensor.Projection;
import dev.nibble.tensor.SequenceBatch;
import dev.nibble.tensor.Tensor;
import dev.nibble.tensor.TensorArena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BiConsumer;
import java.util.function.Consumer;

/**
 * The forward pass of one transformer block over all calibration windows, a chunk of whole windows
 * at a time, by the native operators. It runs in the steps in which a quantizer needs it: what
 * goes into the query, key and value projections; attention; what goes into the feed-forward
 * block; what goes into the down projection. Between the steps of all chunks the states stay in
 * tensors of the caller's.
 *
 * <p>Scratch tensors are made once and serve every layer. For one thread.
 */
final class LayerPass implements AutoCloseable {
  /** Rows of a chunk, if a window has not more: enough to decode weights rarely. */
  private static final int CHUNK_ROWS = 2048;

  private final Context context;
  private final LlamaConfig config;
  private final int windowTokens;
  private final int windows;
  private final int chunkWindows;
  private final TensorArena arena = new TensorArena("the calibration pass");
  private final Tensor x;
  private final Tensor h;
  private final Tensor q;
  private final Tensor k;
  private final Tensor v;
  private final Tensor attended;
  private final Tensor inner;
  private final Tensor rotation;
  private final Tensor inverseFrequencies;

  /** What one chunk's attention saw: rows are tokens; views of scratch, valid during the call. */
  record Heads(Tensor q, Tensor k, Tensor v) {}

  LayerPass(Context context, LlamaConfig config, Calibration calibration) {
    this.context = context;
    this.config = config;
    this.windowTokens = calibration.windowTokens();
    this.windows = calibration.windows();
    this.chunkWindows = Math.clamp(CHUNK_ROWS / windowTokens, 1, windows);
    boolean complete = false;
    try {
      int rows = chunkWindows * windowTokens;
      x = arena.allocate(DataType.F32, rows, config.hiddenSize());
      h = arena.allocate(DataType.F32, rows, config.hiddenSize());
      q = arena.allocate(DataType.F32, rows, config.querySize());
      k = arena.allocate(DataType.F32, rows, config.kvSize());
      v = arena.allocate(DataType.F32, rows, config.kvSize());
      attended = arena.allocate(DataType.F32, rows, config.querySize());
      inner = arena.allocate(DataType.F32, rows, config.intermediateSize());
      rotation = arena.allocate(DataType.F32, rows, config.headDim());
      inverseFrequencies = arena.allocate(DataType.F32, config.headDim() / 2);
      inverseFrequencies.copyFrom(config.inverseFrequencies());
      complete = true;
    } finally {
      if (!complete) {
        arena.close();
      }
    }
  }

  /** Tokens of all windows. */
  long tokens() {
    return (long) windows * windowTokens;
  }

  /** A projection as the pass multiplies with it. */
  record Linear(PackedMatrix matrix, Tensor bias) {}

  // ---- steps --------------------------------------------------------------------------------

  /** Hands norm(states) to sink, chunk by chunk. */
  void normed(LayerWeights weights, String norm, Tensor states, Consumer<Tensor> sink) {
    forEachChunk((first, rows) -> sink.accept(norm(weights, norm, states, first, rows)));
  }

  /** The same of two tensors of states at once. */
  void normed(LayerWeights weights, String norm, Tensor states, Tensor others,
      BiConsumer<Tensor, Tensor> sink) {
    forEachChunk((first, rows) -> {
      var normed = norm(weights, norm, states, first, rows);
      copy(others, first, x, 0, rows);
      context.rmsNorm(x.rows(0, rows), weights.norm(norm), x.rows(0, rows));
      sink.accept(normed, x.rows(0, rows));
    });
  }

  private Tensor norm(LayerWeights weights, String norm, Tensor states, long first, long rows) {
    copy(states, first, x, 0, rows);
    context.rmsNorm(x.rows(0, rows), weights.norm(norm), h.rows(0, rows));
    return h.rows(0, rows);
  }

  /**
   * Attention: queries, keys and values of norm(states), rotated, kept in caches of that type, and
   * its output, written to out.
   *
   * @param scales of a 4-bit cache, or null
   * @param rotated hears of each chunk's rotated queries and keys, and its values; or null
   * @param out F32 [tokens, querySize]
   */
  void attention(LayerWeights weights, Linear[] qkv, ActivationType activations, KvType type,
      CacheScales scales, Tensor states, Consumer<Heads> rotated, Tensor out) {
    var caches = new ArrayList<KvCache>();
    try {
      for (int i = 0; i < chunkWindows; i++) {
        caches.add(newCache(type, scales));
      }
      var project = context.bindMatMul(activations, h, null,
          new Projection(qkv[0].matrix(), qkv[0].bias(), null, q),
          new Projection(qkv[1].matrix(), qkv[1].bias(), null, k),
          new Projection(qkv[2].matrix(), qkv[2].bias(), null, v));
      var batch = new SequenceBatch(caches.toArray(KvCache[]::new));
      var angles = context.bindRopeAngles(inverseFrequencies, batch, rotation);
      var append = context.bindRopeAppend(0, q, k, v, rotation, batch);
      // Appending rotates queries in place: so do keys in their stead, to a layer nobody looks at.
      var rotateKeys = context.bindRopeAppend(1, k, v, v, rotation, batch);
      float scale = (float) (1 / Math.sqrt(config.headDim()));
      var attend = context.bindAttention(0, q, scale, batch, attended);
      forEachChunk((first, rows) -> {
        norm(weights, LayerWeights.ATTENTION_NORM, states, first, rows);
        for (int i = 0; i < chunkWindows; i++) {
          batch.set(i, 0, (long) i * windowTokens < rows ? windowTokens : 0);
        }
        project.run(rows);
        angles.run();
        append.run();
        attend.run();
        if (rotated != null) {
          rotateKeys.run();
          rotated.accept(heads(rows));
        }
        copy(attended, 0, out, first, rows);
      });
    } finally {
      caches.forEach(KvCache::close);
    }
  }

  private Heads heads(long rows) {
    return new Heads(q.rows(0, rows), k.rows(0, rows), v.rows(0, rows));
  }

  private KvCache newCache(KvType type, CacheScales scales) {
    boolean factors = type == KvType.KV4 && scales != null && scales.hasFactors();
    var cache = context.newKvCache(new KvCache.Options(type, 2, config.kvHeads(),
        config.headDim(), windowTokens, 0,
        factors ? new float[] {scales.keyFactor(), 1} : null,
        factors ? new float[] {scales.valueFactor(), 1} : null));
    if (type == KvType.KV4 && scales != null && scales.keyScales() != null) {
      cache.setKeyScales(0, scales.keyScales());
    }
    return cache;
  }

  /**
   * states += input * projection.
   *
   * @param name of the projection: {@link LayerWeights#O} or {@link LayerWeights#DOWN}
   * @param input F32 [tokens, K]
   */
  void addProjection(String name, Linear projection, ActivationType activations, Tensor input,
      Tensor states) {
    var from = name.equals(LayerWeights.O) ? attended : inner;
    MatMul add = context.bindMatMul(activations, from, null,
        new Projection(projection.matrix(), projection.bias(), x, x));
    forEachChunk((first, rows) -> {
      copy(input, first, from, 0, rows);
      copy(states, first, x, 0, rows);
      add.run(rows);
      copy(x, 0, states, first, rows);
    });
  }

  /** out = silu(norm(states) gate) * (norm(states) up). out: F32 [tokens, intermediateSize]. */
  void gateUp(LayerWeights weights, Linear gate, Linear up, ActivationType activations,
      Tensor states, Tensor out) {
    var operation = context.bindSwiGluMatMul(activations, h, null, gate.matrix(), gate.bias(),
        up.matrix(), up.bias(), inner);
    forEachChunk((first, rows) -> {
      norm(weights, LayerWeights.FEED_FORWARD_NORM, states, first, rows);
      operation.run(rows);
      copy(inner, 0, out, first, rows);
    });
  }

  // ---- chunks -------------------------------------------------------------------------------

  @FunctionalInterface
  private interface Chunk {
    void run(long firstRow, long rows);
  }

  private void forEachChunk(Chunk chunk) {
    for (int window = 0; window < windows; window += chunkWindows) {
      int count = Math.min(chunkWindows, windows - window);
      chunk.run((long) window * windowTokens, (long) count * windowTokens);
    }
  }

  /** Hands the rows of a tensor of all tokens to sink, chunk by chunk. */
  void chunks(Tensor all, Consumer<Tensor> sink) {
    forEachChunk((first, rows) -> sink.accept(all.rows(first, rows)));
  }

  /** The same of two tensors at once. */
  void chunks(Tensor all, Tensor others, BiConsumer<Tensor, Tensor> sink) {
    forEachChunk((first, rows) -> sink.accept(all.rows(first, rows), others.rows(first, rows)));
  }

  private static void copy(Tensor from, long fromRow, Tensor to, long toRow, long rows) {
    long bytes = 4 * from.dim(1);
    MemorySegment.copy(
        from.segment(), fromRow * bytes, to.segment(), toRow * bytes, rows * bytes);
  }

  /** Packed F32 weights of projections, closed by the caller. */
  static List<PackedMatrix> packFloats(
      Context context, LayerWeights weights, String... projections) {
    var packed = new ArrayList<PackedMatrix>();
    boolean complete = false;
    try {
      for (var projection : projections) {
        packed.add(context.pack(weights.matrix(projection), WeightFormat.F32));
      }
      complete = true;
      return packed;
    } finally {
      if (!complete) {
        packed.forEach(PackedMatrix::close);
      }
    }
  }

  @Override
  public void close() {
    arena.close();
  }
}
