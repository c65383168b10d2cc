// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.NativeMemoryException;
import dev.nibble.ffi.nibble_h;
import dev.nibble.quantize.WeightFormat;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;

/**
 * The canonical, device-neutral form of a quantized matrix, as files hold it: codes, the upper
 * plane of six-bit codes, scales and factors. The layout is drawn in {@code nibble.h} at {@code
 * nb_weight_format}. Parts that a format does not have are empty segments.
 *
 * <p>Owns its memory; the segments may be read and written until {@link #close}, which waits for
 * calls that use them. Not thread-safe while written.
 */
public final class QuantizedWeights implements AutoCloseable {
  private static final long ALIGNMENT = 64;

  private final WeightFormat format;
  private final long rows;
  private final long cols;
  private final Arena arena;
  private final MemorySegment codes;
  private final MemorySegment codesHigh;
  private final MemorySegment scales;
  private final MemorySegment factors;
  private final Leases leases = new Leases("the quantized weights");

  private QuantizedWeights(WeightFormat format, long rows, long cols) {
    this.format = format;
    this.rows = rows;
    this.cols = cols;
    if (rows < 1 || cols < 1) {
      throw new InvalidArgumentException(
          "weights: shape [" + rows + ", " + cols + "] given, expected sizes of at least 1");
    }
    arena = Arena.ofShared();
    try {
      codes = allocate(format.codeBytes(rows, cols));
      codesHigh = allocate(format.highBytes(rows, cols));
      scales = allocate(format.scaleBytes(rows, cols));
      factors = allocate(Math.multiplyExact(4L, format.factorCount(rows)));
    } catch (ArithmeticException e) {
      arena.close();
      throw new InvalidArgumentException(
          "weights: shape [" + rows + ", " + cols + "] overflows", e);
    } catch (OutOfMemoryError e) {
      arena.close();
      throw new NativeMemoryException("weights [" + rows + ", " + cols + "] in "
          + format.describe() + ": not enough native memory", e);
    }
  }

  /**
   * Room for a matrix in format, all zeros, to be filled from a file.
   *
   * @throws InvalidArgumentException if rows or cols is below 1 or the sizes overflow
   */
  public static QuantizedWeights allocate(WeightFormat format, long rows, long cols) {
    return new QuantizedWeights(format, rows, cols);
  }

  private MemorySegment allocate(long bytes) {
    return bytes == 0 ? MemorySegment.NULL : arena.allocate(bytes, ALIGNMENT);
  }

  /** How the weights are stored. */
  public WeightFormat format() {
    return format;
  }

  /** N, the outputs. */
  public long rows() {
    return rows;
  }

  /** K, the inputs. */
  public long cols() {
    return cols;
  }

  /** Codes, or their lower plane: rows of {@code format.code().codeBytes(cols)} bytes. */
  public MemorySegment codes() {
    return codes;
  }

  /** The upper two bits of six-bit codes, rows of ceil(cols / 4) bytes; empty otherwise. */
  public MemorySegment codesHigh() {
    return codesHigh;
  }

  /** Scales [rows, groups] of {@code format.scale()}, little-endian; empty if unquantized. */
  public MemorySegment scales() {
    return scales;
  }

  /** F32 factors, {@code format.factorCount(rows)} of them; empty if there are none. */
  public MemorySegment factors() {
    return factors;
  }

  @Override
  public void close() {
    if (leases.close()) {
      arena.close();
    }
  }

  Leases leases() {
    return leases;
  }

  MemorySegment codesDescriptor(SegmentAllocator allocator) {
    return Descriptor.of(
        allocator, nibble_h.NB_U8(), codes, rows, format.code().codeBytes(cols));
  }

  MemorySegment codesHighDescriptor(SegmentAllocator allocator) {
    return codesHigh.byteSize() == 0
        ? MemorySegment.NULL
        : Descriptor.of(
            allocator, nibble_h.NB_U8(), codesHigh, rows, format.code().highBytes(cols));
  }

  MemorySegment scalesDescriptor(SegmentAllocator allocator) {
    return scales.byteSize() == 0
        ? MemorySegment.NULL
        : Descriptor.of(
            allocator, format.scale().nativeId(), scales, rows, format.groups(cols));
  }

  MemorySegment factorsDescriptor(SegmentAllocator allocator) {
    return factors.byteSize() == 0
        ? MemorySegment.NULL
        : Descriptor.of(allocator, nibble_h.NB_F32(), factors, format.factorCount(rows));
  }
}
