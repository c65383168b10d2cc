// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import java.io.ByteArrayOutputStream;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.nio.file.FileSystems;
import java.nio.file.Path;

/** File names for native code. */
final class NativePath {
  private NativePath() {}

  /**
   * The bytes of the path as the system knows them, with a zero byte. A path's text is decoded in
   * the locale's encoding, which loses what is not ASCII in the C locale; its URI has the bytes.
   */
  static MemorySegment of(SegmentAllocator allocator, Path file) {
    if (file.getFileSystem() != FileSystems.getDefault()) {
      throw new InvalidArgumentException(
          "file: " + file + " given, expected a path of the default file system");
    }
    var escaped = file.toAbsolutePath().toUri().getRawPath();
    var bytes = new ByteArrayOutputStream(escaped.length() + 1);
    for (int i = 0; i < escaped.length(); i++) {
      char c = escaped.charAt(i);
      if (c == '%') {
        bytes.write(Integer.parseInt(escaped, i + 1, i + 3, 16));
        i += 2;
      } else {
        bytes.write(c);
      }
    }
    bytes.write(0);
    return allocator.allocateFrom(ValueLayout.JAVA_BYTE, bytes.toByteArray());
  }
}
