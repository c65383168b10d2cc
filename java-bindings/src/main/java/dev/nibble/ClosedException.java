// SPDX-License-Identifier: Apache-2.0
package dev.nibble;

/** Use of a model, session, tensor, cache or context after it was closed. */
public class ClosedException extends NibbleException {
  private static final long serialVersionUID = 1L;

  /**
   * An exception with a message.
   *
   * @param message one line that names what was wrong
   */
  public ClosedException(String message) {
    super(message);
  }

  /**
   * An exception with a message and what led to it.
   *
   * @param message one line that names what was wrong
   * @param cause what led to it
   */
  public ClosedException(String message, Throwable cause) {
    super(message, cause);
  }
}
