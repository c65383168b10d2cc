// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import java.lang.foreign.MemorySegment;

/** {@code nb_argmax}: the likeliest token of each row. Made by {@link Context#bindArgmax}. */
public final class Argmax extends Operation {
  private final long maxRows;
  private final MemorySegment logits;
  private final MemorySegment ids;

  Argmax(Context context, Tensor logits, Tensor ids) {
    var operands = new Operands();
    Tensor.check("logits", logits, DataType.F32, -1, -1);
    Tensor.check("ids", ids, DataType.I32, -1);
    this.maxRows = Math.min(logits.dim(0), ids.dim(0));
    this.logits = operands.add(logits);
    this.ids = operands.add(ids);
    super("the argmax", context, operands);
  }

  /** Chooses for the first rows. */
  public void run(long rows) {
    checkRows(0, rows, maxRows, "logits or ids");
    begin();
    try {
      Descriptor.setRows(logits, rows);
      Descriptor.setRows(ids, rows);
      Status.check(nibble_h.nb_argmax(handle, logits, ids));
    } finally {
      end();
    }
  }
}
