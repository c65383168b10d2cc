// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.NativeMemoryException;
import dev.nibble.io.ForeignConfig.Method;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Map;

/**
 * A checkpoint that another project quantized: a GGUF file with tensors of blocks, or a Hugging
 * Face directory whose {@code config.json} has a {@code quantization_config} of compressed-tensors
 * ({@code pack-quantized}, 4 bits), AWQ ({@code gemm}) or GPTQ (both versions, with and without
 * activation order). It says which weights are quantized, and opens them one by one; all others
 * are ordinary tensors of the store.
 *
 * <p>Immutable and safe for use from any thread.
 */
public final class ForeignCheckpoint {
  private static final long ALIGNMENT = 64;

  private final Map<String, GgufType> blockTypes; // null unless a GGUF file
  private final ForeignConfig config;             // null for a GGUF file

  private ForeignCheckpoint(Map<String, GgufType> blockTypes, ForeignConfig config) {
    this.blockTypes = blockTypes;
    this.config = config;
  }

  /**
   * What others quantized in a model.
   *
   * @return null where nothing is, or Nibble did it
   * @throws dev.nibble.ModelFormatException if {@code quantization_config} is not valid
   * @throws dev.nibble.UnsupportedException if it is of a kind that Nibble does not read
   */
  public static ForeignCheckpoint of(ModelSource source) {
    if (source instanceof GgufSource gguf) {
      return gguf.blockTypes().isEmpty() ? null : new ForeignCheckpoint(gguf.blockTypes(), null);
    }
    var file = source.describe(CheckpointNames.CONFIG);
    var config = ForeignConfig.of(
        Json.parseObject(source.read(CheckpointNames.CONFIG), file), file);
    return config == null ? null : new ForeignCheckpoint(null, config);
  }

  /** Who quantized it, for people: {@code GGUF}, {@code AWQ}, ... */
  public String method() {
    return config == null ? "GGUF" : config.method().title();
  }

  /** Whether a weight is quantized. */
  public boolean has(TensorStore store, String weight) {
    return config == null ? blockTypes.containsKey(weight)
        : store.has(module(weight) + config.method().codes());
  }

  /** Bytes of a weight's parts in the file. */
  public long byteLength(TensorStore store, String weight) {
    if (config == null) {
      return store.info(weight).byteLength();
    }
    long bytes = 0;
    for (var part : config.method().parts()) {
      var name = module(weight) + part;
      bytes += store.has(name) ? store.info(name).byteLength() : 0;
    }
    return bytes;
  }

  /**
   * Reads a weight into native memory: as many bytes as it has in the file.
   *
   * @param store the model's tensors
   * @param weight its name, which {@link #has}
   * @param rows what the model needs
   * @param cols the same
   * @return to be closed by the caller
   * @throws dev.nibble.ModelFormatException naming the file, the tensor and what was expected
   */
  public ForeignMatrix open(TensorStore store, String weight, int rows, int cols) {
    var arena = Arena.ofShared();
    boolean complete = false;
    try {
      var matrix = config == null
          ? blocks(store, weight, rows, cols, arena)
          : new Loader(store, module(weight), rows, cols, arena).load();
      complete = true;
      return matrix;
    } finally {
      if (!complete) {
        arena.close();
      }
    }
  }

  private static String module(String weight) {
    return weight.substring(0, weight.length() - ".weight".length());
  }

  private GgufMatrix blocks(
      TensorStore store, String weight, int rows, int cols, Arena arena) {
    var type = blockTypes.get(weight);
    var info = store.info(weight);
    long rowBytes = (long) cols / type.blockElements() * type.blockBytes();
    if (info.rank() != 2 || info.dim(0) != rows || cols % type.blockElements() != 0
        || info.dim(1) != rowBytes || rowBytes > Integer.MAX_VALUE) {
      long found = info.dim(info.rank() - 1) / type.blockBytes() * type.blockElements();
      throw info.problem(type + " of " + (info.rank() == 2
          ? "shape [" + info.dim(0) + ", " + found + "]" : info.rank() + " dimensions")
          + ", but the model needs [" + rows + ", " + cols + "]");
    }
    return new GgufMatrix(info.file(), weight, type, rows, cols, (int) rowBytes,
        read(store, info, arena), arena);
  }

  private static MemorySegment read(TensorStore store, TensorInfo info, Arena arena) {
    try {
      var bytes = arena.allocate(info.byteLength(), ALIGNMENT);
      store.read(info.name(), bytes);
      return bytes;
    } catch (OutOfMemoryError e) {
      throw new NativeMemoryException(
          info.file() + ": " + info.byteLength() + " bytes for tensor " + info.name(), e);
    }
  }

  /** Checks and reads the parts of one module. */
  private final class Loader {
    private final TensorStore store;
    private final String module;
    private final int rows;
    private final int cols;
    private final Arena arena;

