// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ModelFormatException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;

/**
 * Reads the header of a GGUF file from front to back through a window of fixed size, so that what
 * is skipped is never in memory. Little-endian. For one thread.
 */
final class GgufCursor {
  /** The longest text: chat templates have some 10 KB. */
  static final int MAX_TEXT = 4 << 20;

  private static final int WINDOW = 1 << 16;

  private final ByteSource source;
  private final byte[] bytes;
  private final ByteBuffer window;
  private long windowStart;

  GgufCursor(ByteSource source) {
    this.source = source;
    bytes = new byte[(int) Math.min(WINDOW, source.size())];
    window = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
    window.limit(0);
  }

  long position() {
    return windowStart + window.position();
  }

  long remaining() {
    return source.size() - position();
  }

  /** Moves on, by at most the rest of the file. */
  void skip(long count, String what) {
    require(count, what);
    seek(position() + count);
  }

  /** Moves to a position inside the file. */
  void seek(long position) {
    if (position >= windowStart && position <= windowStart + window.limit()) {
      window.position((int) (position - windowStart));
    } else {
      windowStart = position;
      window.limit(0);
    }
  }

  int u8(String what) {
    return need(1, what).get() & 0xFF;
  }

  short i16(String what) {
    return need(2, what).getShort();
  }

  int i32(String what) {
    return need(4, what).getInt();
  }

  long i64(String what) {
    return need(8, what).getLong();
  }

  /** A count of things of at least minimum bytes each, which must fit into the rest of the file. */
  long count(long minimum, String what) {
    long count = i64(what);
    if (count < 0 || count > remaining() / minimum) {
      throw problem(what + ": count or length " + Long.toUnsignedString(count) + ", but only "
          + remaining() + " bytes follow in the file");
    }
    return count;
  }

  /** A text: its length in 8 bytes, then UTF-8. */
  String text(String what) {
    return new String(textBytes(what), StandardCharsets.UTF_8);
  }

  /** A text that must be well-formed UTF-8. */
  String strictText(String what) {
    try {
      return StandardCharsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT)
          .decode(ByteBuffer.wrap(textBytes(what))).toString();
    } catch (CharacterCodingException e) {
      throw problem(what + " is not UTF-8");
    }
  }

  private byte[] textBytes(String what) {
    long length = count(1, what);
    if (length > MAX_TEXT) {
      throw problem(what + " has " + length + " bytes, expected at most " + MAX_TEXT);
    }
    var result = new byte[(int) length];
    int copied = Math.min(result.length, window.remaining());
    window.get(result, 0, copied);
    if (copied < result.length) {
      long at = position();
      source.read(at, MemorySegment.ofArray(result).asSlice(copied));
      seek(at + result.length - copied);
    }
    return result;
  }

  /** Passes over a text. */
  void skipText(String what) {
    skip(count(1, what), what);
  }

  ModelFormatException problem(String message) {
    return Problem.in(source.name(), message);
  }

  private void require(long count, String what) {
    if (count < 0 || count > remaining()) {
      throw problem(what + ": the file ends at byte " + source.size() + ", expected "
          + Long.toUnsignedString(count) + " bytes from byte " + position() + " on (truncated?)");
    }
  }

  private ByteBuffer need(int count, String what) {
    if (window.remaining() < count) {
      require(count, what);
      windowStart = position();
      int length = (int) Math.min(bytes.length, source.size() - windowStart);
      source.read(windowStart, MemorySegment.ofArray(bytes).asSlice(0, length));
      window.position(0).limit(length);
    }
    return window;
  }
}
