// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import dev.nibble.io.DataType;
import dev.nibble.io.ForeignMatrix;
import dev.nibble.quantize.CodeType;
import dev.nibble.quantize.ScaleType;
import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.PackedMatrix;
import dev.nibble.tensor.QuantizedWeights;
import dev.nibble.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * Turns matrices of other projects into Nibble's formats, on all threads, rows at a time.
 *
 * <p>A matrix that has codes with scales is re-expressed exactly: as I4 where all its codes are -8
 * to 7, else as I8, with its own groups and scales, negative ones too: in GGUF's Q4_0 the largest
 * weight of a group is -8 times its scale. Groups that have an offset (Q4_1, Q4_K) come as codes
 * that are nearly the same. What has no codes, since the columns of a group are scattered (an
 * activation order) or its size has no kernel, is quantized by round-to-nearest to I8 in groups of
 * 32 with F32 scales.
 */
final class ForeignPacker {
  private static final WeightFormat FALLBACK = WeightFormat.FOREIGN;
  private static final int FALLBACK_GROUP = FALLBACK.groupSize();
  private static final float MAX_CODE = 127;
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final Context context;
  private final Requantizations requantizations;

  ForeignPacker(Context context, Requantizations requantizations) {
    this.context = context;
    this.requantizations = requantizations;
  }

  /** The format of a matrix whose codes are I8; the fallback where it has none. */
  static WeightFormat nominal(ForeignMatrix matrix) {
    int size = matrix.groupSize();
    if (size != ForeignMatrix.NO_GROUPS && (size >= matrix.cols() || size % 16 == 0)) {
      return new WeightFormat(CodeType.I8, ScaleType.valueOf(matrix.scaleType().name()),
          size >= matrix.cols() ? 0 : size);
    }
    return FALLBACK;
  }

  /** Packs a matrix with the values it has, as far as a format can hold them. */
  PackedMatrix keep(ForeignMatrix matrix) {
    var format = nominal(matrix);
    try (var parts = QuantizedWeights.allocate(format, matrix.rows(), matrix.cols())) {
      if (matrix.groupSize() == ForeignMatrix.NO_GROUPS || format == FALLBACK) {
        quantize(matrix, parts);
        return pack(matrix, parts);
      }
      if (!recode(matrix, parts)) {
        return pack(matrix, parts);
      }
      try (var four = narrow(parts)) {
        return pack(matrix, four);
      }
    }
  }

  /** Packs a matrix in a format of the caller's choice. */
  PackedMatrix pack(ForeignMatrix matrix, WeightFormat format) {
    var own = nominal(matrix);
    boolean sameGroups = own.scale() == format.scale() && own.groupSize() == format.groupSize();
    if (sameGroups && (format.code() == CodeType.I8 || format.code() == CodeType.I4)) {
      var kept = keep(matrix);
      if (kept.format().equals(format)) {
        return kept;
      }
      kept.close();
    }
    try (var values = Tensor.allocate(DataType.F32, matrix.rows(), matrix.cols())) {
      new RowBlocks(context.threads(), matrix).run(rows -> {
        var block = new float[ForeignMatrix.BLOCK * matrix.cols()];
        return (first, count) -> {
          rows.values(first, count, block);
          MemorySegment.copy(block, 0, values.segment(), ValueLayout.JAVA_FLOAT,
              4L * first * matrix.cols(), count * matrix.cols());
        };
      });
      var packed = context.pack(values, format);
      measure(matrix, packed, values);
      return packed;
    }
  }

  private PackedMatrix pack(ForeignMatrix matrix, QuantizedWeights parts) {
    try {
      return context.pack(parts);
    } catch (InvalidArgumentException e) {
      throw new ModelFormatException(matrix.encoding() + ": " + e.getMessage(), e);
    }
  }

  /** Compares a packed matrix with its values, some rows at a time. */
  private void measure(ForeignMatrix matrix, PackedMatrix packed, Tensor values) {
    int cols = matrix.cols();
    int most = Math.max(1, Math.min(matrix.rows(), (4 << 20) / cols));
    double difference = 0;
    double value = 0;
    try (var ids = Tensor.allocate(DataType.I32, most);
        var output = Tensor.allocate(DataType.F32, most, cols)) {
      var lookUp = context.bindEmbedding(packed, ids, output);
      for (int first = 0; first < matrix.rows(); first += most) {
        int count = Math.min(most, matrix.rows() - first);
        for (int i = 0; i < count; i++) {
          ids.segment().setAtIndex(ValueLayout.JAVA_INT, i, first + i);
        }
        lookUp.run(count);
        for (long i = 0; i < (long) count * cols; i++) {
          double v = values.segment().getAtIndex(ValueLayout.JAVA_FLOAT, (long) first * cols + i);
          double d = output.segment().getAtIndex(ValueLayout.JAVA_FLOAT, i) - v;
          difference += d * d;
          value += v * v;
        }
      }
    }
    requantizations.add(matrix, packed.format(), difference, value);
  }

  /**
   * Fills parts, I8, and returns whether all codes are -8 to 7. What is not exact is measured.
   */
  private boolean recode(ForeignMatrix matrix, QuantizedWeights parts) {
    int cols = matrix.cols();
    int groups = (int) parts.format().groups(cols);
    var scale = parts.format().scale();
    var wide = new AtomicBoolean();
    var costs = new Costs(cols, matrix.groupSize());
    new RowBlocks(context.threads(), matrix).run(rows -> {
      var codes = new byte[ForeignMatrix.BLOCK * cols];
      var scales = new float[ForeignMatrix.BLOCK * groups];
      var values = matrix.isExact() ? null : new float[ForeignMatrix.BLOCK * cols];
      return (first, count) -> {
        rows.codes(first, count, codes, scales);
        if (values != null) {
          rows.values(first, count, values);
          costs.add(codes, scales, values, count);
        }
        if (!allFourBits(codes, count * cols)) {
          wide.set(true);
        }
        MemorySegment.copy(codes, 0, parts.codes(), ValueLayout.JAVA_BYTE, (long) first * cols,
            count * cols);
        store(parts.scales(), scale, (long) first * groups, scales, count * groups);
      };
    });
    if (!matrix.isExact()) {
      requantizations.add(matrix, parts.format(), costs.difference, costs.value);
    }
    return !wide.get();
  }

