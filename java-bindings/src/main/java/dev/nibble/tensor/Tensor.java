// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.DataType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.Objects;

/**
 * A dense, row-major view of native memory or of a device's memory: a type, a shape of 1 to 4
 * sizes and a segment. What lies on a device is read and written by copying.
 *
 * <p>A tensor of {@link #allocate} or {@link #of} owns its memory and is closed by its user; one of
 * a {@link TensorArena} lives as long as the arena; one of {@link #borrow} lives as long as the
 * memory it was given. Closing waits for calls that use the tensor; use afterwards throws {@link
 * dev.nibble.ClosedException}. Reading is thread-safe while nobody writes.
 */
public final class Tensor implements AutoCloseable {
  private final DataType type;
  private final long[] shape;
  private final MemorySegment segment;
  private final long address;
  private final long rowBytes;
  private final Context device; // whose memory this is; null for ordinary memory
  private final Leases leases;
  private final TensorArena owned; // what close() closes, or null

  Tensor(DataType type, long[] shape, MemorySegment segment, Context device, Leases leases,
      TensorArena owned) {
    this.type = type;
    this.shape = shape;
    this.segment = segment;
    this.address = segment.address();
    this.rowBytes = shape[0] == 0 ? 0 : segment.byteSize() / shape[0];
    this.device = device;
    this.leases = leases;
    this.owned = owned;
  }

  /**
   * A new tensor of zeros that owns its memory, aligned to 64 bytes.
   *
   * @throws InvalidArgumentException if the shape is not legal or its bytes overflow
   */
  public static Tensor allocate(DataType type, long... shape) {
    var arena = new TensorArena("the tensor");
    var view = arena.allocate(type, shape);
    return new Tensor(type, view.shape, view.segment, null, arena.leases(), arena);
  }

  /** A new F32 tensor with a copy of values, whose number is the product of shape. */
  public static Tensor of(float[] values, long... shape) {
    checkCount(values.length, DataType.F32, shape);
    var tensor = allocate(DataType.F32, shape);
    MemorySegment.copy(values, 0, tensor.segment, ValueLayout.JAVA_FLOAT, 0, values.length);
    return tensor;
  }

  /** A new I32 tensor with a copy of values, whose number is the product of shape. */
  public static Tensor of(int[] values, long... shape) {
    checkCount(values.length, DataType.I32, shape);
    var tensor = allocate(DataType.I32, shape);
    MemorySegment.copy(values, 0, tensor.segment, ValueLayout.JAVA_INT, 0, values.length);
    return tensor;
  }

  /**
   * A view of memory that stays its owner's.
   *
   * <p>The memory must outlive every call that uses it. That holds by itself for automatic and
   * global arenas and for confined ones (whose use from another thread is refused). A <em>shared
   * arena</em> could be closed by another thread in the middle of a call, and the JVM offers no
   * way to prevent it from here: allocate such memory through {@link TensorArena} instead.
   *
   * @throws InvalidArgumentException if segment is not native, not aligned to the element size or
   *     shorter than the shape needs
   */
  public static Tensor borrow(MemorySegment segment, DataType type, long... shape) {
    long bytes = bytesOf(type, shape);
    if (!segment.isNative()) {
      throw new InvalidArgumentException("segment: heap memory, expected native memory");
    }
    if (segment.address() % type.bytes() != 0) {
      throw new InvalidArgumentException("segment: address 0x" + Long.toHexString(segment.address())
          + " is not aligned to the " + type.bytes() + " bytes of " + type);
    }
    if (segment.byteSize() < bytes) {
      throw new InvalidArgumentException("segment: " + segment.byteSize() + " bytes, but "
          + describe(type, shape) + " needs " + bytes);
    }
    var exact = segment.asSlice(0, bytes);
    return new Tensor(type, shape.clone(), exact, null, new BorrowedLeases(exact), null);
  }

  /** The element type. */
  public DataType type() {
    return type;
  }

  /** A copy of the sizes, outermost first. */
  public long[] shape() {
    return shape.clone();
  }

  /** The size of one dimension, 0 for the outermost. */
  public long dim(int dimension) {
    return shape[Objects.checkIndex(dimension, shape.length)];
  }

  /** The number of dimensions, 1 to 4. */
  public int rank() {
    return shape.length;
  }

  /** The number of elements. */
  public long size() {
    return segment.byteSize() / type.bytes();
  }

  /** The bytes of all elements. */
  public long byteSize() {
    return segment.byteSize();
  }

