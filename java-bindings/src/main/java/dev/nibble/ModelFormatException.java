// SPDX-License-Identifier: Apache-2.0
package dev.nibble;

/**
 * A model file is missing, damaged, hostile or of a kind that Nibble does not read. The message
 * starts with the file and names the tensor or field, the value found and what was expected.
 */
public class ModelFormatException extends NibbleException {
  private static final long serialVersionUID = 1L;

  /**
   * An exception with a message.
   *
   * @param message one line that names what was wrong
   */
  public ModelFormatException(String message) {
    super(message);
  }

  /**
   * An exception with a message and what led to it.
   *
   * @param message one line that names what was wrong
   * @param cause what led to it
   */
  public ModelFormatException(String message, Throwable cause) {
    super(message, cause);
  }
}
