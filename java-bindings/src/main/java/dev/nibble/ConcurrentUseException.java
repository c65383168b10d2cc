// SPDX-License-Identifier: Apache-2.0
package dev.nibble;

/**
 * Two threads used an object that serves one thread at a time, such as a session, or an object was
 * closed from inside its own callback. Nothing was changed; the first user goes on undisturbed.
 */
public class ConcurrentUseException extends NibbleException {
  private static final long serialVersionUID = 1L;

  /**
   * An exception with a message.
   *
   * @param message one line that names what was wrong
   */
  public ConcurrentUseException(String message) {
    super(message);
  }

  /**
   * An exception with a message and what led to it.
   *
   * @param message one line that names what was wrong
   * @param cause what led to it
   */
  public ConcurrentUseException(String message, Throwable cause) {
    super(message, cause);
  }
}
