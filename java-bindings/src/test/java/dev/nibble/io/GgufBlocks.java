// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Random;

/**
 * Makes random tensors of GGUF's blocks, with the values that they stand for: each kind of block is
 * written bit by bit from its definition, apart from the library's reader.
 *
 * @param type the number of its type
 * @param data the bytes
 * @param values what they mean, row-major
 */
public record GgufBlocks(int type, byte[] data, double[] values) {

  /** Random blocks whose values have about that standard deviation. */
  public static GgufBlocks random(int type, int elements, double deviation, Random random) {
    var values = new double[elements];
    int size = type >= GgufBytes.Q4_K && type <= GgufBytes.Q6_K ? 256 : 32;
    var out = ByteBuffer.allocate(elements * 2).order(ByteOrder.LITTLE_ENDIAN);
    for (int at = 0; at < elements; at += size) {
      switch (type) {
        case GgufBytes.Q4_0 -> q0(out, values, at, 16, deviation, random);
        case GgufBytes.Q5_0 -> q0(out, values, at, 32, deviation, random);
        case GgufBytes.Q4_1 -> q1(out, values, at, 16, deviation, random);
        case GgufBytes.Q5_1 -> q1(out, values, at, 32, deviation, random);
        case GgufBytes.Q8_0 -> q80(out, values, at, deviation, random);
        case GgufBytes.Q4_K -> qk(out, values, at, 16, deviation, random);
        case GgufBytes.Q5_K -> qk(out, values, at, 32, deviation, random);
        case GgufBytes.Q6_K -> q6k(out, values, at, deviation, random);
        default -> throw new IllegalArgumentException("type " + type);
      }
    }
    var data = new byte[out.position()];
    out.flip().get(data);
    return new GgufBlocks(type, data, values);
  }

  /** A half near value, as its double; its bits by {@link #bits}. */
  private static double half(double value) {
    return Float.float16ToFloat(bits(value));
  }

  private static short bits(double value) {
    return Float.floatToFloat16((float) value);
  }

  private static double sign(Random random) {
    return random.nextBoolean() ? 1 : -1;
  }

  /** Fifth bits first where there are any, then two codes a byte: elements j and j + 16. */
  private static void planes(ByteBuffer out, int[] q, int levels) {
    if (levels == 32) {
      int fifth = 0;
      for (int j = 0; j < 32; j++) {
        fifth |= q[j] / 16 << j;
      }
      out.putInt(fifth);
    }
    for (int j = 0; j < 16; j++) {
      out.put((byte) (q[j] % 16 + 16 * (q[j + 16] % 16)));
    }
  }

  private static int[] codes(int count, int bound, Random random) {
    return random.ints(count, 0, bound).toArray();
  }

  private static void q0(ByteBuffer out, double[] values, int at, int levels, double deviation,
      Random random) {
    double d = half(sign(random) * deviation / (0.29 * levels) * (0.5 + random.nextDouble()));
    var q = codes(32, levels, random);
    out.putShort(bits(d));
    planes(out, q, levels);
    for (int i = 0; i < 32; i++) {
      values[at + i] = d * (q[i] - levels / 2);
    }
  }

  private static void q1(ByteBuffer out, double[] values, int at, int levels, double deviation,
      Random random) {
    double d = half(deviation / (0.29 * levels) * (0.5 + random.nextDouble()));
    double m = half(-d * levels * (0.4 + 0.2 * random.nextDouble()));
    var q = codes(32, levels, random);
    out.putShort(bits(d)).putShort(bits(m));
    planes(out, q, levels);
    for (int i = 0; i < 32; i++) {
      values[at + i] = (float) (d * q[i] + m);
    }
  }

  private static void q80(ByteBuffer out, double[] values, int at, double deviation,
      Random random) {
    double d = half(sign(random) * deviation / 74 * (0.5 + random.nextDouble()));
    out.putShort(bits(d));
    for (int i = 0; i < 32; i++) {
      int q = random.nextInt(255) - 127;
      out.put((byte) q);
      values[at + i] = d * q;
    }
  }

  private static void qk(ByteBuffer out, double[] values, int at, int levels, double deviation,
      Random random) {
    double d = half(deviation / (0.29 * levels) / 40);
    double dmin = half(d * levels / 2);
    var scale = codes(8, 64, random);
    var minimum = new int[8]; // values around 0, as weights are
    for (int p = 0; p < 8; p++) {
      minimum[p] = Math.clamp(scale[p] + random.nextInt(17) - 8, 0, 63);
    }
    var q = codes(256, levels, random);
    out.putShort(bits(d)).putShort(bits(dmin));
    var packed = new int[12];
    for (int p = 0; p < 8; p++) {
      if (p < 4) {
        packed[p] += scale[p];
        packed[p + 4] += minimum[p];
      } else {
        packed[p + 4] += scale[p] % 16 + 16 * (minimum[p] % 16);
        packed[p - 4] += scale[p] / 16 * 64;
        packed[p] += minimum[p] / 16 * 64;
      }
    }
    for (int b : packed) {
      out.put((byte) b);
    }
    for (int j = 0; j < 32 && levels == 32; j++) {
      int fifth = 0;
      for (int p = 0; p < 8; p++) {
        fifth |= q[32 * p + j] / 16 << p;
      }
      out.put((byte) fifth);
    }
    for (int p = 0; p < 8; p += 2) {
      for (int j = 0; j < 32; j++) {
        out.put((byte) (q[32 * p + j] % 16 + 16 * (q[32 * (p + 1) + j] % 16)));
      }
    }
    for (int i = 0; i < 256; i++) {
      values[at + i] = (float) (d * scale[i / 32] * q[i] - dmin * minimum[i / 32]);
    }
  }

  private static void q6k(ByteBuffer out, double[] values, int at, double deviation,
      Random random) {
    double d = half(deviation / 18.5 / 60);
    var scale = random.ints(16, -128, 128).toArray();
    var q = codes(256, 64, random);
    var low = new byte[128];
    var high = new byte[64];
    for (int i = 0; i < 256; i++) {
      int half = i / 128;
      int part = i / 32 % 4;
      int j = i % 32;
      low[64 * half + 32 * (part % 2) + j] |= (byte) ((q[i] & 15) << (part < 2 ? 0 : 4));
      high[32 * half + j] |= (byte) (q[i] >> 4 << 2 * part);
    }
    out.put(low).put(high);
    for (int s : scale) {
      out.put((byte) s);
    }
    out.putShort(bits(d));
    for (int i = 0; i < 256; i++) {
      values[at + i] = d * scale[i / 16] * (q[i] - 32);
    }
  }
}
