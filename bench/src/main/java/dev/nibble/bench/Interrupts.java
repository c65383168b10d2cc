// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.InternalException;

/** What a thread does that is interrupted while it waits for a process. */
final class Interrupts {

  private Interrupts() {}

  static InternalException stop(InterruptedException e) {
    Thread.currentThread().interrupt();
    return new InternalException("interrupted", e);
  }
}
