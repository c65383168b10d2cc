// SPDX-License-Identifier: Apache-2.0
package dev.nibble;

/** The caller passed something illegal: the message names the argument, its value and the limit. */
public class InvalidArgumentException extends NibbleException {
  private static final long serialVersionUID = 1L;

  /**
   * An exception with a message.
   *
   * @param message one line that names what was wrong
   */
  public InvalidArgumentException(String message) {
    super(message);
  }

  /**
   * An exception with a message and what led to it.
   *
   * @param message one line that names what was wrong
   * @param cause what led to it
   */
  public InvalidArgumentException(String message, Throwable cause) {
    super(message, cause);
  }
}
