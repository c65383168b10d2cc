// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.ffi.nb_tensor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;

/** Writes {@code nb_tensor} structs, and changes their rows in place without allocating. */
final class Descriptor {
  private static final long SHAPE = nb_tensor.shape$offset();
  private static final long DATA = nb_tensor.data$offset();
  private static final long BYTE_LENGTH = nb_tensor.byte_length$offset();

  private Descriptor() {}

  /** A descriptor of all of tensor, or NULL for null. */
  static MemorySegment of(SegmentAllocator allocator, Tensor tensor) {
    return tensor == null
        ? MemorySegment.NULL
        : of(allocator, tensor.type().nativeId(), tensor.data(), tensor.shapeArray());
  }

  /** A descriptor of dense row-major memory; {@code nativeType} is an {@code nb_dtype}. */
  static MemorySegment of(
      SegmentAllocator allocator, int nativeType, MemorySegment data, long... shape) {
    var struct = nb_tensor.allocate(allocator);
    nb_tensor.struct_size(struct, nb_tensor.sizeof());
    nb_tensor.dtype(struct, nativeType);
    nb_tensor.rank(struct, shape.length);
    long stride = 1;
    for (int i = shape.length - 1; i >= 0; i--) {
      nb_tensor.shape(struct, i, shape[i]);
      nb_tensor.strides(struct, i, stride);
      stride *= Math.max(1, shape[i]);
    }
    nb_tensor.data(struct, data);
    nb_tensor.byte_length(struct, data.byteSize());
    return struct;
  }

  /** Makes struct cover the first rows of what it covered. */
  static void setRows(MemorySegment struct, long rows) {
    struct.set(ValueLayout.JAVA_LONG, SHAPE, rows);
  }

  /** Makes struct cover rows of tensor from firstRow on. */
  static void setRows(MemorySegment struct, Tensor tensor, long firstRow, long rows) {
    long skipped = firstRow * tensor.rowBytes();
    struct.set(ValueLayout.JAVA_LONG, SHAPE, rows);
    struct.set(ValueLayout.JAVA_LONG, DATA, tensor.address() + skipped);
    struct.set(ValueLayout.JAVA_LONG, BYTE_LENGTH, tensor.byteSize() - skipped);
  }
}
