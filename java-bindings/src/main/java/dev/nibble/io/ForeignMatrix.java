// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ModelFormatException;
import java.lang.foreign.Arena;

/**
 * A matrix W [rows, cols] as another project quantized it, in memory, for {@link
 * ForeignCheckpoint}. Its rows can be had as floats, and of most kinds as signed bytes with a scale
 * for each group of consecutive columns, which is the same, exactly or nearly.
 *
 * <p>Immutable; any number of threads may each use a {@link Rows} of their own. {@link #close}
 * frees the memory and must wait until they are done.
 */
public abstract sealed class ForeignMatrix implements AutoCloseable
    permits GgufMatrix, ZeroPointMatrix {
  /** The group size of matrices whose values are nowhere near codes with scales of groups. */
  public static final int NO_GROUPS = -1;

  /** Rows that are read together at most: as many as a word of AWQ has. */
  public static final int BLOCK = 8;

  private final String file;
  private final String name;
  private final String encoding;
  private final int rows;
  private final int cols;
  private final Arena arena;

  ForeignMatrix(String file, String name, String encoding, int rows, int cols, Arena arena) {
    this.file = file;
    this.name = name;
    this.encoding = encoding;
    this.rows = rows;
    this.cols = cols;
    this.arena = arena;
  }

  /** Reads rows; for one thread. */
  public interface Rows {
    /**
     * Rows as codes and scales: the value in column k is {@code code * scale} of group k /
     * groupSize, exactly where the matrix {@link ForeignMatrix#isExact}. Scales are finite, of
     * either sign.
     *
     * @param first a multiple of {@link #BLOCK}
     * @param count at most {@link #BLOCK}
     * @param codes [count][cols]
     * @param scales [count][ceil(cols / groupSize)]
     * @throws dev.nibble.ModelFormatException for a scale that is not finite
     */
    void codes(int first, int count, byte[] codes, float[] scales);

    /**
     * Rows as values, each rounded at most once to F32.
     *
     * @param values [count][cols]
     * @throws dev.nibble.ModelFormatException for a value that is not finite
     */
    void values(int first, int count, float[] values);
  }

  /** What it is called: {@code Q4_K}, {@code AWQ INT4 in groups of 128}. */
  public final String encoding() {
    return encoding;
  }

  /** N, the outputs. */
  public final int rows() {
    return rows;
  }

  /** K, the inputs. */
  public final int cols() {
    return cols;
  }

  /** Columns that share a scale, at most cols; {@link #NO_GROUPS} where there are no codes. */
  public abstract int groupSize();

  /** Whether {@link Rows#codes} has the very values of the file. */
  public abstract boolean isExact();

  /** The narrowest of F16, BF16 and F32 that holds every scale of {@link Rows#codes}. */
  public abstract DataType scaleType();

  /** Reads its rows; to be made by each thread. */
  public abstract Rows newRows();

  final String file() {
    return file;
  }

  final ModelFormatException problem(String message) {
    return Problem.inTensor(file, name, message);
  }

  final int groups() {
    return Math.ceilDiv(cols, groupSize());
  }

  final void requireFiniteScales(int first, int count, float[] scales) {
    int groups = groups();
    for (int i = 0; i < count * groups; i++) {
      if (!Float.isFinite(scales[i])) {
        throw problem("the scale of row " + (first + i / groups) + ", group " + i % groups + " is "
            + scales[i] + ", expected a finite number");
      }
    }
  }

  final void requireFinite(int first, int count, float[] values) {
    for (int i = 0; i < count * cols; i++) {
      if (!(Math.abs(values[i]) <= Float.MAX_VALUE)) {
        throw problem("element [" + (first + i / cols) + ", " + i % cols + "] is " + values[i]
            + ", expected a finite number");
      }
    }
  }

  @Override
  public final void close() {
    arena.close();
  }
}
