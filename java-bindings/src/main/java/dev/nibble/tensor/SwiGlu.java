// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import java.lang.foreign.MemorySegment;

/**
 * {@code nb_swiglu}: output = silu(gate) * up, elementwise (SwiGLU, Shazeer, arXiv 2002.05202), for
 * gate and up projections that no {@link SwiGluMatMul} takes together. Made by {@link
 * Context#bindSwiGlu}.
 */
public final class SwiGlu extends Operation {
  private final long maxRows;
  private final MemorySegment gate;
  private final MemorySegment up;
  private final MemorySegment output;

  SwiGlu(Context context, Tensor gate, Tensor up, Tensor output) {
    var operands = new Operands();
    Tensor.check("gate", gate, DataType.F32, -1, -1);
    Tensor.check("up", up, DataType.F32, -1, gate.dim(1));
    Tensor.check("output", output, DataType.F32, -1, gate.dim(1));
    this.maxRows = Math.min(gate.dim(0), Math.min(up.dim(0), output.dim(0)));
    this.gate = operands.add(gate);
    this.up = operands.add(up);
    this.output = operands.add(output);
    super("the SwiGLU", context, operands);
  }

  /**
   * Computes the first rows.
   *
   * @throws dev.nibble.InvalidArgumentException if a tensor has not that many
   */
  public void run(long rows) {
    checkRows(0, rows, maxRows, "gate, up or output");
    begin();
    try {
      Descriptor.setRows(gate, rows);
      Descriptor.setRows(up, rows);
      Descriptor.setRows(output, rows);
      Status.check(nibble_h.nb_swiglu(handle, gate, up, output));
    } finally {
      end();
    }
  }
}
