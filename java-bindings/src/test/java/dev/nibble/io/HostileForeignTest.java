// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import net.jqwik.api.Arbitraries;
import net.jqwik.api.Arbitrary;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.Provide;
import net.jqwik.api.lifecycle.AfterContainer;
import net.jqwik.api.lifecycle.BeforeContainer;

/** The corpus of the fuzz tests with some bytes changed, at random, from a seed that replays. */
class HostileForeignTest {
  private static final List<byte[]> GGUF = List.copyOf(ForeignSeeds.gguf().values());
  private static final List<byte[]> PACKED = List.copyOf(ForeignSeeds.packed().values());
  /** Numbers at the limits of what a field can hold. */
  private static final long[] NUMBERS = {0, 1, -1, 7, 8, 31, 33, 255, 256, 65_535, 1L << 31,
      (1L << 31) - 1, (1L << 32) - 1, 1L << 40, 1L << 62, Long.MAX_VALUE, Long.MIN_VALUE};

  private static ForeignTargets targets;

  @BeforeContainer
  static void open() {
    targets = new ForeignTargets();
  }

  @AfterContainer
  static void close() {
    targets.close();
  }

  @Provide
  Arbitrary<Long> seeds() {
    return Arbitraries.longs();
  }

  @Property(tries = 1000)
  void gguf(@ForAll("seeds") long seed) {
    targets.gguf(mutate(GGUF, seed));
  }

  @Property(tries = 1000)
  void packed(@ForAll("seeds") long seed) {
    targets.packed(mutate(PACKED, seed));
  }

  private static byte[] mutate(List<byte[]> files, long seed) {
    var random = new Random(seed);
    var bytes = files.get(random.nextInt(files.size())).clone();
    for (int changes = 1 + random.nextInt(4); changes > 0 && bytes.length > 16; changes--) {
      // Mostly near the front, where the structure is.
      int at = random.nextInt(random.nextBoolean() ? bytes.length : Math.min(bytes.length, 1200));
      switch (random.nextInt(6)) {
        case 0 -> bytes[at] = (byte) random.nextInt(256);
        case 1 -> bytes[at] ^= (byte) (1 << random.nextInt(8));
        case 2 -> bytes = Arrays.copyOf(bytes, at);
        case 3 -> {
          at = Math.min(at, bytes.length - 8);
          ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
              .putLong(at, NUMBERS[random.nextInt(NUMBERS.length)]);
        }
        case 4 -> {
          at = Math.min(at, bytes.length - 4);
          ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
              .putInt(at, (int) NUMBERS[random.nextInt(NUMBERS.length)]);
        }
        default -> {
          int from = random.nextInt(bytes.length);
          int count = Math.min(random.nextInt(40), bytes.length - Math.max(from, at));
          System.arraycopy(bytes, from, bytes, at, Math.max(0, count));
        }
      }
    }
    return bytes;
  }
}
