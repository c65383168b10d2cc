// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ModelFormatException;
import java.io.IOException;
import java.nio.channels.ClosedChannelException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;

/**
 * Words the exceptions of this package: one line with the file, the tensor, the field, the value
 * and what was expected. Text that comes from a file is shortened and stripped of control
 * characters, so that a hostile file cannot write to a terminal.
 */
final class Problem {

  private static final int MAX_QUOTED = 120;

  private Problem() {}

  /** {@code FILE: MESSAGE}. */
  static ModelFormatException in(String file, String message) {
    return new ModelFormatException(file + ": " + message);
  }

  /** {@code FILE: tensor "NAME": MESSAGE}. */
  static ModelFormatException inTensor(String file, String tensor, String message) {
    return in(file, "tensor " + quote(tensor) + ": " + message);
  }

  /** A file that cannot be opened or read. */
  static ModelFormatException reading(String file, IOException cause) {
    return new ModelFormatException(file + ": cannot be read: " + reason(cause), cause);
  }

  /** The system's reason, in words. */
  static String reason(IOException cause) {
    return switch (cause) {
      case NoSuchFileException e -> "no such file";
      case AccessDeniedException e -> "permission denied";
      case FileAlreadyExistsException e -> "already exists";
      case ClosedChannelException e -> "it was closed meanwhile";
      case FileSystemException e when e.getReason() != null -> printable(e.getReason());
      default -> printable(String.valueOf(cause.getMessage()));
    };
  }

  /** A value from a JSON tree, as JSON would write it, shortened. */
  static String show(Object value) {
    return value instanceof String text ? quote(text) : printable(String.valueOf(value));
  }

  /** The text in double quotes, shortened, without control characters. */
  static String quote(String text) {
    return '"' + printable(text) + '"';
  }

  /** The text shortened and without control characters. */
  static String printable(String text) {
    var shown = new StringBuilder();
    for (int i = 0; i < text.length(); i++) {
      if (shown.length() >= MAX_QUOTED) {
        return shown.append("...").toString();
      }
      char c = text.charAt(i);
      int type = Character.getType(c);
      boolean hidden = type == Character.CONTROL || type == Character.FORMAT
          || type == Character.LINE_SEPARATOR || type == Character.PARAGRAPH_SEPARATOR;
      shown.append(c == '\n' ? ' ' : hidden ? '?' : c);
    }
    return shown.toString();
  }
}
