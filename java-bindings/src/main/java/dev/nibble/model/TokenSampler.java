// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import java.lang.foreign.MemorySegment;

/** Chooses tokens. {@code dev.nibble.generate.Sampler} is the one that Nibble brings. */
public interface TokenSampler {
  /**
   * Hears a token of the text, of the prompt or just chosen, in order.
   *
   * @param token its id
   */
  void observe(int token);

  /**
   * Chooses the next token.
   *
   * @param logits F32 [vocabulary], not changed; valid during the call only
   * @return its id
   */
  int choose(MemorySegment logits);
}
