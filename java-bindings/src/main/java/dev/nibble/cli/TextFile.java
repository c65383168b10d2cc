// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.InvalidArgumentException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/** Texts that commands read. */
final class TextFile {
  private static final long MAX_BYTES = 256L << 20;

  private TextFile() {}

  /**
   * A file's text.
   *
   * @throws InvalidArgumentException naming the file, if it is missing, too large or not UTF-8
   */
  static String read(Path file) {
    try {
      if (!Files.isRegularFile(file)) {
        throw new InvalidArgumentException(file
            + (Files.exists(file) ? ": not a regular file, expected a text" : ": no such file"));
      }
      if (Files.size(file) > MAX_BYTES) {
        throw new InvalidArgumentException(
            file + ": " + Files.size(file) + " bytes, expected at most " + MAX_BYTES);
      }
      return StandardCharsets.UTF_8.newDecoder()
          .decode(ByteBuffer.wrap(Files.readAllBytes(file))).toString();
    } catch (CharacterCodingException e) {
      throw new InvalidArgumentException(file + ": not UTF-8 text", e);
    } catch (IOException e) {
      throw new InvalidArgumentException(file + ": cannot be read: " + e.getMessage(), e);
    }
  }

  /** A text that travels in the jar. */
  static String resource(String name) {
    try (var in = TextFile.class.getResourceAsStream(name)) {
      return new String(in.readAllBytes(), StandardCharsets.UTF_8);
    } catch (IOException e) {
      throw new AssertionError(name, e);
    }
  }
}
