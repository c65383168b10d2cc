// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * A matrix of GGUF's blocks. The layout of a block (d, dmin, m: F16; nibbles: two a byte, low
 * first):
 *
 * <pre>
 *   Q4_0   d | q[16]                       byte j: elements j and j + 16;  d (q - 8)
 *   Q4_1   d | m | q[16]                   the same;                       d q + m
 *   Q5_0   d | h[4] | q[16]                Q4_0 with bit j of h above element j;  d (q - 16)
 *   Q5_1   d | m | h[4] | q[16]            Q4_1 with the same;                    d q + m
 *   Q8_0   d | q[32]                       d q
 *   Q4_K   d | dmin | s[12] | q[128]       8 parts of 32; bytes 32 p + j: element j of part 2 p
 *                                          and of part 2 p + 1;            d s q - dmin m
 *   Q5_K   d | dmin | s[12] | h[32] | q[128]  Q4_K with bit p of h[j] above element j of part p
 *   Q6_K   low[128] | high[64] | s[16] | d 2 halves of 128, each of 4 parts of 32: part p of half h
 *                                          has its low nibbles in low[64 h + 32 (p % 2) + j], low
 *                                          ones for p below 2, and bits 2 p of high[32 h + j];
 *                                          16 elements share a scale;      d s (q - 32)
 * </pre>
 *
 * <p>s[12] of Q4_K and Q5_K: 6-bit scales and minima of the 8 parts: of the first four in the low
 * 6 bits of bytes p and p + 4; of the others the low nibble (scale) and the high one (minimum) of
 * byte p + 4, with bits 6 and 7 of bytes p - 4 and p above them.
 *
 * <p>d s of Q6_K has 11 + 7 significant bits: exact in F32.
 */
final class GgufMatrix extends ForeignMatrix {
  private final MemorySegment bytes;
  private final GgufType type;
  private final int rowBytes;

  /** bytes: rows of blocks, in arena, which this takes over. */
  GgufMatrix(String file, String name, GgufType type, int rows, int cols, int rowBytes,
      MemorySegment bytes, Arena arena) {
    super(file, name, type.name(), rows, cols, arena);
    this.bytes = bytes;
    this.type = type;
    this.rowBytes = rowBytes;
  }

  @Override
  public int groupSize() {
    return switch (type) {
      case Q6_K -> 16;
      default -> 32;
    };
  }

  @Override
  public DataType scaleType() {
    return isExact() && type != GgufType.Q6_K ? DataType.F16 : DataType.F32;
  }

  @Override
  public boolean isExact() {
    return switch (type) {
      case Q4_0, Q5_0, Q8_0, Q6_K -> true;
      default -> false;
    };
  }

  @Override
  public Rows newRows() {
    return new RowReader();
  }

  private final class RowReader implements Rows {
    private final byte[] raw = new byte[rowBytes];
    private final byte[] rowCodes = new byte[BLOCK * cols()];
    private final float[] rowScales = new float[BLOCK * groups()];
    private final float[] rowMinima = new float[isExact() ? 0 : BLOCK * groups()];

    @Override
    public void codes(int first, int count, byte[] codes, float[] scales) {
      fill(first, count, codes, scales);
      if (!isExact()) {
        for (int g = 0; g < count * groups(); g++) { // rows are whole groups
          scales[g] = AffineGroup.fit(
              codes, g * groupSize(), groupSize(), scales[g], rowMinima[g]);
        }
      }
      requireFiniteScales(first, count, scales);
    }

    @Override
    public void values(int first, int count, float[] values) {
      fill(first, count, rowCodes, rowScales);
      int size = groupSize();
      for (int g = 0; g < count * groups(); g++) {
        float scale = rowScales[g];
        float minimum = isExact() ? 0 : rowMinima[g];
        for (int i = g * size; i < (g + 1) * size; i++) {
          values[i] = rowCodes[i] * scale + minimum;
        }
      }
      requireFinite(first, count, values);
    }

