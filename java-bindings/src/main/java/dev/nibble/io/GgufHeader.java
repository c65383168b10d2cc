// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.UnsupportedException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The header of a GGUF file, versions 2 and 3 (the specification in ggml's {@code docs/gguf.md}):
 *
 * <pre>
 *   "GGUF"  u32 version  u64 tensors  u64 pairs
 *   pairs:    text key, u32 type, value
 *   tensors:  text name, u32 rank, u64 sizes (innermost first), u32 type, u64 offset
 *   padding to general.alignment, then the data; offsets count from here
 * </pre>
 *
 * <p>All is checked before anything is allocated from it. Reading it takes heap memory of at most
 * {@value #MAX_EXPANSION} times the file's bytes and a fixed 1 MiB; arrays are not read.
 *
 * @param file its name, for messages
 * @param metadata the pairs
 * @param tensors by name, in the order of the file
 */
record GgufHeader(String file, GgufMetadata metadata, Map<String, Tensor> tensors) {

  /**
   * One tensor.
   *
   * @param shape outermost first, as everywhere in Nibble
   * @param offset from the file's start
   */
  record Tensor(String name, GgufType type, List<Long> shape, long offset, long byteLength) {

    /** Bytes of a row. */
    long rowBytes() {
      return shape.getLast() / type.blockElements() * type.blockBytes();
    }
  }

  static final int MAX_EXPANSION = 16;

  private static final int MAGIC = 0x46554747;
  private static final int MAX_TENSORS = 1 << 16;
  private static final int MAX_RANK = 4;
  private static final int DEFAULT_ALIGNMENT = 32;
  private static final int MAX_ALIGNMENT = 1 << 20;
  /** The shortest description of a tensor: no name, no dimension. */
  private static final int MIN_TENSOR = 8 + 4 + 4 + 8;

  /** Whether a file begins like one. */
  static boolean isGguf(ByteSource source) {
    return source.size() >= 4 && new GgufCursor(source).i32("the magic number") == MAGIC;
  }

  /**
   * Reads and checks a header.
   *
   * @throws dev.nibble.ModelFormatException naming the file, the tensor or key, and the value
   * @throws UnsupportedException for a version or tensor type that Nibble does not read
   */
  static GgufHeader read(ByteSource source) {
    var in = new GgufCursor(source);
    if (!isGguf(source) || in.i32("the magic number") != MAGIC) {
      throw in.problem("does not begin with \"GGUF\"");
    }
    int version = in.i32("the version");
    if (version != 2 && version != 3) {
      throw new UnsupportedException(source.name() + ": GGUF version "
          + Integer.toUnsignedString(version) + (Integer.reverseBytes(version) == 3
              ? ", a big-endian file, expected a little-endian one" : ", expected 2 or 3"));
    }
    long tensorCount = in.count(MIN_TENSOR, "tensor_count");
    if (tensorCount > MAX_TENSORS) {
      throw in.problem("tensor_count is " + tensorCount + ", expected at most " + MAX_TENSORS);
    }
    var metadata = GgufMetadata.read(in, source, in.count(1, "metadata_kv_count"));
    int alignment = metadata.integer("general.alignment", DEFAULT_ALIGNMENT);
    if (Integer.bitCount(alignment) != 1 || alignment < 8 || alignment > MAX_ALIGNMENT) {
      throw metadata.unexpected("general.alignment", "a power of two from 8 to " + MAX_ALIGNMENT);
    }
    var relative = new ArrayList<Tensor>();
    for (long i = 0; i < tensorCount; i++) {
      relative.add(tensor(in, source.name()));
    }
    long dataStart = Math.ceilDiv(in.position(), (long) alignment) * alignment;
    var tensors = new LinkedHashMap<String, Tensor>();
    for (var tensor : relative) {
      if (tensor.offset() % alignment != 0) {
        throw Problem.inTensor(source.name(), tensor.name(), "offset "
            + Long.toUnsignedString(tensor.offset()) + ", expected a multiple of " + alignment);
      }
      long room = source.size() - dataStart;
      if (tensor.offset() < 0 || tensor.offset() > room
          || tensor.byteLength() > room - tensor.offset()) {
        throw Problem.inTensor(source.name(), tensor.name(), "offset "
            + Long.toUnsignedString(tensor.offset()) + " and " + tensor.byteLength()
            + " bytes, but the file has " + Math.max(0, room) + " bytes of data (truncated?)");
      }
      var placed = new Tensor(tensor.name(), tensor.type(), tensor.shape(),
          dataStart + tensor.offset(), tensor.byteLength());
      if (tensors.put(placed.name(), placed) != null) {
        throw Problem.inTensor(source.name(), placed.name(), "is there twice");
      }
    }
    requireDisjoint(source.name(), tensors);
    return new GgufHeader(source.name(), metadata, tensors);
  }

  private static Tensor tensor(GgufCursor in, String file) {
    var name = in.strictText("a tensor's name");
    int rank = in.i32("a tensor's rank");
    if (rank < 1 || rank > MAX_RANK) {
      throw Problem.inTensor(file, name, "rank " + Integer.toUnsignedString(rank)
          + ", expected 1 to " + MAX_RANK);
    }
    var shape = new ArrayList<Long>(rank);
    for (int i = 0; i < rank; i++) {
      long size = in.i64("a tensor's shape");
      if (size < 1) {
        throw Problem.inTensor(file, name, "a dimension of " + Long.toUnsignedString(size)
            + ", expected 1 to " + Long.MAX_VALUE);
      }
      shape.addFirst(size);
    }
    int number = in.i32("a tensor's type");
    var type = GgufType.of(number);
    if (type == null || type.blockElements() == 0) {
      throw new UnsupportedException(file + ": tensor " + Problem.quote(name) + ": type "
          + (type == null ? Integer.toUnsignedString(number) : type.name())
          + ", which Nibble does not read; expected one of " + GgufType.supported());
    }
    if (shape.getLast() % type.blockElements() != 0) {
      throw Problem.inTensor(file, name, "shape " + shape + " of " + type + ", expected rows of a"
          + " multiple of " + type.blockElements() + " elements");
    }
    try {
      long bytes = Math.multiplyExact(
          shape.getLast() / type.blockElements(), (long) type.blockBytes());
      for (var size : shape.subList(0, rank - 1)) {
        bytes = Math.multiplyExact(bytes, size);
      }
      return new Tensor(name, type, List.copyOf(shape), in.i64("a tensor's offset"), bytes);
    } catch (ArithmeticException e) {
      throw Problem.inTensor(file, name, "shape " + shape + " of " + type
          + ": its size in bytes does not fit in 64 bits");
    }
  }

  private static void requireDisjoint(String file, Map<String, Tensor> tensors) {
    var sorted = new ArrayList<>(tensors.values());
    sorted.sort(Comparator.comparingLong(Tensor::offset));
    long end = 0;
    for (var tensor : sorted) {
      if (tensor.offset() < end) {
        throw Problem.inTensor(file, tensor.name(), "begins at byte " + tensor.offset()
            + ", inside the tensor before it, which ends at " + end);
      }
      end = tensor.offset() + tensor.byteLength();
    }
  }
}