  private static boolean allFourBits(byte[] codes, int count) {
    int beyond = 0;
    for (int i = 0; i < count; i++) {
      beyond |= codes[i] + 8; // -8..7 becomes 0..15, all others have a higher bit
    }
    return (beyond & ~15) == 0;
  }

  private static void store(
      MemorySegment to, ScaleType type, long at, float[] scales, int count) {
    for (int i = 0; i < count; i++) {
      switch (type) {
        case F16 -> to.set(SHORT, 2 * (at + i), Float.floatToFloat16(scales[i]));
        case BF16 -> to.set(SHORT, 2 * (at + i),
            (short) (Float.floatToRawIntBits(scales[i]) >>> 16));
        default -> to.set(FLOAT, 4 * (at + i), scales[i]);
      }
    }
  }

  /** The same matrix in I4. */
  private QuantizedWeights narrow(QuantizedWeights eight) {
    int rows = (int) eight.rows();
    int cols = (int) eight.cols();
    var format = new WeightFormat(
        CodeType.I4, eight.format().scale(), eight.format().groupSize());
    var four = QuantizedWeights.allocate(format, rows, cols);
    boolean complete = false;
    try {
      MemorySegment.copy(eight.scales(), 0, four.scales(), 0, four.scales().byteSize());
      int bytes = (int) format.code().codeBytes(cols);
      RowBlocks.run(context.threads(), rows, () -> {
        var from = new byte[cols + 1]; // an odd row has half a byte of 0
        var to = new byte[bytes];
        return (first, count) -> {
          for (int row = first; row < first + count; row++) {
            MemorySegment.copy(
                eight.codes(), ValueLayout.JAVA_BYTE, (long) row * cols, from, 0, cols);
            for (int i = 0; i < bytes; i++) {
              to[i] = (byte) (from[2 * i] & 15 | from[2 * i + 1] << 4);
            }
            MemorySegment.copy(
                to, 0, four.codes(), ValueLayout.JAVA_BYTE, (long) row * bytes, bytes);
          }
        };
      });
      complete = true;
      return four;
    } finally {
      if (!complete) {
        four.close();
      }
    }
  }

  /** Fills parts, of {@link #FALLBACK}, by round-to-nearest, as nb_quantize does. */
  private void quantize(ForeignMatrix matrix, QuantizedWeights parts) {
    int cols = matrix.cols();
    int groups = (int) parts.format().groups(cols);
    var costs = new Costs(cols, FALLBACK_GROUP);
    new RowBlocks(context.threads(), matrix).run(rows -> {
      var values = new float[ForeignMatrix.BLOCK * cols];
      var codes = new byte[ForeignMatrix.BLOCK * cols];
      var scales = new float[ForeignMatrix.BLOCK * groups];
      return (first, count) -> {
        rows.values(first, count, values);
        for (int row = 0; row < count; row++) {
          for (int g = 0; g < groups; g++) {
            int from = row * cols + g * FALLBACK_GROUP;
            int to = row * cols + Math.min(cols, (g + 1) * FALLBACK_GROUP);
            scales[row * groups + g] = round(values, codes, from, to);
          }
        }
        costs.add(codes, scales, values, count);
        MemorySegment.copy(codes, 0, parts.codes(), ValueLayout.JAVA_BYTE, (long) first * cols,
            count * cols);
        store(parts.scales(), ScaleType.F32, (long) first * groups, scales, count * groups);
      };
    });
    requantizations.add(matrix, parts.format(), costs.difference, costs.value);
  }

  /** Sums of squares over rows that several threads quantize. */
  private static final class Costs {
    private final int cols;
    private final int groupSize;
    double difference;
    double value;

    Costs(int cols, int groupSize) {
      this.cols = cols;
      this.groupSize = groupSize;
    }

    void add(byte[] codes, float[] scales, float[] values, int rows) {
      double differences = 0;
      double all = 0;
      int group = 0;
      for (int row = 0; row < rows; row++) {
        for (int from = row * cols; from < (row + 1) * cols; from += groupSize) {
          float scale = scales[group++];
          int to = Math.min((row + 1) * cols, from + groupSize);
          float d = 0;
          float v = 0;
          for (int i = from; i < to; i++) {
            float e = codes[i] * scale - values[i];
            d += e * e;
            v += values[i] * values[i];
          }
          differences += d;
          all += v;
        }
      }
      synchronized (this) {
        difference += differences;
        value += all;
      }
    }
  }

  /** Quantizes a group; returns its scale. */
  private static float round(float[] values, byte[] codes, int from, int to) {
    float largest = 0;
    for (int i = from; i < to; i++) {
      largest = Math.max(largest, Math.abs(values[i]));
    }
    float scale = largest / MAX_CODE;
    if (largest != 0 && scale == 0) {
      scale = Float.MIN_VALUE;
    }
    for (int i = from; i < to; i++) {
      float code = scale == 0 ? 0 : values[i] / scale;
      codes[i] = (byte) Math.rint(Math.clamp(code, -MAX_CODE - 1, MAX_CODE));
    }
    return scale;
  }
}
