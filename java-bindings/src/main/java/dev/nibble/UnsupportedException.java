// SPDX-License-Identifier: Apache-2.0
package dev.nibble;

/**
 * Legal, but there is no kernel, device or implementation for it here; the message says what there
 * is.
 */
public class UnsupportedException extends NibbleException {
  private static final long serialVersionUID = 1L;

  /**
   * An exception with a message.
   *
   * @param message one line that names what was wrong
   */
  public UnsupportedException(String message) {
    super(message);
  }

  /**
   * An exception with a message and what led to it.
   *
   * @param message one line that names what was wrong
   * @param cause what led to it
   */
  public UnsupportedException(String message, Throwable cause) {
    super(message, cause);
  }
}
