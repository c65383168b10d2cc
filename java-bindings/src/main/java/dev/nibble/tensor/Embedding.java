// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import java.lang.foreign.MemorySegment;

/**
 * {@code nb_embedding}: output[i] = the weights of row ids[i] of a table [V, K]. Made by {@link
 * Context#bindEmbedding}.
 */
public final class Embedding extends Operation {
  private final long maxRows;
  private final MemorySegment table;
  private final MemorySegment ids;
  private final MemorySegment output;

  Embedding(Context context, PackedMatrix table, Tensor ids, Tensor output) {
    var operands = new Operands();
    this.table = operands.add(table, "table");
    Tensor.check("ids", ids, DataType.I32, -1);
    Tensor.check("output", output, DataType.F32, -1, table.cols());
    this.maxRows = Math.min(ids.dim(0), output.dim(0));
    this.ids = operands.add(ids);
    this.output = operands.add(output);
    super("the embedding", context, operands);
  }

  /**
   * Looks up the first rows ids.
   *
   * @throws dev.nibble.InvalidArgumentException if an id is outside 0 .. V-1, or ids or output
   *     has not that many rows
   */
  public void run(long rows) {
    checkRows(0, rows, maxRows, "ids or output");
    begin();
    try {
      Descriptor.setRows(ids, rows);
      Descriptor.setRows(output, rows);
      Status.check(nibble_h.nb_embedding(handle, table, ids, output));
    } finally {
      end();
    }
  }
}
