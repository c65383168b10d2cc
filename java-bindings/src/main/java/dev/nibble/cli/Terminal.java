// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Whether the process's standard streams are a terminal. */
final class Terminal {

  private Terminal() {}

  /** Standard input. */
  static boolean isInput() {
    return isTerminal(0);
  }

  /** Standard output. */
  static boolean isOutput() {
    return isTerminal(1);
  }

  /** Standard error. */
  static boolean isError() {
    return isTerminal(2);
  }

  /** Reads a link of /proc: System.console() would load a terminal library first. */
  private static boolean isTerminal(int descriptor) {
    try {
      var target = Files.readSymbolicLink(Path.of("/proc/self/fd/" + descriptor)).toString();
      return target.startsWith("/dev/pts/") || target.startsWith("/dev/tty")
          || target.equals("/dev/console");
    } catch (IOException | UnsupportedOperationException e) {
      return false;
    }
  }
}
