// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Writes GGUF files, from the specification and sharing nothing with the library. Wrong ones too:
 * what is put is written as it stands.
 */
public final class GgufBytes {
  /** Numbers of tensor types. */
  public static final int F32 = 0;
  public static final int F16 = 1;
  public static final int Q4_0 = 2;
  public static final int Q4_1 = 3;
  public static final int Q5_0 = 6;
  public static final int Q5_1 = 7;
  public static final int Q8_0 = 8;
  public static final int Q4_K = 12;
  public static final int Q5_K = 13;
  public static final int Q6_K = 14;
  public static final int BF16 = 30;

  private record Tensor(String name, int type, long[] shape, byte[] data, Long offset) {}

  private final Map<String, byte[]> pairs = new LinkedHashMap<>();
  private final List<Tensor> tensors = new ArrayList<>();
  private final int version;
  private int alignment = 32;

  /** A file of version 3. */
  public GgufBytes() {
    this(3);
  }

  public GgufBytes(int version) {
    this.version = version;
  }

  private static ByteBuffer buffer(int bytes) {
    return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
  }

  static byte[] text(String text) {
    var bytes = text.getBytes(StandardCharsets.UTF_8);
    return buffer(8 + bytes.length).putLong(bytes.length).put(bytes).array();
  }

  private GgufBytes pair(String key, int type, byte[] value) {
    pairs.put(key, buffer(4 + value.length).putInt(type).put(value).array());
    return this;
  }

  /** The bytes of a value with its type, whatever they are. */
  public GgufBytes raw(String key, byte[] value) {
    pairs.put(key, value);
    return this;
  }

  public GgufBytes u32(String key, long value) {
    return pair(key, 4, buffer(4).putInt((int) value).array());
  }

  public GgufBytes f32(String key, float value) {
    return pair(key, 6, buffer(4).putFloat(value).array());
  }

  public GgufBytes f64(String key, double value) {
    return pair(key, 12, buffer(8).putDouble(value).array());
  }

  public GgufBytes u16(String key, int value) {
    return pair(key, 2, buffer(2).putShort((short) value).array());
  }

  public GgufBytes u64(String key, long value) {
    return pair(key, 10, buffer(8).putLong(value).array());
  }

  public GgufBytes bool(String key, boolean value) {
    return pair(key, 7, new byte[] {(byte) (value ? 1 : 0)});
  }

  public GgufBytes string(String key, String value) {
    return pair(key, 8, text(value));
  }

  public GgufBytes strings(String key, List<String> values) {
    var out = new ByteArrayOutputStream();
    out.writeBytes(buffer(12).putInt(8).putLong(values.size()).array());
    values.forEach(value -> out.writeBytes(text(value)));
    return pair(key, 9, out.toByteArray());
  }

  public GgufBytes floats(String key, float... values) {
    var out = buffer(12 + 4 * values.length).putInt(6).putLong(values.length);
    for (float value : values) {
      out.putFloat(value);
    }
    return pair(key, 9, out.array());
  }

  public GgufBytes ints(String key, int... values) {
    var out = buffer(12 + 4 * values.length).putInt(5).putLong(values.length);
    for (int value : values) {
      out.putInt(value);
    }
    return pair(key, 9, out.array());
  }

  public GgufBytes remove(String key) {
    pairs.remove(key);
    return this;
  }

  public GgufBytes alignment(int bytes) {
    alignment = bytes;
    return u32("general.alignment", bytes);
  }

  /** shape: outermost first. */
  public GgufBytes tensor(String name, int type, byte[] data, long... shape) {
    tensors.add(new Tensor(name, type, shape, data, null));
    return this;
  }

  /** The same with an offset of the caller's choice. */
  public GgufBytes tensorAt(long offset, String name, int type, byte[] data, long... shape) {
    tensors.add(new Tensor(name, type, shape, data, offset));
    return this;
  }

  public GgufBytes removeTensor(String name) {
    tensors.removeIf(tensor -> tensor.name.equals(name));
    return this;
  }

  /** The file. */
  public byte[] bytes() {
    var out = new ByteArrayOutputStream();
    out.writeBytes("GGUF".getBytes(StandardCharsets.US_ASCII));
    out.writeBytes(buffer(20).putInt(version).putLong(tensors.size()).putLong(pairs.size())
        .array());
    pairs.forEach((key, value) -> {
      out.writeBytes(text(key));
      out.writeBytes(value);
    });
    long offset = 0;
    for (var tensor : tensors) {
      out.writeBytes(text(tensor.name));
      var entry = buffer(4 + 8 * tensor.shape.length + 12).putInt(tensor.shape.length);
      for (int i = tensor.shape.length - 1; i >= 0; i--) {
        entry.putLong(tensor.shape[i]);
      }
      entry.putInt(tensor.type).putLong(tensor.offset == null ? offset : tensor.offset);
      out.writeBytes(entry.array());
      offset += (tensor.data.length + alignment - 1) / alignment * alignment;
    }
    for (var tensor : tensors) {
      out.writeBytes(new byte[(alignment - out.size() % alignment) % alignment]);
      out.writeBytes(tensor.data);
    }
    return out.toByteArray();
  }

  /** Rows of one head of headDim, in the order of rotation by neighbours. */
  public static byte[] permuted(byte[] data, int rows, int headDim) {
    int rowBytes = data.length / rows;
    var result = new byte[data.length];
    for (int row = 0; row < rows; row++) {
      int head = row / headDim * headDim;
      int within = row % headDim;
      // Element i pairs with i + headDim / 2: they become 2 i and 2 i + 1.
      int to = within < headDim / 2 ? 2 * within : 2 * (within - headDim / 2) + 1;
      System.arraycopy(data, row * rowBytes, result, (head + to) * rowBytes, rowBytes);
    }
    return result;
  }

  /** Little-endian bytes of floats. */
  public static byte[] floatBytes(double... values) {
    var out = buffer(4 * values.length);
    Arrays.stream(values).forEach(value -> out.putFloat((float) value));
    return out.array();
  }

  /** Little-endian bytes of halves. */
  public static byte[] halfBytes(double... values) {
    var out = buffer(2 * values.length);
    Arrays.stream(values).forEach(value -> out.putShort(Float.floatToFloat16((float) value)));
    return out.array();
  }
}
