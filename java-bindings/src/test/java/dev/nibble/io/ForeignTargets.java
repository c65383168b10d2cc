// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import static org.assertj.core.api.Assertions.assertThat;

import com.sun.management.ThreadMXBean;
import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import dev.nibble.model.LlamaConfig;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;

/**
 * Reads all there is to read of a file that someone else made: what comes of it is a model, or a
 * {@link ModelFormatException} or {@link UnsupportedException} of one line, for no more heap memory
 * than {@link GgufTokenizer#MAX_EXPANSION} times the file and a fixed 16 MiB.
 */
final class ForeignTargets implements AutoCloseable {
  private static final long FIXED_BYTES = 16 << 20;
  private static final int MAX_ROWS = 64;
  private static final int MAX_COLS = 1 << 12;

  private final Path directory;
  private boolean measured;

  ForeignTargets() {
    try {
      directory = Files.createTempDirectory("nibble-foreign");
      // Loads all classes and the native library, which must not count.
      measured = false;
      ForeignSeeds.gguf().values().forEach(this::gguf);
      ForeignSeeds.packed().values().forEach(this::packed);
      measured = true;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The bytes of a GGUF file. */
  void gguf(byte[] bytes) {
    var file = write("m.gguf", bytes);
    survives(bytes.length, () -> {
      try (var source = ModelSource.directory(file)) {
        tensors(source);
        if (source.has("tokenizer.json")) {
          try (var tokenizer = Tokenizer.load(source)) {
            tokenizer.decode(tokenizer.encode("It was a king's 3rd é \u0000 day."));
          }
        }
      }
    });
  }

  /** config.json, a zero byte, and model.safetensors. */
  void packed(byte[] bytes) {
    int zero = 0;
    while (zero < bytes.length && bytes[zero] != 0) {
      zero++;
    }
    write("config.json", Arrays.copyOf(bytes, zero));
    write("model.safetensors",
        Arrays.copyOfRange(bytes, Math.min(bytes.length, zero + 1), bytes.length));
    survives(bytes.length, () -> {
      try (var source = ModelSource.directory(directory)) {
        tensors(source);
      }
    });
  }

  /** What {@link #packed} takes apart. */
  static byte[] join(String config, byte[] safetensors) {
    var text = config.getBytes(StandardCharsets.UTF_8);
    return ByteBuffer.allocate(text.length + 1 + safetensors.length).put(text).put((byte) 0)
        .put(safetensors).array();
  }

  private static void tensors(ModelSource source) {
    var config = LlamaConfig.read(source);
    var foreign = ForeignCheckpoint.of(source);
    try (var store = source.tensors()) {
      for (var name : store.names()) {
        var info = store.info(name);
        var bytes = new byte[Math.toIntExact(info.byteLength())];
        store.read(name, MemorySegment.ofArray(bytes));
      }
      if (foreign == null) {
        return;
      }
      int hidden = Math.min(MAX_COLS, config.hiddenSize());
      for (var part : new String[] {"self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj"}) {
        var name = "model.layers.0." + part + ".weight";
        int rows = part.contains("k_proj") ? config.kvSize() : config.querySize();
        if (foreign.has(store, name) && rows <= MAX_COLS) {
          try (var matrix = foreign.open(store, name, rows, hidden)) {
            decode(matrix);
          }
        }
      }
      if (foreign.has(store, CheckpointNames.EMBEDDING) && config.vocabSize() <= MAX_COLS) {
        try (var matrix = foreign.open(
            store, CheckpointNames.EMBEDDING, config.vocabSize(), hidden)) {
          decode(matrix);
        }
      }
    }
  }

  private static void decode(ForeignMatrix matrix) {
    var rows = matrix.newRows();
    var values = new float[ForeignMatrix.BLOCK * matrix.cols()];
    var codes = new byte[values.length];
    int size = matrix.groupSize();
    var scales = new float[size == ForeignMatrix.NO_GROUPS
        ? 0 : ForeignMatrix.BLOCK * Math.ceilDiv(matrix.cols(), size)];
    for (int first = 0; first < Math.min(MAX_ROWS, matrix.rows()); first += ForeignMatrix.BLOCK) {
      int count = Math.min(ForeignMatrix.BLOCK, matrix.rows() - first);
      rows.values(first, count, values);
      if (size != ForeignMatrix.NO_GROUPS) {
        rows.codes(first, count, codes, scales);
        for (float scale : scales) {
          assertThat(scale).isFinite();
        }
        if (matrix.isExact()) {
          for (int i = 0; i < count * matrix.cols(); i++) {
            int row = i / matrix.cols();
            int group = row * Math.ceilDiv(matrix.cols(), size) + i % matrix.cols() / size;
            assertThat(codes[i] * scales[group]).isEqualTo(values[i]);
          }
        }
      }
    }
  }

  private Path write(String name, byte[] bytes) {
    try {
      return Files.write(directory.resolve(name), bytes);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private void survives(long size, Runnable read) {
    var threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    long before = threads.getCurrentThreadAllocatedBytes();
    try {
      read.run();
    } catch (ModelFormatException | UnsupportedException e) {
      assertThat(e.getMessage()).doesNotContain("\n").hasSizeBetween(1, 1500);
    }
    long allocated = threads.getCurrentThreadAllocatedBytes() - before;
    if (measured) {
      assertThat(allocated).isLessThan(FIXED_BYTES + GgufTokenizer.MAX_EXPANSION * size);
    }
  }

  @Override
  public void close() {
    try (var files = Files.list(directory)) {
      for (var file : files.toList()) {
        Files.delete(file);
      }
      Files.delete(directory);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