    /** Codes and scales as the file has them, and minima where there are any. */
    private void fill(int first, int count, byte[] codes, float[] scales) {
      for (int row = 0; row < count; row++) {
        load(first + row);
        int at = row * cols();
        int group = row * groups();
        for (int from = 0; from < rowBytes; from += type.blockBytes()) {
          switch (type) {
            case Q4_0 -> fromQ4(from, codes, at, scales, group);
            case Q5_0 -> fromQ5(from, codes, at, scales, group);
            case Q8_0 -> fromQ8(from, codes, at, scales, group);
            case Q4_1, Q5_1 -> fromQ1(from, codes, at, scales, group);
            case Q4_K, Q5_K -> fromQ45K(from, codes, at, scales, group);
            case Q6_K -> fromQ6K(from, codes, at, scales, group);
            default -> throw new AssertionError(type);
          }
          at += type.blockElements();
          group += type.blockElements() / groupSize();
        }
      }
    }

    private void load(int row) {
      MemorySegment.copy(
          bytes, ValueLayout.JAVA_BYTE, (long) row * rowBytes, raw, 0, rowBytes);
    }

    private float half(int at) {
      return Float.float16ToFloat((short) (raw[at] & 0xFF | raw[at + 1] << 8));
    }

    private void fromQ4(int from, byte[] codes, int at, float[] scales, int group) {
      scales[group] = half(from);
      nibbles(from + 2, 0, codes, at, 8);
    }

    private void fromQ5(int from, byte[] codes, int at, float[] scales, int group) {
      scales[group] = half(from);
      nibbles(from + 6, fifthBits(from + 2), codes, at, 16);
    }

    private void fromQ1(int from, byte[] codes, int at, float[] scales, int group) {
      scales[group] = half(from);
      rowMinima[group] = half(from + 2);
      boolean five = type == GgufType.Q5_1;
      nibbles(from + (five ? 8 : 4), five ? fifthBits(from + 4) : 0, codes, at, 0);
    }

    private void nibbles(int from, int fifth, byte[] codes, int at, int zero) {
      for (int j = 0; j < 16; j++) {
        int two = raw[from + j];
        codes[at + j] = (byte) ((two & 15 | (fifth >> j & 1) << 4) - zero);
        codes[at + 16 + j] = (byte) ((two >> 4 & 15 | (fifth >> 16 + j & 1) << 4) - zero);
      }
    }

    private int fifthBits(int at) {
      return raw[at] & 0xFF | (raw[at + 1] & 0xFF) << 8 | (raw[at + 2] & 0xFF) << 16
          | raw[at + 3] << 24;
    }

    private void fromQ8(int from, byte[] codes, int at, float[] scales, int group) {
      scales[group] = half(from);
      System.arraycopy(raw, from + 2, codes, at, 32);
    }

    private void fromQ6K(int from, byte[] codes, int at, float[] scales, int group) {
      float d = half(from + 208);
      for (int i = 0; i < 16; i++) {
        scales[group + i] = d * raw[from + 192 + i];
      }
      for (int h = 0; h < 2; h++) {
        for (int part = 0; part < 4; part++) {
          int low = from + 64 * h + 32 * (part % 2);
          int high = from + 128 + 32 * h;
          int shift = part < 2 ? 0 : 4;
          int to = at + 128 * h + 32 * part;
          for (int j = 0; j < 32; j++) {
            int code = raw[low + j] >> shift & 15 | (raw[high + j] >> 2 * part & 3) << 4;
            codes[to + j] = (byte) (code - 32);
          }
        }
      }
    }

    private void fromQ45K(int from, byte[] codes, int at, float[] scales, int group) {
      float d = half(from);
      float dmin = half(from + 2);
      int s = from + 4;
      for (int part = 0; part < 4; part++) {
        scales[group + part] = d * (raw[s + part] & 63);
        rowMinima[group + part] = -dmin * (raw[s + 4 + part] & 63);
        int both = raw[s + 8 + part] & 0xFF;
        scales[group + 4 + part] = d * (both & 15 | (raw[s + part] & 0xC0) >> 2);
        rowMinima[group + 4 + part] = -dmin * (both >> 4 | (raw[s + 4 + part] & 0xC0) >> 2);
      }
      boolean five = type == GgufType.Q5_K;
      int nibbles = from + (five ? 48 : 16);
      for (int pair = 0; pair < 4; pair++) {
        int to = at + 64 * pair;
        for (int j = 0; j < 32; j++) {
          int two = raw[nibbles + 32 * pair + j];
          int fifth = five ? raw[from + 16 + j] >> 2 * pair : 0;
          codes[to + j] = (byte) (two & 15 | (fifth & 1) << 4);
          codes[to + 32 + j] = (byte) (two >> 4 & 15 | (fifth & 2) << 3);
        }
      }
    }
  }
}
