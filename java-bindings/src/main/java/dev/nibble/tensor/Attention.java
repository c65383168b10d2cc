// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import java.lang.foreign.MemorySegment;

/**
 * {@code nb_attention}: causal attention of the batch's tokens over one layer of their caches,
 * with an online softmax (FlashAttention, arXiv 2205.14135). Made by {@link Context#bindAttention}.
 */
public final class Attention extends Operation {
  private final int layer;
  private final float scale;
  private final SequenceBatch batch;
  private final long maxRows;
  private final MemorySegment q;
  private final MemorySegment output;

  Attention(Context context, int layer, Tensor q, float scale, SequenceBatch batch,
      Tensor output) {
    var operands = new Operands();
    checkLayer(layer, batch);
    checkQuery("q", q, batch);
    Tensor.check("output", output, DataType.F32, -1, q.dim(1));
    this.layer = layer;
    this.scale = scale;
    this.batch = batch;
    this.maxRows = Math.min(q.dim(0), output.dim(0));
    this.q = operands.add(q);
    this.output = operands.add(output);
    operands.add(batch);
    super("the attention", context, operands);
  }

  /** Attends for the tokens of the batch: the first rows of q and output. */
  public void run() {
    long rows = batch.rows();
    checkRows(0, rows, maxRows, "q or output");
    begin();
    try {
      Descriptor.setRows(q, rows);
      Descriptor.setRows(output, rows);
      Status.check(
          nibble_h.nb_attention(handle, layer, q, scale, batch.struct(), batch.size(), output));
    } finally {
      end();
    }
  }

  static void checkLayer(int layer, SequenceBatch batch) {
    for (var cache : batch.caches()) {
      if (layer < 0 || layer >= cache.options().layers()) {
        throw new InvalidArgumentException(
            "layer: " + layer + " given, but the cache has " + cache.options().layers());
      }
    }
  }

  /** A query has a whole number of heads for each key/value head. */
  static void checkQuery(String name, Tensor q, SequenceBatch batch) {
    Tensor.check(name, q, DataType.F32, -1, -1);
    var cache = batch.caches()[0].options();
    long kvSize = (long) cache.kvHeads() * cache.headDim();
    if (q.dim(1) == 0 || q.dim(1) % kvSize != 0) {
      throw new InvalidArgumentException(name + ": " + q + " given, expected columns in multiples"
          + " of " + cache.kvHeads() + " key/value heads of " + cache.headDim());
    }
  }
}
