// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import java.lang.foreign.MemorySegment;

/**
 * {@code nb_penalize}: the repeat penalty (CTRL, arXiv 1909.05858) on one row of logits. Made by
 * {@link Context#bindPenalize}.
 */
public final class Penalize extends Operation {
  private final MemorySegment logits;
  private final MemorySegment tokens;
  private final float penalty;

  Penalize(Context context, Tensor logits, Tensor tokens, float penalty) {
    var operands = new Operands();
    if (logits.type() != DataType.F32 || logits.dim(logits.rank() - 1) != logits.size()) {
      throw new InvalidArgumentException("logits: " + logits + " given, expected one row of F32");
    }
    Tensor.check("tokens", tokens, DataType.I32, -1);
    operands.add(logits);
    this.logits = Descriptor.of(
        operands.arena, logits.type().nativeId(), logits.data(), logits.size());
    this.tokens = operands.add(tokens);
    this.penalty = penalty;
    super("the repeat penalty", context, operands);
  }

  /** Changes the logits. */
  public void run() {
    begin();
    try {
      Status.check(nibble_h.nb_penalize(handle, logits, tokens, penalty));
    } finally {
      end();
    }
  }
}
