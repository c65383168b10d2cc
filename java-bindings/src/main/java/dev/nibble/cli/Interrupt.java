// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * Ctrl-C: asks the work to stop and gives it a moment to do so, so that the text ends with a line
 * feed and native memory is not in use when the JVM goes down.
 */
final class Interrupt implements AutoCloseable {

  private static final long GRACE_MILLIS = 2000;

  private final CountDownLatch finished = new CountDownLatch(1);
  private final Thread hook = new Thread(this::await, "nibble-interrupt");
  private volatile boolean requested;

  Interrupt() {
    Runtime.getRuntime().addShutdownHook(hook);
  }

  /** Whether the work should stop. */
  boolean requested() {
    return requested;
  }

  private void await() {
    requested = true;
    try {
      finished.await(GRACE_MILLIS, TimeUnit.MILLISECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** The work has ended. */
  @Override
  public void close() {
    finished.countDown();
    if (!requested) {
      try {
        Runtime.getRuntime().removeShutdownHook(hook);
      } catch (IllegalStateException e) {
        // Ctrl-C came just now; the hook finds the work done.
      }
    }
  }
}
