// SPDX-License-Identifier: Apache-2.0
package dev.nibble;

/**
 * The base of every exception that Nibble throws on purpose. The message is one line that names
 * the argument or file, what was found and what was expected, fit to show to a user as it is.
 */
public class NibbleException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /**
   * An exception with a message.
   *
   * @param message one line that names what was wrong
   */
  public NibbleException(String message) {
    super(message);
  }

  /**
   * An exception with a message and what led to it.
   *
   * @param message one line that names what was wrong
   * @param cause what led to it
   */
  public NibbleException(String message, Throwable cause) {
    super(message, cause);
  }
}
