// SPDX-License-Identifier: Apache-2.0
package dev.nibble;

/** A defect in Nibble: please report it together with the message. */
public class InternalException extends NibbleException {
  private static final long serialVersionUID = 1L;

  /**
   * An exception with a message.
   *
   * @param message one line that names what was wrong
   */
  public InternalException(String message) {
    super(message);
  }

  /**
   * An exception with a message and what led to it.
   *
   * @param message one line that names what was wrong
   * @param cause what led to it
   */
  public InternalException(String message, Throwable cause) {
    super(message, cause);
  }
}
