// SPDX-License-Identifier: Apache-2.0
package dev.nibble;

/** The system did not give the native memory that an operation needed. */
public class NativeMemoryException extends NibbleException {
  private static final long serialVersionUID = 1L;

  /**
   * An exception with a message.
   *
   * @param message one line that names what was wrong
   */
  public NativeMemoryException(String message) {
    super(message);
  }

  /**
   * An exception with a message and what led to it.
   *
   * @param message one line that names what was wrong
   * @param cause what led to it
   */
  public NativeMemoryException(String message, Throwable cause) {
    super(message, cause);
  }
}
