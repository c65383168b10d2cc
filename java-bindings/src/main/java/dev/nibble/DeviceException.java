// SPDX-License-Identifier: Apache-2.0
package dev.nibble;

/** A device (a GPU, for example) failed during an operation. */
public class DeviceException extends NibbleException {
  private static final long serialVersionUID = 1L;

  /**
   * An exception with a message.
   *
   * @param message one line that names what was wrong
   */
  public DeviceException(String message) {
    super(message);
  }

  /**
   * An exception with a message and what led to it.
   *
   * @param message one line that names what was wrong
   * @param cause what led to it
   */
  public DeviceException(String message, Throwable cause) {
    super(message, cause);
  }
}
