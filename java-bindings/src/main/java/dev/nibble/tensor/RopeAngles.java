// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import java.lang.foreign.MemorySegment;

/**
 * {@code nb_rope_angles}: cosines and sines of position times inverse frequency (RoPE, arXiv
 * 2104.09864), once a forward pass for all layers. Made by {@link Context#bindRopeAngles}.
 */
public final class RopeAngles extends Operation {
  private final SequenceBatch batch;
  private final Tensor angles;
  private final MemorySegment frequencies;
  private final MemorySegment struct;

  RopeAngles(Context context, Tensor inverseFrequencies, SequenceBatch batch, Tensor angles) {
    var operands = new Operands();
    Tensor.check("inverseFrequencies", inverseFrequencies, DataType.F32, -1);
    Tensor.check("angles", angles, DataType.F32, -1, 2 * inverseFrequencies.dim(0));
    this.batch = batch;
    this.angles = angles;
    this.frequencies = operands.add(inverseFrequencies);
    this.struct = operands.add(angles);
    operands.add(batch);
    super("the RoPE angles", context, operands);
  }

  /** Fills the first rows of angles for the tokens of the batch. */
  public void run() {
    checkRows(0, batch.rows(), angles.dim(0), "angles");
    begin();
    try {
      Descriptor.setRows(struct, batch.rows());
      Status.check(
          nibble_h.nb_rope_angles(handle, frequencies, batch.struct(), batch.size(), struct));
    } finally {
      end();
    }
  }
}
