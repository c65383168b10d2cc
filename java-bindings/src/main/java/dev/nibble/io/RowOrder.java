// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.lang.foreign.MemorySegment;

/**
 * Reads the rows of a tensor that are in the order of rotary embeddings by neighbours into the
 * order of rotary embeddings by halves: within each head of D rows, row 2 j + p of the file becomes
 * row p D / 2 + j (j below D / 2, p 0 or 1).
 */
final class RowOrder {

  private RowOrder() {}

  /**
   * Fills destination.
   *
   * @param position where the first row begins
   * @param headRows D, even; the rows of destination are a multiple of it
   */
  static void read(ByteSource source, long position, int headRows, long rowBytes,
      MemorySegment destination) {
    var head = MemorySegment.ofArray(new byte[Math.toIntExact(headRows * rowBytes)]);
    for (long at = 0; at < destination.byteSize(); at += head.byteSize()) {
      source.read(position + at, head);
      for (int row = 0; row < headRows; row++) {
        long to = (row % 2) * (headRows / 2L) + row / 2;
        MemorySegment.copy(head, row * rowBytes, destination, at + to * rowBytes, rowBytes);
      }
    }
  }
}
