// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * A matrix of unsigned 4-bit codes q with a zero point z and a scale s for each row and group of
 * columns: the value is (q - z) s, and q - z, from -16 to 15, a signed byte. Eight codes are in a
 * 32-bit word, the first in the lowest bits, but in AWQ's words, where they are columns 0, 2, 4, 6,
 * 1, 3, 5, 7 of its weights, which are stored as [K, N]:
 *
 * <pre>
 *                codes               zeros                   scales    group of column k
 *   ROWS         [N, ceil(K/8)]      [ceil(N/8), groups]     [N, G]    k / size, or g_idx[k]
 *   AWQ          [K, N/8]            [groups, N/8]           [G, N]    k / size
 *   GPTQ         [ceil(K/8), N]      [groups, ceil(N/8)]     [G, N]    k / size, or g_idx[k]
 * </pre>
 *
 * <p>ROWS is compressed-tensors' pack-quantized: q and z are both stored plus 8, and zeros may be
 * absent (8), or signed bytes [N, groups]. The first version of GPTQ's format stores z - 1.
 *
 * <p>With an activation order, g_idx, columns of a group are not neighbours, and there are values
 * only.
 */
final class ZeroPointMatrix extends ForeignMatrix {
  enum Layout { ROWS, AWQ, GPTQ }

  /**
   * The parts in memory.
   *
   * @param zeros null where z is 8
   * @param zeroBytes whether zeros are signed bytes
   * @param zeroOffset what is added to a stored zero
   * @param groupOf the group of each column, or null where groups are neighbours
   */
  record Parts(MemorySegment codes, MemorySegment zeros, boolean zeroBytes, int zeroOffset,
      MemorySegment scales, DataType scaleType, int[] groupOf) {}

  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final int[] AWQ_ORDER = {0, 2, 4, 6, 1, 3, 5, 7};
  private static final int SYMMETRIC_ZERO = 8;

  private final Layout layout;
  private final Parts parts;
  private final int size;

  /** size: columns of a group; parts are in arena, which this takes over. */
  ZeroPointMatrix(String file, String name, String encoding, int rows, int cols, Layout layout,
      int size, Parts parts, Arena arena) {
    super(file, name, encoding, rows, cols, arena);
    this.layout = layout;
    this.size = size;
    this.parts = parts;
  }

  @Override
  public int groupSize() {
    return parts.groupOf == null ? size : NO_GROUPS;
  }

  @Override
  public boolean isExact() {
    return parts.groupOf == null;
  }

  @Override
  public DataType scaleType() {
    return parts.scaleType;
  }

  @Override
  public Rows newRows() {
    return new RowReader();
  }

  private final class RowReader implements Rows {
    private final int all = Math.ceilDiv(cols(), size);
    private final byte[] blockCodes = new byte[BLOCK * cols()];
    private final float[] blockScales = new float[BLOCK * all];
    private final byte[] zeros = new byte[BLOCK * all];

    @Override
    public void codes(int first, int count, byte[] codes, float[] scales) {
      if (parts.groupOf != null) {
        throw new IllegalStateException("the columns of a group are not neighbours");
      }
      fill(first, count, codes, scales);
      requireFiniteScales(first, count, scales);
    }

    @Override
    public void values(int first, int count, float[] values) {
      fill(first, count, blockCodes, blockScales);
      for (int row = 0; row < count; row++) {
        for (int k = 0; k < cols(); k++) {
          int i = row * cols() + k;
          values[i] = blockCodes[i] * blockScales[row * all + group(k)];
        }
      }
      requireFinite(first, count, values);
    }

    private int group(int k) {
      return parts.groupOf == null ? k / size : parts.groupOf[k];
    }

