// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

/**
 * A sampler that a device can stand in for: {@link #choose} gives the token that the library's
 * {@code nb_penalize} and {@code nb_sample} give for {@link #settings}. On a GPU the logits then
 * need not come to Java; the device chooses, and feeds its choice to the next step.
 */
public interface DeviceSampler extends TokenSampler {
  /** The settings, which do not change. */
  SampleSettings settings();

  /**
   * The random number of the next choice, at least 0 and below 1. Asked for once a choice, where
   * the temperature is not 0, in place of {@link #choose}.
   */
  double nextUniform();

  /**
   * Writes the recent tokens, each once, in any order.
   *
   * @param tokens room for {@code settings().repeatWindow()}
   * @return their number
   */
  int recent(int[] tokens);
}
