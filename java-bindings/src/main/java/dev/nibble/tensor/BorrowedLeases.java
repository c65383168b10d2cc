// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.ClosedException;
import dev.nibble.ConcurrentUseException;
import java.lang.foreign.MemorySegment;

/**
 * Leases on memory that somebody else owns: each use first checks that it is alive and that this
 * thread may touch it. A confined arena cannot be closed under a call, since only the calling
 * thread may close it; an automatic one is kept alive by the reference held here.
 */
final class BorrowedLeases extends Leases {
  private final MemorySegment segment;

  BorrowedLeases(MemorySegment segment) {
    super("the tensor");
    this.segment = segment;
  }

  @Override
  public void acquire() {
    check();
    super.acquire();
  }

  @Override
  public void acquireExclusive() {
    check();
    super.acquireExclusive();
  }

  private void check() {
    if (!segment.scope().isAlive()) {
      throw new ClosedException("the tensor's borrowed memory was closed by its owner");
    }
    if (!segment.isAccessibleBy(Thread.currentThread())) {
      throw new ConcurrentUseException(
          "the tensor's borrowed memory is confined to another thread");
    }
  }
}
