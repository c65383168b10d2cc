// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import java.io.IOException;
import java.net.URISyntaxException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/** The files of the test resources. */
final class TestFiles {

  private TestFiles() {}

  static Path resource(String name) {
    try {
      return Path.of(TestFiles.class.getResource("/" + name).toURI());
    } catch (URISyntaxException e) {
      throw new AssertionError(e);
    }
  }

  static String text(String name) {
    try {
      return Files.readString(resource(name), StandardCharsets.UTF_8);
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  /** Results as a smoke run of the native benchmark wrote them, of tiny-shapes.txt. */
  static NativeResults nativeResults() {
    return NativeResults.parse(
        text("native-results.json").getBytes(StandardCharsets.UTF_8), "native-results.json");
  }

  /** An executable script. */
  static Path script(Path directory, String name, String body) throws IOException {
    var file = Files.writeString(directory.resolve(name), "#!/bin/sh\n" + body + "\n");
    if (!file.toFile().setExecutable(true)) {
      throw new IOException(file + " cannot be made executable");
    }
    return file;
  }
}