  /**
   * The memory of this view, bounded to it. Access after close throws {@link
   * IllegalStateException}.
   *
   * @throws UnsupportedException if the tensor lies on a device, where only {@link Context#copy},
   *     {@link #toFloats} and {@link #copyFrom} reach it
   */
  public MemorySegment segment() {
    if (device != null) {
      throw new UnsupportedException("the tensor " + this + " lies in the memory of "
          + device.device() + ", which Java cannot reach; copy it with Context.copy or toFloats");
    }
    return segment;
  }

  /** Whether the elements lie in the memory of a device other than the CPU. */
  public boolean onDevice() {
    return device != null;
  }

  /** The memory, to be passed on to native code only. */
  MemorySegment data() {
    return segment;
  }

  /**
   * A view of rows firstRow .. firstRow + rows - 1 of the outermost dimension, on the same memory
   * and with its lifetime.
   */
  public Tensor rows(long firstRow, long rows) {
    if (firstRow < 0 || rows < 0 || firstRow > shape[0] - rows) {
      throw new InvalidArgumentException("rows: " + rows + " from " + firstRow
          + " on, but the tensor " + this + " has " + shape[0]);
    }
    var view = shape.clone();
    view[0] = rows;
    return new Tensor(
        type, view, segment.asSlice(firstRow * rowBytes, rows * rowBytes), device, leases,
        null);
  }

  /** A copy of an F32 tensor's elements. */
  public float[] toFloats() {
    check("tensor", this, DataType.F32, shape);
    if (device != null) {
      try (var host = allocate(type, shape)) {
        device.copy(this, host, shape[0]);
        return host.toFloats();
      }
    }
    leases.acquire();
    try {
      return segment.toArray(ValueLayout.JAVA_FLOAT);
    } finally {
      leases.release();
    }
  }

  /** Overwrites the first values.length elements of an F32 tensor. */
  public void copyFrom(float[] values) {
    check("tensor", this, DataType.F32, shape);
    if (values.length > size()) {
      throw new InvalidArgumentException(
          "values: " + values.length + " given, but the tensor " + this + " has " + size());
    }
    if (device != null) {
      try (var host = of(values, values.length)) {
        device.copyBytes(host, this, host.byteSize());
      }
      return;
    }
    leases.acquire();
    try {
      MemorySegment.copy(values, 0, segment, ValueLayout.JAVA_FLOAT, 0, values.length);
    } finally {
      leases.release();
    }
  }

  /** Frees the memory if this tensor owns it, after waiting for calls that use it. */
  @Override
  public void close() {
    if (owned != null) {
      owned.close();
    }
  }

  /** For messages: {@code F32 [2, 3]}. */
  @Override
  public String toString() {
    return describe(type, shape);
  }

  Leases leases() {
    return leases;
  }

  long address() {
    return address;
  }

  long rowBytes() {
    return rowBytes;
  }

  long[] shapeArray() {
    return shape;
  }

  static String describe(DataType type, long... shape) {
    return type + " " + Arrays.toString(shape);
  }

  /** Bytes of a dense tensor, checked for overflow. */
  static long bytesOf(DataType type, long... shape) {
    if (shape.length < 1 || shape.length > 4) {
      throw new InvalidArgumentException(
          "shape: " + shape.length + " dimensions given, expected 1 to 4");
    }
    if (type.nativeId() == 0) {
      throw new UnsupportedException("tensor type " + type
          + " has no native counterpart, expected F32, F16, BF16, E4M3, E5M2, I8, U8, I32 or F64");
    }
    long bytes = type.bytes();
    try {
      for (long size : shape) {
        if (size < 0) {
          throw new InvalidArgumentException("shape: negative size in " + Arrays.toString(shape));
        }
        bytes = Math.multiplyExact(bytes, size);
      }
    } catch (ArithmeticException e) {
      throw new InvalidArgumentException("shape: " + describe(type, shape) + " overflows", e);
    }
    return bytes;
  }

  /** Checks an operand's type and shape; -1 in expected stands for any size. */
  static void check(String name, Tensor tensor, DataType type, long... expected) {
    if (tensor == null) {
      throw new InvalidArgumentException(name + ": null, expected " + type);
    }
    boolean matches = tensor.type == type && tensor.shape.length == expected.length;
    for (int i = 0; matches && i < expected.length; i++) {
      matches = expected[i] == -1 || expected[i] == tensor.shape[i];
    }
    if (!matches) {
      throw new InvalidArgumentException(name + ": " + tensor + " given, expected " + type + " "
          + Arrays.toString(expected).replace("-1", "any"));
    }
  }

  private static void checkCount(long count, DataType type, long... shape) {
    if (bytesOf(type, shape) != count * type.bytes()) {
      throw new InvalidArgumentException("values: " + count + " given, but the shape is "
          + Arrays.toString(shape));
    }
  }
}
