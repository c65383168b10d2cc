// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import dev.nibble.quantize.ActivationType;
import java.lang.foreign.MemorySegment;

/**
 * {@code nb_swiglu_matmul}: output = silu(norm(x) * gate^T + bias) * (norm(x) * up^T + bias), the
 * first half of a LLaMA feed-forward block (SwiGLU, Shazeer, arXiv 2002.05202). Made by {@link
 * Context#bindSwiGluMatMul}.
 */
public final class SwiGluMatMul extends Operation {
  private final int activation;
  private final long maxRows;
  private final MemorySegment x;
  private final MemorySegment norm;
  private final float epsilon;
  private final MemorySegment gate;
  private final MemorySegment gateBias;
  private final MemorySegment up;
  private final MemorySegment upBias;
  private final MemorySegment output;

  SwiGluMatMul(Context context, ActivationType activation, Tensor x, Norm norm, PackedMatrix gate,
      Tensor gateBias, PackedMatrix up, Tensor upBias, Tensor output) {
    var operands = new Operands();
    this.gate = operands.add(gate, "gate");
    this.up = operands.add(up, "up");
    if (gate.rows() != up.rows() || gate.cols() != up.cols()
        || !gate.format().equals(up.format())) {
      throw new InvalidArgumentException(
          "up: " + up + " given, expected the shape and format of gate, " + gate);
    }
    Tensor.check("x", x, DataType.F32, -1, gate.cols());
    Tensor.check("output", output, DataType.F32, -1, gate.rows());
    if (gateBias != null) {
      Tensor.check("gate bias", gateBias, DataType.F32, gate.rows());
    }
    if (upBias != null) {
      Tensor.check("up bias", upBias, DataType.F32, gate.rows());
    }
    this.activation = activation.nativeId();
    this.maxRows = Math.min(x.dim(0), output.dim(0));
    this.x = operands.add(x);
    this.norm = operands.addNorm(norm, x.dim(1));
    this.epsilon = norm == null ? 0 : norm.epsilon();
    this.gateBias = operands.add(gateBias);
    this.upBias = operands.add(upBias);
    this.output = operands.add(output);
    super("the SwiGLU product", context, operands);
  }

  /**
   * Computes the first rows.
   *
   * @throws InvalidArgumentException if x or output has not that many
   */
  public void run(long rows) {
    checkRows(0, rows, maxRows, "x or output");
    begin();
    try {
      Descriptor.setRows(x, rows);
      Descriptor.setRows(output, rows);
      Status.check(nibble_h.nb_swiglu_matmul(
          handle, activation, x, norm, epsilon, gate, gateBias, up, upBias, output));
    } finally {
      end();
    }
  }
}
