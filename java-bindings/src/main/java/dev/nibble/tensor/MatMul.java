// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ffi.nb_projection;
import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import dev.nibble.quantize.ActivationType;
import java.lang.foreign.MemorySegment;

/**
 * {@code nb_matmul}: for each projection, output = norm(x) * W^T + bias + residual, with norm(x)
 * rounded to the activation type. Made by {@link Context#bindMatMul}.
 */
public final class MatMul extends Operation {
  private static final int MAX_PROJECTIONS = 8;

  private final int activation;
  private final Tensor x;
  private final MemorySegment xStruct;
  private final MemorySegment norm;
  private final float epsilon;
  private final MemorySegment projections;
  private final int count;
  private final MemorySegment[] rowStructs; // residuals and outputs: M rows each
  private final long maxOutputRows;

  MatMul(Context context, ActivationType activation, Tensor x, Norm norm, Projection... all) {
    if (all.length < 1 || all.length > MAX_PROJECTIONS) {
      throw new InvalidArgumentException(
          "projections: " + all.length + " given, expected 1 to " + MAX_PROJECTIONS);
    }
    var operands = new Operands();
    var array = nb_projection.allocateArray(all.length, operands.arena);
    var structs = new MemorySegment[2 * all.length];
    long rows = Long.MAX_VALUE;
    for (int i = 0; i < all.length; i++) {
      var projection = all[i];
      var name = "projections[" + i + "]";
      var struct = nb_projection.asSlice(array, i);
      nb_projection.matrix(struct, operands.add(projection.matrix(), name + ".matrix"));
      long n = projection.matrix().rows();
      Tensor.check("x", x, DataType.F32, -1, projection.matrix().cols());
      Tensor.check(name + ".output", projection.output(), DataType.F32, -1, n);
      rows = Math.min(rows, projection.output().dim(0));
      structs[2 * i] = operands.add(projection.output());
      nb_projection.output(struct, structs[2 * i]);
      if (projection.bias() != null) {
        Tensor.check(name + ".bias", projection.bias(), DataType.F32, n);
      }
      nb_projection.bias(struct, operands.add(projection.bias()));
      if (projection.residual() != null) {
        Tensor.check(name + ".residual", projection.residual(), DataType.F32, -1, n);
        rows = Math.min(rows, projection.residual().dim(0));
      }
      structs[2 * i + 1] = operands.add(projection.residual());
      nb_projection.residual(struct, structs[2 * i + 1]);
    }
    this.activation = activation.nativeId();
    this.x = x;
    this.xStruct = operands.add(x);
    this.norm = operands.addNorm(norm, x.dim(1));
    this.epsilon = norm == null ? 0 : norm.epsilon();
    this.projections = array;
    this.count = all.length;
    this.rowStructs = structs;
    this.maxOutputRows = rows;
    super("the matrix product", context, operands);
  }

  /** Multiplies the first rows of x; the outputs' first rows are written. */
  public void run(long rows) {
    run(0, rows);
  }

  /**
   * Multiplies rows firstRow .. firstRow + rows - 1 of x; residuals and outputs are taken from
   * their own row 0 on. This is how the last token alone gets its logits.
   *
   * @throws InvalidArgumentException if x or an output has not that many rows
   */
  public void run(long firstRow, long rows) {
    checkRows(firstRow, rows, x.dim(0), "x");
    checkRows(0, rows, maxOutputRows, "the shortest output or residual");
    begin();
    try {
      Descriptor.setRows(xStruct, x, firstRow, rows);
      for (var struct : rowStructs) {
        if (struct.address() != 0) {
          Descriptor.setRows(struct, rows);
        }
      }
      Status.check(
          nibble_h.nb_matmul(handle, activation, xStruct, norm, epsilon, projections, count));
    } finally {
      end();
    }
  }
}
