// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import java.lang.foreign.MemorySegment;

/**
 * {@code nb_rope_append}: rotates q in place and appends the rotated k, and v, to one layer of
 * each sequence's cache, quantized to its type. Made by {@link Context#bindRopeAppend}.
 */
public final class RopeAppend extends Operation {
  private final int layer;
  private final SequenceBatch batch;
  private final long maxRows;
  private final MemorySegment q;
  private final MemorySegment k;
  private final MemorySegment v;
  private final MemorySegment angles;

  RopeAppend(Context context, int layer, Tensor q, Tensor k, Tensor v, Tensor angles,
      SequenceBatch batch) {
    var operands = new Operands();
    var cache = batch.caches()[0].options();
    long kvSize = (long) cache.kvHeads() * cache.headDim();
    Attention.checkLayer(layer, batch);
    Attention.checkQuery("q", q, batch);
    Tensor.check("k", k, DataType.F32, -1, kvSize);
    Tensor.check("v", v, DataType.F32, -1, kvSize);
    long rows = Math.min(q.dim(0), Math.min(k.dim(0), v.dim(0)));
    if (angles != null) {
      Tensor.check("angles", angles, DataType.F32, -1, cache.headDim());
      rows = Math.min(rows, angles.dim(0));
    }
    this.layer = layer;
    this.batch = batch;
    this.maxRows = rows;
    this.q = operands.add(q);
    this.k = operands.add(k);
    this.v = operands.add(v);
    this.angles = operands.add(angles);
    operands.add(batch);
    super("the RoPE append", context, operands);
  }

  /** Appends the tokens of the batch: the first rows of q, k, v and angles. */
  public void run() {
    long rows = batch.rows();
    checkRows(0, rows, maxRows, "q, k, v or angles");
    begin();
    try {
      Descriptor.setRows(q, rows);
      Descriptor.setRows(k, rows);
      Descriptor.setRows(v, rows);
      if (angles.address() != 0) {
        Descriptor.setRows(angles, rows);
      }
      Status.check(
          nibble_h.nb_rope_append(handle, layer, q, k, v, angles, batch.struct(), batch.size()));
    } finally {
      end();
    }
  }
}
