// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import me.tongfei.progressbar.ConsoleProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/**
 * A progress bar on stderr, when that is a terminal; nothing otherwise. It appears only after
 * half a second, so that short work shows none and loads none of its classes.
 */
final class Progress implements AutoCloseable {

  private static final long DELAY_NANOS = 500_000_000;

  private final Streams streams;
  private final boolean enabled;
  private final String task;
  private final String unit;
  private final long unitSize;
  private final long begin = System.nanoTime();
  private ProgressBar bar;

  /**
   * @param enabled false for silence
   * @param unit what is counted, for example {@code " tokens"}
   * @param unitSize how many steps make one unit
   */
  Progress(Streams streams, boolean enabled, String task, String unit, long unitSize) {
    this.streams = streams;
    this.enabled = enabled && Terminal.isError();
    this.task = task;
    this.unit = unit;
    this.unitSize = unitSize;
  }

  /** Shows that {@code done} of {@code total} steps are behind. */
  void show(long done, long total) {
    if (!enabled) {
      return;
    }
    if (bar == null && System.nanoTime() - begin > DELAY_NANOS && done < total) {
      bar = new ProgressBarBuilder()
          .setTaskName(task)
          .setInitialMax(total)
          .setUnit(unit, unitSize)
          .setStyle(ProgressBarStyle.ASCII)
          .setUpdateIntervalMillis(100)
          .clearDisplayOnFinish()
          .setConsumer(new ConsoleProgressBarConsumer(streams.err(), 79))
          .build();
    }
    if (bar != null) {
      bar.maxHint(total);
      bar.stepTo(done);
    }
  }

  /** Takes the bar away. */
  @Override
  public void close() {
    if (bar != null) {
      bar.close();
    }
  }
}