    /** Scales as they are stored, codes less zeros. */
    private void fill(int first, int count, byte[] codes, float[] scales) {
      switch (layout) {
        case ROWS -> fromRows(first, count, codes);
        case AWQ -> fromAwq(first, count, codes);
        case GPTQ -> fromGptq(first, count, codes);
      }
      for (int row = 0; row < count; row++) {
        for (int g = 0; g < all; g++) {
          zeros[row * all + g] = (byte) zero(first + row, g);
          scales[row * all + g] = scale(first + row, g);
        }
        subtractZeros(row, codes);
      }
    }

    private void subtractZeros(int row, byte[] codes) {
      int at = row * cols();
      if (parts.groupOf != null) {
        for (int k = 0; k < cols(); k++) {
          codes[at + k] -= zeros[row * all + parts.groupOf[k]];
        }
        return;
      }
      for (int g = 0; g < all; g++) {
        byte zero = zeros[row * all + g];
        int end = at + Math.min(cols(), (g + 1) * size);
        for (int i = at + g * size; i < end; i++) {
          codes[i] -= zero;
        }
      }
    }

    private void fromRows(int first, int count, byte[] codes) {
      int words = Math.ceilDiv(cols(), 8);
      for (int row = 0; row < count; row++) {
        long from = (long) (first + row) * words;
        for (int k = 0; k < cols(); k += 8) {
          spread(word(parts.codes, from + k / 8), codes, row, k);
        }
      }
    }

    /** first is a multiple of 8, and so is the number of rows: a word is a block. */
    private void fromAwq(int first, int count, byte[] codes) {
      int words = rows() / 8;
      for (int k = 0; k < cols(); k++) {
        int word = word(parts.codes, (long) k * words + first / 8);
        for (int i = 0; i < count; i++) {
          codes[AWQ_ORDER[i] * cols() + k] = (byte) (word >>> 4 * i & 15);
        }
      }
    }

    private void fromGptq(int first, int count, byte[] codes) {
      for (int k = 0; k < cols(); k += 8) {
        for (int row = 0; row < count; row++) {
          spread(word(parts.codes, (long) (k / 8) * rows() + first + row), codes, row, k);
        }
      }
    }

    private void spread(int word, byte[] codes, int row, int k) {
      int at = row * cols() + k;
      int count = Math.min(8, cols() - k);
      for (int i = 0; i < count; i++) {
        codes[at + i] = (byte) (word >>> 4 * i & 15);
      }
    }

    private int zero(int row, int g) {
      if (parts.zeros == null) {
        return SYMMETRIC_ZERO;
      }
      if (parts.zeroBytes) {
        int zero = parts.zeros.get(ValueLayout.JAVA_BYTE, (long) row * all + g) + SYMMETRIC_ZERO;
        if (zero < 0 || zero > 15) {
          throw problem("the zero point of row " + row + ", group " + g + " is "
              + (zero - SYMMETRIC_ZERO) + ", expected -8 to 7");
        }
        return zero;
      }
      int stored = switch (layout) {
        case ROWS -> word(parts.zeros, (long) (row / 8) * all + g) >>> 4 * (row % 8);
        case AWQ -> word(parts.zeros, (long) g * (rows() / 8) + row / 8)
            >>> 4 * (row % 2 * 4 + row % 8 / 2);
        case GPTQ -> word(parts.zeros, (long) g * Math.ceilDiv(rows(), 8) + row / 8)
            >>> 4 * (row % 8);
      };
      return (stored & 15) + parts.zeroOffset;
    }

    private float scale(int row, int g) {
      long at = layout == Layout.ROWS ? (long) row * all + g : (long) g * rows() + row;
      return switch (parts.scaleType) {
        case F16 -> Float.float16ToFloat(parts.scales.get(SHORT, 2 * at));
        case BF16 -> Float.intBitsToFloat(parts.scales.get(SHORT, 2 * at) << 16);
        default -> Float.intBitsToFloat(parts.scales.get(INT, 4 * at));
      };
    }

    private static int word(MemorySegment words, long index) {
      return words.get(INT, 4 * index);
    }
  }
}
