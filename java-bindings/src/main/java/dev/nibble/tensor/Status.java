// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.DeviceException;
import dev.nibble.InternalException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.NativeMemoryException;
import dev.nibble.NibbleException;
import dev.nibble.UnsupportedException;
import dev.nibble.ffi.nibble_h;
import java.lang.foreign.Arena;

/**
 * Turns {@code nb_status} into typed exceptions that carry the native message.
 *
 * <p>The message belongs to the operating system's thread. A virtual thread may change its carrier
 * only where it blocks, so {@link #check} reads the message straight after the failed call with
 * nothing in between that could block: {@link #warmUp} has loaded and linked every class on the
 * way beforehand, by provoking one failure. Platform threads need no such care.
 */
final class Status {
  private Status() {}

  /** Does nothing for {@code NB_OK}, else throws what the status stands for. */
  static void check(int status) {
    if (status != 0) {
      throw failure(status, nibble_h.nb_last_error().getString(0));
    }
  }

  /** Loads and links the path of a failing call. Called once, after the library is loaded. */
  static void warmUp() {
    try (var arena = Arena.ofConfined()) {
      check(nibble_h.nb_device_status(arena.allocateFrom("none")));
    } catch (NibbleException expected) {
      // The failure was the purpose.
    }
  }

  private static NibbleException failure(int status, String message) {
    return switch (status) {
      case 1 -> new InvalidArgumentException(message);
      case 2 -> new UnsupportedException(message);
      case 3 -> new NativeMemoryException(message);
      case 4 -> new DeviceException(message);
      default -> new InternalException(
          status == 5 ? message : "native call returned unknown status " + status + ": " + message);
    };
  }
}
