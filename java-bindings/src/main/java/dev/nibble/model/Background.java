// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;

/**
 * Something closeable that is made on a thread of its own while the caller does other work. Whoever
 * takes it owns it; what nobody took is closed. For one thread.
 */
final class Background<T extends AutoCloseable> implements AutoCloseable {
  private final FutureTask<T> task;
  private boolean taken;

  /** Starts at once. make may return null and throw unchecked exceptions. */
  Background(String name, Callable<T> make) {
    task = new FutureTask<>(make);
    Thread.ofPlatform().name("nibble-" + name).daemon().start(task);
  }

  /** Waits for it and hands it over; throws what making it threw. */
  T take() {
    taken = true;
    boolean interrupted = false;
    try {
      while (true) {
        try {
          return task.get();
        } catch (InterruptedException e) {
          interrupted = true;
        }
      }
    } catch (ExecutionException e) {
      switch (e.getCause()) {
        case RuntimeException cause -> throw cause;
        case Error cause -> throw cause;
        default -> throw new AssertionError(e.getCause());
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  /** Closes what was not taken, once it is made. */
  @Override
  public void close() {
    if (taken) {
      return;
    }
    try (var made = take()) {
      // Nobody wanted it.
    } catch (Exception e) {
      // Nobody will miss it either: the caller fails already, of its own cause.
    }
  }
}
