// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import dev.nibble.NativeMemoryException;
import dev.nibble.io.CheckpointNames;
import dev.nibble.io.DataType;
import dev.nibble.io.TensorInfo;
import dev.nibble.io.TensorStore;
import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.PackedMatrix;
import dev.nibble.tensor.QuantizedWeights;
import dev.nibble.tensor.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.List;

/**
 * Weights of a checkpoint, read one tensor at a time into a buffer that is reused, then quantized
 * and packed at once. For one thread.
 */
final class CheckpointWeights implements WeightSource {
  private static final long ALIGNMENT = 64;
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final TensorStore store;
  private final Context context;
  private final boolean quantized;
  private final ProgressListener progress;
  private final long totalBytes;
  private long doneBytes;
  // Shared, since several threads read into it.
  private Arena bufferArena = Arena.ofShared();
  private MemorySegment buffer = MemorySegment.NULL;

  /** @param quantized whether matrices in a quantized format are stored in canonical parts */
  CheckpointWeights(
      TensorStore store, Context context, boolean quantized, ProgressListener progress) {
    this.store = store;
    this.context = context;
    this.quantized = quantized;
    this.progress = progress;
    totalBytes = store.byteLength();
  }

  @Override
  public PackedMatrix matrix(String name, int rows, int cols, WeightFormat format) {
    progress.progress(name, doneBytes, totalBytes);
    return quantized && format.code().isQuantized()
        ? packParts(name, rows, cols, format)
        : quantize(name, rows, cols, format);
  }

  private PackedMatrix quantize(String name, int rows, int cols, WeightFormat format) {
    var info = checkFloat(name, rows, cols);
    var weights =
        Tensor.borrow(read(info, buffer(info.byteLength())), info.dataType(), info.shape());
    try {
      return context.pack(weights, format);
    } catch (InvalidArgumentException e) {
      // Shape and type are checked, so what the quantizer refuses is NaN or infinity.
      throw problem(info, e.getMessage());
    }
  }

  private PackedMatrix packParts(String name, int rows, int cols, WeightFormat format) {
    try (var parts = QuantizedWeights.allocate(format, rows, cols)) {
      var code = format.code();
      read(CheckpointNames.codes(name), DataType.U8, parts.codes(), rows, code.codeBytes(cols));
      if (parts.codesHigh().byteSize() > 0) {
        read(CheckpointNames.codesHigh(name), DataType.U8, parts.codesHigh(), rows,
            code.highBytes(cols));
      }
      read(CheckpointNames.scales(name), format.scale().dataType(), parts.scales(), rows,
          format.groups(cols));
      if (parts.factors().byteSize() > 0) {
        read(CheckpointNames.factors(name), DataType.F32, parts.factors(),
            format.factorCount(rows));
      }
      try {
        return context.pack(parts);
      } catch (InvalidArgumentException e) {
        throw problem(store.info(CheckpointNames.codes(name)), e.getMessage());
      }
    }
  }

  private void read(String name, DataType type, MemorySegment destination, long... shape) {
    var info = info(name);
    if (info.dataType() != type) {
      throw problem(info, "dtype " + info.dataType().safetensorsName() + ", expected "
          + type.safetensorsName());
    }
    checkShape(info, shape);
    read(info, destination);
  }

  @Override
  public float[] vector(String name, int size) {
    var info = checkFloat(name, size);
    var bytes = read(info, buffer(info.byteLength()));
    var values = new float[size];
    for (int i = 0; i < size; i++) {
      values[i] = switch (info.dataType()) {
        case F16 -> Float.float16ToFloat(bytes.getAtIndex(SHORT, i));
        case BF16 -> Float.intBitsToFloat(bytes.getAtIndex(SHORT, i) << 16);
        default -> Float.intBitsToFloat(bytes.getAtIndex(INT, i));
      };
      if (!Float.isFinite(values[i])) {
        throw problem(info, "element " + i + " is " + values[i] + ", expected a finite number");
      }
    }
    return values;
  }

  private TensorInfo info(String name) {
    if (!store.has(name)) {
      throw new ModelFormatException(store.name() + ": tensor \"" + name + "\": missing");
    }
    return store.info(name);
  }

  private TensorInfo checkFloat(String name, long... shape) {
    var info = info(name);
    switch (info.dataType()) {
      case F32, F16, BF16 -> checkShape(info, shape);
      default -> throw problem(info, "dtype " + info.dataType().safetensorsName()
          + ", expected F32, F16 or BF16");
    }
    return info;
  }

  private static void checkShape(TensorInfo info, long... shape) {
    if (!Arrays.equals(info.shape(), shape)) {
      throw problem(info, "shape " + info.shapeText() + ", but the model needs "
          + Arrays.toString(shape));
    }
  }

  private MemorySegment read(TensorInfo info, MemorySegment destination) {
    store.read(info.name(), destination);
    doneBytes += info.byteLength();
    return destination;
  }

  /** The first bytes of the buffer, which grows to the largest tensor. */
  private MemorySegment buffer(long bytes) {
    if (buffer.byteSize() < bytes) {
      bufferArena.close();
      bufferArena = Arena.ofShared();
      try {
        buffer = bufferArena.allocate(bytes, ALIGNMENT);
      } catch (OutOfMemoryError e) {
        buffer = MemorySegment.NULL;
        throw new NativeMemoryException(
            store.name() + ": " + bytes + " bytes for the largest tensor", e);
      }
    }
    return buffer.asSlice(0, bytes);
  }

  private static ModelFormatException problem(TensorInfo info, String message) {
    return new ModelFormatException(
        info.file() + ": tensor \"" + info.name() + "\": " + message);
  }

  /** Bytes of tensors that are loaded. */
  long doneBytes() {
    return doneBytes;
  }

  /** Counts a matrix as loaded that came from elsewhere. */
  void skip(String name, WeightFormat format) {
    progress.progress(name, doneBytes, totalBytes);
    var parts = quantized && format.code().isQuantized()
        ? List.of(CheckpointNames.codes(name), CheckpointNames.codesHigh(name),
            CheckpointNames.scales(name), CheckpointNames.factors(name))
        : List.of(name);
    for (var part : parts) {
      doneBytes += store.has(part) ? store.info(part).byteLength() : 0;
    }
  }

  /** Tells the listener that everything is loaded; tensors that no layer needs count too. */
  @Override
  public void finish() {
    progress.progress("", totalBytes, totalBytes);
  }

  /** Frees the buffer; the store stays open. */
  @Override
  public void close() {
    bufferArena.close();
  }
}