    Loader(TensorStore store, String module, int rows, int cols, Arena arena) {
      this.store = store;
      this.module = module;
      this.rows = rows;
      this.cols = cols;
      this.arena = arena;
    }

    ZeroPointMatrix load() {
      var method = config.method();
      var scales = store.info(module + method.scales());
      if (!scales.dataType().isFloat() || scales.rank() != 2) {
        throw scales.problem(scales.dataType().safetensorsName() + " " + scales.shapeText()
            + ", expected a matrix of F16, BF16 or F32");
      }
      boolean byRows = method == Method.COMPRESSED_TENSORS;
      long groups = scales.dim(byRows ? 1 : 0);
      int size = groupSize(scales, groups);
      requireShape(scales, byRows ? rows : groups, byRows ? groups : rows);
      if (method == Method.AWQ && rows % 8 != 0) {
        throw scales.problem(rows + " outputs, expected a multiple of 8 in AWQ");
      }
      long rowWords = Math.ceilDiv(rows, 8L);
      long colWords = Math.ceilDiv(cols, 8L);
      var codes = switch (method) {
        case COMPRESSED_TENSORS -> words(method.codes(), rows, colWords);
        case AWQ -> words(method.codes(), cols, rowWords);
        case GPTQ -> words(method.codes(), colWords, rows);
      };
      if (byRows && store.has(module + ".weight_shape")) {
        requireShapeTensor(store.info(module + ".weight_shape"));
      }
      var zeros = method.zeros();
      boolean hasZeros = store.has(module + zeros);
      if (!hasZeros && !byRows) {
        throw Problem.inTensor(store.name(), module + zeros, "missing");
      }
      boolean zeroBytes = hasZeros && byRows
          && store.info(module + zeros).dataType() == DataType.I8;
      MemorySegment zeroWords = null;
      if (zeroBytes) {
        var info = store.info(module + zeros);
        requireShape(info, rows, groups);
        zeroWords = read(store, info, arena);
      } else if (hasZeros) {
        zeroWords = byRows ? words(zeros, rowWords, groups) : words(zeros, groups, rowWords);
      }
      var order = method == Method.AWQ ? null : groupOf(method.order(), groups, size);
      return new ZeroPointMatrix(scales.file(), module + ".weight",
          method.title() + " INT4 in groups of " + size
              + (order == null ? "" : " in activation order"),
          rows, cols, method.layout(), size,
          new ZeroPointMatrix.Parts(codes, zeroWords, zeroBytes, config.zeroOffset(),
              read(store, scales, arena), scales.dataType(), order), arena);
    }

    /** Columns of a group, from the configuration, or from the scales where it has none. */
    private int groupSize(TensorInfo scales, long groups) {
      int configured = config.groupSize();
      long size = configured > 0 ? Math.min(configured, cols)
          : groups > 0 && cols % groups == 0 ? cols / groups : 0;
      if (size < 1 || Math.ceilDiv((long) cols, size) != groups) {
        throw scales.problem("shape " + scales.shapeText() + ", but " + cols + " columns in groups"
            + (configured > 0 ? " of " + configured + " need "
                + Math.ceilDiv((long) cols, size) : " need a divisor of them"));
      }
      return (int) size;
    }

    private MemorySegment words(String part, long... shape) {
      var info = store.info(module + part);
      if (info.dataType() != DataType.I32) {
        throw info.problem("dtype " + info.dataType().safetensorsName() + ", expected I32");
      }
      requireShape(info, shape);
      return read(store, info, arena);
    }

    private void requireShape(TensorInfo info, long... shape) {
      if (!Arrays.equals(info.shape(), shape)) {
        throw info.problem("shape " + info.shapeText() + ", expected "
            + Arrays.toString(shape) + " for a weight [" + rows + ", " + cols + "]");
      }
    }

    private void requireShapeTensor(TensorInfo info) {
      if (info.dataType() != DataType.I64 || info.elements() != 2) {
        throw info.problem(info.dataType().safetensorsName() + " " + info.shapeText()
            + ", expected I64 [2]");
      }
      var bytes = read(store, info, arena);
      var layout = ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
      long n = bytes.get(layout, 0);
      long k = bytes.get(layout, 8);
      if (n != rows || k != cols) {
        throw info.problem("says [" + n + ", " + k + "], but the model needs [" + rows + ", "
            + cols + "]");
      }
    }

    /** The group of each column, or null where groups are neighbours. */
    private int[] groupOf(String part, long groups, int size) {
      if (!store.has(module + part)) {
        return null;
      }
      var info = store.info(module + part);
      var words = words(part, cols);
      var result = new int[cols];
      boolean neighbours = true;
      for (int k = 0; k < cols; k++) {
        int group = words.get(
            ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN), 4L * k);
        if (group < 0 || group >= groups) {
          throw info.problem("element " + k + " is " + group + ", expected 0 to " + (groups - 1));
        }
        result[k] = group;
        neighbours &= group == k / size;
      }
      return neighbours ? null : result;
    }
  }
}
