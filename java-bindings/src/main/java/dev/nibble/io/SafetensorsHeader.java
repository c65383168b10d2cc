// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ModelFormatException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The header of a safetensors file.
 *
 * <pre>
 *   byte 0        8                    8 + n                          end
 *   | n, U64 LE   | n bytes of JSON    | data of all tensors          |
 *
 *   JSON: {"__metadata__": {"key": "text"},
 *          "NAME": {"dtype": "BF16", "shape": [4096, 256], "data_offsets": [0, 2097152]}, ...}
 * </pre>
 *
 * <p>Offsets count from byte 8 + n. The format forbids duplicate names, and tensors must cover the
 * data without overlap and without holes. Everything is checked with overflow-checked arithmetic
 * before anything is allocated from it.
 */
final class SafetensorsHeader {

  private static final int MAX_RANK = 16;
  private static final String METADATA = "__metadata__";

  private SafetensorsHeader() {}

  /**
   * Reads and checks the header.
   *
   * @return the tensors by name, in the order of the header, with offsets from the file's start
   * @throws ModelFormatException naming the file, the tensor, the field and the value
   */
  static Map<String, TensorInfo> read(ByteSource source) {
    var file = source.name();
    if (source.size() < 8) {
      throw Problem.in(file, source.size() == 0 ? "is empty, expected a safetensors file"
          : source.size() + " bytes, expected a safetensors file of at least 8");
    }
    var lengthBytes = MemorySegment.ofArray(new byte[8]);
    source.read(0, lengthBytes);
    long length = lengthBytes.get(
        ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN), 0);
    // A length with the top bit set is negative here and fails the first check.
    if (length < 0 || length > source.size() - 8) {
      throw Problem.in(file, "header length " + Long.toUnsignedString(length)
          + ": expected at most the " + (source.size() - 8) + " bytes that follow it in the file");
    }
    if (length > Json.MAX_BYTES) {
      throw Problem.in(file, "header length " + length + ": expected at most " + Json.MAX_BYTES);
    }
    var json = new byte[(int) length];
    source.read(8, MemorySegment.ofArray(json));
    var header = Json.parseObject(json, file + " (header)");
    long dataStart = 8 + length;
    long dataLength = source.size() - dataStart;

    var tensors = LinkedHashMap.<String, TensorInfo>newLinkedHashMap(header.size());
    for (var entry : header.entrySet()) {
      if (entry.getKey().equals(METADATA)) {
        checkMetadata(file, entry.getValue());
      } else {
        tensors.put(entry.getKey(),
            tensor(file, entry.getKey(), entry.getValue(), dataStart, dataLength));
      }
    }
    checkCoverage(file, tensors, dataStart, dataLength);
    return tensors;
  }

  private static void checkMetadata(String file, Object value) {
    if (!(value instanceof Map<?, ?> map)) {
      throw Problem.in(file, METADATA + " is " + Json.typeName(value) + ", expected an object");
    }
    for (var entry : map.entrySet()) {
      if (!(entry.getValue() instanceof String)) {
        throw Problem.in(file, METADATA + ": " + Problem.show(entry.getKey()) + " is "
            + Json.typeName(entry.getValue()) + ", expected a string");
      }
    }
  }

  private static TensorInfo tensor(String file, String name, Object value, long dataStart,
      long dataLength) {
    if (!(value instanceof Map<?, ?> fields)) {
      throw Problem.inTensor(file, name,
          "the entry is " + Json.typeName(value) + ", expected an object");
    }
    var dataType = dataType(file, name, fields.get("dtype"));
    var shape = integers(file, name, "shape", fields.get("shape"));
    if (shape.length > MAX_RANK) {
      throw Problem.inTensor(file, name, "shape has " + shape.length
          + " dimensions, expected at most " + MAX_RANK);
    }
    long byteLength = byteLength(file, name, shape, dataType, fields.get("shape"));

    var offsets = integers(file, name, "data_offsets", fields.get("data_offsets"));
    var shown = Problem.show(fields.get("data_offsets"));
    if (offsets.length != 2) {
      throw Problem.inTensor(file, name, "data_offsets " + shown + ": expected two numbers");
    }
    if (offsets[0] > offsets[1]) {
      throw Problem.inTensor(file, name, "data_offsets " + shown + ": begin is after end");
    }
    if (offsets[1] > dataLength) {
      throw Problem.inTensor(file, name, "data_offsets " + shown + ": beyond the " + dataLength
          + " bytes of data in the file (truncated?)");
    }
    if (offsets[1] - offsets[0] != byteLength) {
      throw Problem.inTensor(file, name, "data_offsets " + shown + ": " + (offsets[1] - offsets[0])
          + " bytes, but shape " + Problem.show(fields.get("shape")) + " of "
          + dataType.safetensorsName() + " needs " + byteLength);
    }
    return new TensorInfo(name, dataType, shape, file, dataStart + offsets[0], byteLength);
  }

  private static DataType dataType(String file, String name, Object value) {
    var dataType = value instanceof String text ? DataType.ofSafetensorsName(text) : null;
    if (dataType == null) {
      throw Problem.inTensor(file, name, "dtype " + Problem.show(value)
          + ": unknown, expected one of " + DataType.names());
    }
    return dataType;
  }

  private static long[] integers(String file, String name, String field, Object value) {
    if (!(value instanceof List<?> list)) {
      throw Problem.inTensor(file, name, field + " is " + (value == null ? "missing"
          : Json.typeName(value)) + ", expected an array of integers");
    }
    var numbers = new long[list.size()];
    for (int i = 0; i < numbers.length; i++) {
      if (!(list.get(i) instanceof Long number) || number < 0) {
        throw Problem.inTensor(file, name, field + " " + Problem.show(value) + ": "
            + Problem.show(list.get(i)) + " is not an integer from 0 to " + Long.MAX_VALUE);
      }
      numbers[i] = number;
    }
    return numbers;
  }

  private static long byteLength(String file, String name, long[] shape, DataType dataType,
      Object shown) {
    try {
      long bytes = dataType.bytes();
      for (long size : shape) {
        bytes = Math.multiplyExact(bytes, size);
      }
      return bytes;
    } catch (ArithmeticException e) {
      throw Problem.inTensor(file, name, "shape " + Problem.show(shown) + " of "
          + dataType.safetensorsName() + ": its size in bytes does not fit in 64 bits");
    }
  }

  private static void checkCoverage(String file, Map<String, TensorInfo> tensors, long dataStart,
      long dataLength) {
    var sorted = new ArrayList<>(tensors.values());
    sorted.sort(Comparator.comparingLong(TensorInfo::offset)
        .thenComparingLong(TensorInfo::byteLength));
    long end = dataStart;
    for (var tensor : sorted) {
      if (tensor.offset() != end) {
        throw Problem.inTensor(file, tensor.name(), "data_offsets begin at "
            + (tensor.offset() - dataStart) + ", " + (tensor.offset() < end
                ? "inside the tensor before it, which ends at " : "after a hole that begins at ")
            + (end - dataStart));
      }
      end += tensor.byteLength();
    }
    if (end != dataStart + dataLength) {
      throw Problem.in(file, "the tensors end at byte " + (end - dataStart)
          + " of the data, expected " + dataLength + ", the rest of the file");
    }
  }
}
