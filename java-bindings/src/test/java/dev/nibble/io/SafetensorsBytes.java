// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/** Makes safetensors files byte by byte, so that tests can make wrong ones. */
final class SafetensorsBytes {

  private SafetensorsBytes() {}

  /** A header of that text, with its true length, then {@code dataBytes} bytes 0, 1, 2, ... */
  static byte[] file(String header, int dataBytes) {
    return file(header.getBytes(StandardCharsets.UTF_8), dataBytes);
  }

  static byte[] file(byte[] header, int dataBytes) {
    return file(header.length, header, dataBytes);
  }

  /** The same with a length of the caller's choice. */
  static byte[] file(long headerLength, byte[] header, int dataBytes) {
    var buffer = ByteBuffer.allocate(8 + header.length + dataBytes).order(ByteOrder.LITTLE_ENDIAN);
    buffer.putLong(headerLength).put(header);
    for (int i = 0; i < dataBytes; i++) {
      buffer.put((byte) i);
    }
    return buffer.array();
  }

  /** An entry of a header. */
  static String entry(String name, String dtype, String shape, String offsets) {
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape
        + ",\"data_offsets\":" + offsets + "}";
  }

  /** A valid file: "a" F32 [2, 3], "b" U8 [4], "empty" I64 [0, 5], and metadata. */
  static byte[] valid() {
    return file("{\"__metadata__\":{\"format\":\"pt\"}," + entry("a", "F32", "[2,3]", "[0,24]")
        + "," + entry("b", "U8", "[4]", "[24,28]") + ","
        + entry("empty", "I64", "[0,5]", "[28,28]") + "}   ", 28);
  }

  static Path write(Path file, byte[] bytes) {
    try {
      return Files.write(file, bytes);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
