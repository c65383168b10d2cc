// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import static org.assertj.core.api.Assertions.assertThat;

import com.sun.management.ThreadMXBean;
import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import dev.nibble.model.LlamaConfig;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
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

/**
 * Valid files with some bytes changed, removed or repeated: whatever comes of it is either a file
 * that reads well or a {@link ModelFormatException} of one line, for no more memory than {@link
 * Json#MAX_EXPANSION} times the file and a fixed 2 MiB.
 */
class HostileFilesTest {

  private static final long FIXED_BYTES = 2 << 20;
  private static final byte[] STORE = SafetensorsBytes.valid();
  private static final byte[] INDEX = """
      {"metadata": {"total_size": 28},
       "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"""
      .getBytes(StandardCharsets.UTF_8);
  /** What the parsers look for, so that mutations reach behind the JSON syntax. */
  private static final List<String> WORDS = List.of("{", "}", "[", "]", ",", ":", "\"", "-", "0",
      "9", "e", ".", "1e9", "99999999999999999999", "null", "true", "[]", "{}", "\"F32\"", "\"U8\"",
      "data_offsets", "shape", "dtype", "../", "/etc/passwd", "one.safetensors", "\\u0000", "NaN");

  private static Path directory;
  private static byte[] config;

  @BeforeContainer
  static void makeDirectory() throws IOException {
    directory = Files.createTempDirectory("nibble-hostile");
    for (var shard : List.of("one", "two")) {
      Files.write(directory.resolve(shard + ".safetensors"), STORE);
    }
    try (var source = ModelSource.embedded()) {
      config = source.read("config.json");
    }
  }

  @AfterContainer
  static void removeDirectory() throws IOException {
    try (var files = Files.list(directory)) {
      for (var file : files.toList()) {
        Files.delete(file);
      }
    }
    Files.delete(directory);
  }

  @Provide
  Arbitrary<Long> seeds() {
    return Arbitraries.longs();
  }

  @Property(tries = 3000)
  void safetensors(@ForAll("seeds") long seed) {
    var bytes = mutate(STORE, seed);
    survives(bytes.length, () -> {
      try (var store = TensorStore.of("x", bytes)) {
        for (var name : store.names()) {
          var info = store.info(name);
          assertThat(info.byteLength()).isBetween(0L, (long) bytes.length);
          store.read(name, MemorySegment.ofArray(new byte[(int) info.byteLength()]));
        }
      }
    });
  }

  @Property(tries = 1500)
  void shardIndex(@ForAll("seeds") long seed) {
    var bytes = mutate(INDEX, seed);
    survives(bytes.length + 2L * STORE.length, () -> ShardIndex.open(directory, bytes).close());
  }

  @Property(tries = 2000)
  void configuration(@ForAll("seeds") long seed) throws IOException {
    var bytes = mutate(config, seed);
    Files.write(directory.resolve("config.json"), bytes);
    try (var source = ModelSource.directory(directory)) {
      survives(bytes.length, () -> LlamaConfig.read(source));
    }
  }

  @Property(tries = 1000)
  void anyBytes(@ForAll byte[] bytes) {
    survives(bytes.length, () -> TensorStore.of("x", bytes).close());
    survives(bytes.length, () -> Json.parse(bytes, "x"));
  }

  private static void survives(long size, Runnable open) {
    var threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    long before = threads.getCurrentThreadAllocatedBytes();
    try {
      open.run();
    } catch (ModelFormatException e) {
      assertThat(e.getMessage()).doesNotContain("\n").hasSizeBetween(1, 1000);
    } catch (UnsupportedException e) {
      // A legal configuration of a model that Nibble does not run.
      assertThat(e.getMessage()).doesNotContain("\n");
    }
    assertThat(threads.getCurrentThreadAllocatedBytes() - before)
        .isLessThan(FIXED_BYTES + Json.MAX_EXPANSION * size);
  }

  /** One to eight changes; the same seed makes the same ones. */
  private static byte[] mutate(byte[] original, long seed) {
    var random = new Random(seed);
    var bytes = original.clone();
    for (int changes = 1 + random.nextInt(8); changes > 0 && bytes.length > 0; changes--) {
      int at = random.nextInt(bytes.length);
      switch (random.nextInt(6)) {
        case 0 -> bytes[at] = (byte) random.nextInt(256);
        case 1 -> bytes[at] ^= (byte) (1 << random.nextInt(8));
        case 2 -> bytes = Arrays.copyOf(bytes, at);
        case 3 -> bytes = splice(bytes, at, Math.min(bytes.length, at + random.nextInt(8)), "");
        case 4 -> bytes = splice(bytes, at, at, WORDS.get(random.nextInt(WORDS.size())));
        default -> bytes = splice(bytes, at, Math.min(bytes.length, at + 1 + random.nextInt(3)),
            WORDS.get(random.nextInt(WORDS.size())));
      }
    }
    if (random.nextInt(4) != 0 && original == STORE && bytes.length >= 8) {
      // Keeps the header's length true to the change in size, so that its content gets looked at.
      int length =
          (original[0] & 0xFF | (original[1] & 0xFF) << 8) + bytes.length - original.length;
      bytes = bytes.clone();
      Arrays.fill(bytes, 0, 8, (byte) 0);
      bytes[0] = (byte) length;
      bytes[1] = (byte) (length >> 8);
    }
    return bytes;
  }

  private static byte[] splice(byte[] bytes, int from, int to, String replacement) {
    var middle = replacement.getBytes(StandardCharsets.UTF_8);
    var result = new byte[bytes.length - (to - from) + middle.length];
    System.arraycopy(bytes, 0, result, 0, from);
    System.arraycopy(middle, 0, result, from, middle.length);
    System.arraycopy(bytes, to, result, from + middle.length, bytes.length - to);
    return result;
  }
}
