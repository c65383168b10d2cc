// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.ffi.nb_matrix_info;
import dev.nibble.ffi.nibble_h;
import dev.nibble.quantize.WeightFormat;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * The weights W [rows (outputs), cols (inputs)] of one projection, in the layout of the kernels.
 * Made by {@link Context#pack(Tensor, WeightFormat)} or {@link Context#pack(QuantizedWeights)}.
 *
 * <p>Immutable; any number of threads and contexts may use it at once, also after the context
 * that made it is closed. {@link #close} waits for calls that use it, then frees it; closing twice
 * is harmless.
 */
public final class PackedMatrix implements AutoCloseable {
  private final MemorySegment handle;
  private final WeightFormat format;
  private final long rows;
  private final long cols;
  private final long packedBytes;
  private final Leases leases = new Leases("the matrix");

  PackedMatrix(MemorySegment handle, WeightFormat format) {
    this.handle = handle;
    this.format = format;
    try (var arena = Arena.ofConfined()) {
      var info = nb_matrix_info.allocate(arena);
      nb_matrix_info.struct_size(info, nb_matrix_info.sizeof());
      Status.check(nibble_h.nb_matrix_get_info(handle, info));
      rows = nb_matrix_info.rows(info);
      cols = nb_matrix_info.cols(info);
      packedBytes = nb_matrix_info.packed_bytes(info);
    }
  }

  /** N, the outputs. */
  public long rows() {
    return rows;
  }

  /** K, the inputs. */
  public long cols() {
    return cols;
  }

  /** How the weights are stored. */
  public WeightFormat format() {
    return format;
  }

  /** The bytes that one pass over the matrix reads. */
  public long packedBytes() {
    return packedBytes;
  }

  @Override
  public void close() {
    if (leases.close()) {
      Status.check(nibble_h.nb_matrix_destroy(handle));
    }
  }

  @Override
  public String toString() {
    return "matrix [" + rows + ", " + cols + "] " + format.describe();
  }

  MemorySegment handle() {
    return handle;
  }

  Leases leases() {
    return leases;
  }
}
