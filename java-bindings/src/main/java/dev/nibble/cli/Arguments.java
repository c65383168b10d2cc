// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;

/** The command line's arguments as the user typed them, in UTF-8. */
final class Arguments {

  private Arguments() {}

  /**
   * The JVM decodes arguments in the locale's encoding, and in the C locale of a container or a
   * cron job anything beyond ASCII is lost; Linux still has the bytes.
   */
  static String[] decode(String[] args) {
    if ("UTF-8".equals(System.getProperty("sun.jnu.encoding"))) {
      return args;
    }
    try {
      var bytes = Files.readAllBytes(Path.of("/proc/self/cmdline"));
      var all = new String(bytes, StandardCharsets.UTF_8).split("\0", -1);
      // Each argument ends with a zero byte, so the last part is empty.
      int end = all.length - 1;
      return end < args.length ? args : Arrays.copyOfRange(all, end - args.length, end);
    } catch (IOException e) {
      return args;
    }
  }
}
