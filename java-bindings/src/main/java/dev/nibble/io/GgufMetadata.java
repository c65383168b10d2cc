// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.BiConsumer;

/**
 * The key/value pairs at the front of a GGUF file. Numbers, flags and texts are in memory; of an
 * array only where it lies, until someone asks for its elements. Immutable.
 */
final class GgufMetadata {
  /** Where an array lies. */
  record Array(int type, long count, long offset) {}

  private static final int MAX_KEYS = 1 << 16;
  /** The shortest pair: an empty key, a type and one byte. */
  private static final int MIN_PAIR = 8 + 4 + 1;

  private static final int BOOL = 7;
  private static final int STRING = 8;
  private static final int ARRAY = 9;
  /** Bytes of a value by type; 0 for those without a fixed size. */
  private static final int[] SIZES = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

  private final ByteSource source;
  private final Map<String, Object> values = new LinkedHashMap<>();

  private GgufMetadata(ByteSource source) {
    this.source = source;
  }

  /** Reads count pairs. */
  static GgufMetadata read(GgufCursor in, ByteSource source, long count) {
    if (count > MAX_KEYS || count > in.remaining() / MIN_PAIR) {
      throw in.problem("metadata_kv_count is " + count + ", expected at most "
          + Math.min(MAX_KEYS, in.remaining() / MIN_PAIR));
    }
    var metadata = new GgufMetadata(source);
    for (long i = 0; i < count; i++) {
      var key = in.strictText("a metadata key");
      var value = metadata.value(in, in.i32("a metadata value's type"), Problem.printable(key));
      if (metadata.values.put(key, value) != null) {
        throw in.problem("metadata key " + Problem.quote(key) + " is there twice");
      }
    }
    return metadata;
  }

  private Object value(GgufCursor in, int type, String what) {
    return switch (type) {
      case 0 -> (long) in.u8(what);
      case 1 -> (long) (byte) in.u8(what);
      case 2 -> (long) (in.i16(what) & 0xFFFF);
      case 3 -> (long) in.i16(what);
      case 4 -> in.i32(what) & 0xFFFFFFFFL;
      case 5 -> (long) in.i32(what);
      case 6 -> (double) Float.intBitsToFloat(in.i32(what));
      case BOOL -> in.u8(what) != 0;
      case STRING -> in.text(what);
      case ARRAY -> array(in, what);
      case 10, 11 -> in.i64(what);
      case 12 -> Double.longBitsToDouble(in.i64(what));
      default -> throw in.problem(what + ": value type " + type + ", expected 0 to 12");
    };
  }

  private Array array(GgufCursor in, String what) {
    int type = in.i32(what);
    if (type < 0 || type >= SIZES.length || type == ARRAY) {
      throw in.problem(what + ": element type " + type + ", expected 0 to 12, but not " + ARRAY
          + ", an array");
    }
    int size = type == STRING ? 8 : SIZES[type];
    long count = in.count(size, what);
    var array = new Array(type, count, in.position());
    if (type == STRING) {
      for (long i = 0; i < count; i++) {
        in.skipText(what);
      }
    } else {
      in.skip(count * size, what);
    }
    return array;
  }

  boolean has(String key) {
    return values.containsKey(key);
  }

  /** A text, or fallback where there is none. */
  String text(String key, String fallback) {
    var value = values.get(key);
    if (value == null) {
      return fallback;
    }
    if (value instanceof String text) {
      return text;
    }
    throw unexpected(key, "a text");
  }

  /** An integer that fits into 31 bits and is not negative; fallback null: it must be there. */
  int integer(String key, Integer fallback) {
    var value = values.get(key);
    if (value == null && fallback != null) {
      return fallback;
    }
    if (value instanceof Long number && number >= 0 && number <= Integer.MAX_VALUE) {
      return number.intValue();
    }
    throw unexpected(key, "an integer from 0 to " + Integer.MAX_VALUE);
  }

  /**
   * An integer of the model: a number, or an array that has the same number for every layer.
   *
   * @param fallback null: it must be there
   */
  int layered(String key, Integer fallback) {
    if (!(values.get(key) instanceof Array array)) {
      return integer(key, fallback);
    }
    boolean integers = array.type() == 4 || array.type() == 5;
    if (!integers || array.count() < 1) {
      throw unexpected(key, "an integer, or an array of 32-bit integers");
    }
    var in = at(array);
    int first = in.i32(key);
    for (long i = 1; i < array.count(); i++) {
      if (in.i32(key) != first) {
        throw new UnsupportedException(source.name() + ": " + key
            + " differs between layers, which Nibble does not run");
      }
    }
    return first;
  }

  /** A number; fallback null: it must be there. */
  double number(String key, Double fallback) {
    var value = values.get(key);
    if (value == null && fallback != null) {
      return fallback;
    }
    if (value instanceof Number number && Double.isFinite(number.doubleValue())) {
      return number.doubleValue();
    }
    throw unexpected(key, "a finite number");
  }

  boolean flag(String key, boolean fallback) {
    var value = values.get(key);
    if (value == null) {
      return fallback;
    }
    if (value instanceof Boolean flag) {
      return flag;
    }
    throw unexpected(key, "true or false");
  }

  /** Elements of an array; -1 where there is none. */
  long count(String key) {
    var value = values.get(key);
    if (value == null) {
      return -1;
    }
    if (value instanceof Array array) {
      return array.count();
    }
    throw unexpected(key, "an array");
  }

  /** Hands out the texts of an array with their indices. */
  void texts(String key, BiConsumer<Integer, String> each) {
    var array = array(key, STRING, "an array of texts");
    var in = at(array);
    for (int i = 0; i < array.count(); i++) {
      each.accept(i, in.strictText(key));
    }
  }

  /** The elements of an array of 32-bit floats, or null where there is none. */
  float[] floats(String key) {
    if (!has(key)) {
      return null;
    }
    var array = array(key, 6, "an array of 32-bit floats");
    var in = at(array);
    var result = new float[(int) array.count()];
    for (int i = 0; i < result.length; i++) {
      result[i] = Float.intBitsToFloat(in.i32(key));
      if (!Float.isFinite(result[i])) {
        throw in.problem(key + "[" + i + "] is " + result[i] + ", expected a finite number");
      }
    }
    return result;
  }

  /** The elements of an array of 32-bit integers, or null where there is none. */
  int[] integers(String key) {
    if (!has(key)) {
      return null;
    }
    var value = values.get(key);
    if (!(value instanceof Array array) || array.type() != 4 && array.type() != 5) {
      throw unexpected(key, "an array of 32-bit integers");
    }
    requireShort(key, array);
    var in = at(array);
    var result = new int[(int) array.count()];
    for (int i = 0; i < result.length; i++) {
      result[i] = in.i32(key);
    }
    return result;
  }

  private Array array(String key, int type, String expected) {
    if (!(values.get(key) instanceof Array array) || array.type() != type) {
      throw unexpected(key, expected);
    }
    requireShort(key, array);
    return array;
  }

  private void requireShort(String key, Array array) {
    if (array.count() > GgufTokenizer.MAX_TOKENS) {
      throw Problem.in(source.name(), key + " has " + array.count()
          + " elements, expected at most " + GgufTokenizer.MAX_TOKENS);
    }
  }

  private GgufCursor at(Array array) {
    var in = new GgufCursor(source);
    in.seek(array.offset());
    return in;
  }

  ModelFormatException unexpected(String key, String expected) {
    var value = values.get(key);
    return Problem.in(source.name(), key + " is " + (value == null ? "missing"
        : value instanceof Array ? "an array" : Problem.show(value)) + ", expected " + expected);
  }
}
