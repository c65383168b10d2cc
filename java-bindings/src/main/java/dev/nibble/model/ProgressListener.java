// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

/** Hears how far a long operation is. Called on the thread that runs the operation. */
@FunctionalInterface
public interface ProgressListener {
  /** Hears nothing. */
  ProgressListener NONE = (what, done, total) -> {};

  /**
   * Called before each step and once at the end, when done equals total.
   *
   * @param what the step about to start, for people; empty at the end
   * @param done how much is behind, in the unit of the operation (bytes, tokens)
   * @param total how much there is
   */
  void progress(String what, long done, long total);
}
