// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import java.lang.foreign.MemorySegment;

/** Receives the logits of each token of a forward pass. */
@FunctionalInterface
public interface LogitsVisitor {
  /**
   * Receives one row.
   *
   * @param index which of the tokens passed to the forward pass, from 0
   * @param logits F32 [vocabulary]; valid during the call only
   */
  void visit(int index, MemorySegment logits);
}
