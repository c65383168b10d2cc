// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.io.ForeignMatrix;
import java.util.ArrayList;
import java.util.function.Function;
import java.util.function.Supplier;

/**
 * Deals the rows of a matrix to threads in blocks of {@link ForeignMatrix#BLOCK}: a contiguous
 * share each, so that words of neighbouring rows are met in cache again.
 */
final class RowBlocks {

  /** What a thread does with a block of rows. */
  @FunctionalInterface
  interface Task {
    void run(int first, int count);
  }

  private final int threads;
  private final ForeignMatrix matrix;

  RowBlocks(int threads, ForeignMatrix matrix) {
    this.threads = threads;
    this.matrix = matrix;
  }

  /** Runs tasks, one made for each thread, over all rows; throws what the first of them threw. */
  void run(Function<ForeignMatrix.Rows, Task> task) {
    run(threads, matrix.rows(), () -> task.apply(matrix.newRows()));
  }

  /** The same for any rows. */
  static void run(int threads, int rows, Supplier<Task> task) {
    int blocks = Math.ceilDiv(rows, ForeignMatrix.BLOCK);
    int shares = Math.min(threads, blocks);
    var failures = new Throwable[shares];
    var workers = new ArrayList<Thread>();
    for (int i = 1; i < shares; i++) {
      int share = i;
      workers.add(Thread.ofPlatform().name("nibble-load-" + i).daemon()
          .start(() -> runShare(share, shares, blocks, rows, task, failures)));
    }
    runShare(0, shares, blocks, rows, task, failures);
    boolean interrupted = false;
    for (var worker : workers) {
      while (worker.isAlive()) {
        try {
          worker.join();
        } catch (InterruptedException e) {
          interrupted = true;
        }
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
    for (var failure : failures) {
      switch (failure) {
        case null -> { }
        case RuntimeException e -> throw e;
        case Error e -> throw e;
        default -> throw new AssertionError(failure);
      }
    }
  }

  private static void runShare(int share, int shares, int blocks, int rows, Supplier<Task> task,
      Throwable[] failures) {
    try {
      int from = (int) ((long) blocks * share / shares) * ForeignMatrix.BLOCK;
      int to = Math.min(rows, (int) ((long) blocks * (share + 1) / shares) * ForeignMatrix.BLOCK);
      var mine = task.get();
      for (int first = from; first < to; first += ForeignMatrix.BLOCK) {
        mine.run(first, Math.min(ForeignMatrix.BLOCK, to - first));
      }
    } catch (RuntimeException | Error e) {
      failures[share] = e;
    }
  }
}
