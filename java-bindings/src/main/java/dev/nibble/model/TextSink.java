// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

/** Receives text as it is generated. */
@FunctionalInterface
public interface TextSink {
  /**
   * Receives the next piece, which never ends inside a character.
   *
   * @return whether to go on
   */
  boolean accept(String text);
}
