// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.ModelSource;
import dev.nibble.io.TensorStore;
import dev.nibble.quantize.Quantizer;
import dev.nibble.quantize.Scheme;
import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.Tensor;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileTime;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** The packed cache: the same logits with it and without, whatever happens to its files. */
class PackedCacheTest {
  private static final int[] TOKENS = {1, 7, 3, 30, 2, 9, 9, 14};

  @TempDir Path work;
  private Path model;
  private Path cache;
  private final List<String> warnings = Collections.synchronizedList(new ArrayList<>());

  @BeforeEach
  void writeModel() {
    model = work.resolve("model dir é");
    cache = work.resolve("cache");
    tiny(5).write(model);
  }

  private static TinyModel tiny(long seed) {
    var tiny = new TinyModel();
    tiny.dtype = "BF16";
    tiny.tied = false;
    return tiny.draw(seed);
  }

  private PackedCache cache() {
    return PackedCache.in(cache).withWarnings(warnings::add);
  }

  private List<float[]> logits(String scheme, PackedCache cache) {
    return logits(model, Scheme.of(scheme), cache);
  }

  private static List<float[]> logits(Path model, Scheme scheme, PackedCache cache) {
    var options = LoadOptions.defaults().withPackedCache(cache).withScheme(scheme);
    try (var loaded = LlamaModel.load(model, options); var session = loaded.newSession()) {
      return Models.logits(session, TOKENS, 3);
    }
  }

  private List<Path> files() {
    try (var list = Files.list(cache)) {
      return list.sorted().toList();
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  private Path file() {
    assertThat(files()).hasSize(1);
    return files().getFirst();
  }

  private static void assertSame(List<float[]> actual, List<float[]> expected) {
    assertThat(actual).hasSameSizeAs(expected);
    for (int i = 0; i < actual.size(); i++) {
      assertThat(actual.get(i)).containsExactly(expected.get(i));
    }
  }

  /** Loads, and expects the same logits as without a cache, and a file that was used. */
  private void assertUsed(String scheme) throws IOException {
    var before = Files.readAttributes(file(), "unix:ino,size");
    assertSame(logits(scheme, cache()), logits(scheme, PackedCache.off()));
    assertThat(Files.readAttributes(file(), "unix:ino,size")).isEqualTo(before);
    assertThat(warnings).isEmpty();
  }

  static Iterable<String> schemes() {
    return Scheme.names();
  }

  @ParameterizedTest
  @MethodSource("schemes")
  void theSameLogitsBitForBit(String scheme) throws Exception {
    var expected = logits(scheme, PackedCache.off());
    assertThat(cache).doesNotExist();
    assertSame(logits(scheme, cache()), expected);
    assertThat(file().getFileName().toString()).startsWith("model_dir__-").endsWith(".packed");
    assertUsed(scheme);
    assertUsed(scheme);
  }

  /** The second load takes its matrices from the cache: the checkpoint's are not looked at. */
  @Test
  void theCheckpointsMatricesAreNotReadAgain() throws Exception {
    var expected = logits("w4a8", cache());
    var weights = model.resolve("model.safetensors");
    // A byte of a matrix that is no sample, with the size, times and inode as they were: the
    // one change that goes unnoticed, and so shows where the weights come from.
    try (var store = TensorStore.open(weights)) {
      var info = store.info("model.layers.1.mlp.down_proj.weight");
      var time = Files.getLastModifiedTime(weights);
      var fingerprint = store.fingerprint().orElseThrow();
      try (var file = new RandomAccessFile(weights.toFile(), "rw")) {
        file.seek(info.offset() + 1);
        int old = file.read();
        file.seek(info.offset() + 1);
        file.write(old ^ 0x40);
      }
      Files.setLastModifiedTime(weights, time);
      // The time of the inode tells, so this change too is seen.
      assertThat(store.fingerprint().orElseThrow()).isNotEqualTo(fingerprint);
    }
    var changed = logits("w4a8", PackedCache.off());
    assertThat(changed.getLast()).isNotEqualTo(expected.getLast());
    assertSame(logits("w4a8", cache()), changed);
    assertThat(warnings).isEmpty();
    assertUsed("w4a8");
  }

  @Test
  void aModelThatChangedIsPackedAgainAndReplaced() throws Exception {
    logits("w4a8", cache());
    var old = file();
    tiny(6).write(model);
    assertSame(logits("w4a8", cache()), logits("w4a8", PackedCache.off()));
    assertThat(file()).isNotEqualTo(old);
    assertUsed("w4a8");
    // The configuration alone: other logits, the same tensors.
    var config = model.resolve("config.json");
    Files.writeString(config, Files.readString(config).replace("1e-5", "1e-1"));
    assertSame(logits("w4a8", cache()), logits("w4a8", PackedCache.off()));
    assertUsed("w4a8");
  }

  @Test
  void formatsAndModelsLieSideBySide() throws Exception {
    logits("w4a8", cache());
    logits("w8a8", cache());
    assertThat(files()).hasSize(2);
    // The same packed weights: one file serves both.
    logits("w4a8i", cache());
    assertThat(files()).hasSize(2);
    var other = tiny(6).write(work.resolve("other"));
    logits(other, Scheme.of("w4a8"), cache());
    assertThat(files()).hasSize(3);
    assertSame(logits("w4a8", cache()), logits("w4a8", PackedCache.off()));
    assertThat(warnings).isEmpty();
  }

  @Test
  void aCopyOfTheFileIsNoOtherModels() throws Exception {
    logits("w4a8", cache());
    var other = tiny(6).write(work.resolve("other"));
    var expected = logits(other, Scheme.of("w4a8"), PackedCache.off());
    var mine = file();
    logits(other, Scheme.of("w4a8"), cache());
    var others = files().stream().filter(f -> !f.equals(mine)).findFirst().orElseThrow();
    Files.copy(mine, others, java.nio.file.StandardCopyOption.REPLACE_EXISTING);
    assertSame(logits(other, Scheme.of("w4a8"), cache()), expected);
    assertThat(warnings).hasSize(1).first().asString()
        .contains(others.getFileName().toString(), "key").doesNotContain("\n");
    warnings.clear();
    assertSame(logits(other, Scheme.of("w4a8"), cache()), expected);
    assertThat(warnings).isEmpty();
  }

  /** Damage anywhere is found, said once, and repaired. */
  @Test
  void aDamagedFileIsPackedAgainWithOneWarning() throws Exception {
    var expected = logits("w4a8", cache());
    var bytes = Files.readAllBytes(file());
    long records;
    try (var store = TensorStore.open(file())) {
      records = store.info("model.embed_tokens.weight").offset();
      assertThat(records % 4096).isZero();
    }
    var random = new Random(7);
    var positions = random.ints(60, 0, bytes.length).boxed().collect(Collectors.toList());
    positions.addAll(random.ints(20, 0, (int) records).boxed().toList()); // the header
    positions.add((int) records + 8); // the version of a record
    positions.add((int) records + 90); // a checksum
    positions.add(bytes.length - 1); // the key
    int found = 0;
    for (int position : positions) {
      var damaged = bytes.clone();
      damaged[position] ^= 0x10;
      Files.write(file(), damaged);
      warnings.clear();
      assertSame(logits("w4a8", cache()), expected);
      // Padding is zeros, and no part of anything.
      assertThat(warnings).as("byte " + position).hasSizeBetween(bytes[position] == 0 ? 0 : 1, 1);
      if (!warnings.isEmpty()) {
        found++;
        assertThat(warnings.getFirst()).contains("packing again").doesNotContain("\n");
        assertThat(Files.readAllBytes(file())).as("byte " + position).isEqualTo(bytes);
      }
    }
    assertThat(found).isGreaterThan(30);
  }

  @Test
  void aTruncatedOrEmptyOrForeignFileIsPackedAgain() throws Exception {
    var expected = logits("w4a8", cache());
    var bytes = Files.readAllBytes(file());
    for (long size : new long[] {0, 1, 8, 4095, bytes.length / 2, bytes.length - 1}) {
      try (var channel = FileChannel.open(file(), StandardOpenOption.WRITE)) {
        channel.truncate(size);
      }
      warnings.clear();
      assertSame(logits("w4a8", cache()), expected);
      assertThat(warnings).as("size " + size).hasSize(1);
      assertThat(Files.readAllBytes(file())).isEqualTo(bytes);
    }
    Files.write(file(), "something else entirely".getBytes());
    warnings.clear();
    assertSame(logits("w4a8", cache()), expected);
    assertThat(warnings).hasSize(1);
    var place = file();
    Files.delete(place);
    Files.createDirectory(place);
    warnings.clear();
    assertSame(logits("w4a8", cache()), expected);
    // Neither read nor replaced.
    assertThat(warnings).hasSize(2);
    assertThat(files()).containsExactly(place);
  }

  @Test
  void writersAtOnceLeaveOneWholeFile() throws Exception {
    var expected = logits("w4a8", PackedCache.off());
    try (var threads = Executors.newFixedThreadPool(6)) {
      var results = new ArrayList<Future<List<float[]>>>();
      for (int i = 0; i < 24; i++) {
        results.add(threads.submit(() -> logits("w4a8", cache())));
      }
      for (var result : results) {
        assertSame(result.get(), expected);
      }
    }
    assertThat(warnings).isEmpty();
    assertUsed("w4a8");
  }

  @Test
  void aDirectoryThatCannotBeWrittenIsSaidOnlyWhenAskedFor() throws Exception {
    // A file where the directory should be: nobody can write there, root included.
    Files.write(cache, new byte[1]);
    var expected = logits("w4a8", PackedCache.off());
    assertSame(logits("w4a8", cache()), expected);
    assertThat(warnings).hasSize(1).first().asString().contains(cache.toString());
  }

  @Test
  void aReadOnlyDirectoryServesAndIsNotWritten() throws Exception {
    var expected = logits("w4a8", cache());
    var directory =
        Files.setPosixFilePermissions(cache, PosixFilePermissions.fromString("r-xr-xr-x"));
    try {
      Assumptions.assumeFalse(Files.isWritable(directory), "root writes anywhere");
      assertUsed("w4a8");
      logits("w8a8", cache());
      assertThat(warnings).hasSize(1).first().asString().contains("permission denied");
      assertThat(files()).hasSize(1);
    } finally {
      Files.setPosixFilePermissions(cache, PosixFilePermissions.fromString("rwxr-xr-x"));
    }
    assertSame(logits("w4a8", cache()), expected);
  }

  @Test
  void filesNobodyUsesAreDeletedAndOthersAreNot() throws Exception {
    logits("w8a8", cache());
    var unused = file();
    var age = FileTime.from(Instant.now().minus(Duration.ofDays(31)));
    Files.setLastModifiedTime(unused, age);
    var notes = Files.writeString(cache.resolve("notes.txt"), "mine");
    Files.setLastModifiedTime(notes, age);
    var left = Files.createFile(cache.resolve(
        ".model-0123456789abcdef-0123456789abcdef0123456789abcdef.packed.1x.tmp"));
    Files.setLastModifiedTime(left, age);
    logits("w4a8", cache());
    assertThat(unused).doesNotExist();
    assertThat(left).doesNotExist();
    assertThat(notes).exists();
    // Using a file keeps it.
    var used = files().stream().filter(f -> !f.equals(notes)).findFirst().orElseThrow();
    Files.setLastModifiedTime(used, age);
    logits("w4a8", cache());
    logits("w8a8", cache());
    assertThat(used).exists();
    assertThat(warnings).isEmpty();
  }

  @Test
  void aQuantizedDirectoryIsKeptWhenAskedFor() throws Exception {
    var stored = work.resolve("stored");
    try (var source = ModelSource.directory(model); var context = Context.create()) {
      Quantizer.quantize(source, stored, Scheme.of("w6a16"), context, null);
    }
    var expected = logits("w6a16", PackedCache.off());
    for (int i = 0; i < 2; i++) {
      assertSame(logits(stored, Scheme.of("w6a16"), cache()), expected);
      assertThat(files()).hasSize(1);
    }
    assertThat(warnings).isEmpty();
  }

  @Test
  void smallModelsAreNotKeptByDefault() {
    var property = System.getProperty(PackedCache.PROPERTY);
    try {
      System.clearProperty(PackedCache.PROPERTY);
      assertThat(PackedCache.automatic().asked()).isFalse();
      System.setProperty(PackedCache.PROPERTY, cache.toString());
      assertThat(PackedCache.automatic().asked()).isTrue();
      assertThat(PackedCache.automatic().directory()).contains(cache);
      System.setProperty(PackedCache.PROPERTY, "off");
      assertThat(PackedCache.automatic().directory()).isEmpty();
    } finally {
      if (property == null) {
        System.clearProperty(PackedCache.PROPERTY);
      } else {
        System.setProperty(PackedCache.PROPERTY, property);
      }
    }
    assertThatThrownBy(() -> PackedCache.parse("a\0b"))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("off");
  }

  @Test
  void progressReachesTheEnd() {
    for (int i = 0; i < 2; i++) {
      var done = new ArrayList<Long>();
      long[] last = {0};
      LlamaModel.load(model, LoadOptions.defaults().withPackedCache(cache())
          .withProgress((what, at, total) -> {
            done.add(at);
            last[0] = total;
          })).close();
      assertThat(done).isSorted().hasSizeGreaterThan(10);
      assertThat(done.getLast()).isEqualTo(last[0]).isPositive();
    }
  }

  /** One record by itself: what a reader asks for must be what the writer wrote. */
  @Test
  void recordsOfOtherShapesAndFormatsAreRefused() throws Exception {
    var file = Files.createFile(work.resolve("rècord"));
    try (var context = Context.create("cpu", 3);
        var weights = Tensor.of(new float[] {1, 2, 3, 4, 5, 6, 7, 8}, 2, 4);
        var matrix = context.pack(weights, WeightFormat.W8)) {
      context.writePacked(matrix, file, 8192);
      assertThat(Files.size(file))
          .isEqualTo(8192 + Context.packedRecordBytes(WeightFormat.W8, 2, 4));
      try (var read = context.readPacked(WeightFormat.W8, 2, 4, file, 8192);
          var values = context.dequantize(read); var expected = context.dequantize(matrix)) {
        assertThat(values.toFloats()).containsExactly(expected.toFloats());
      }
      assertRefused(context, WeightFormat.W8, 2, 5, file, 8192, "another shape");
      assertRefused(context, WeightFormat.W8, 3, 4, file, 8192, "another shape");
      assertRefused(context, WeightFormat.W8.withGroupSize(16), 2, 40, file, 8192, "format");
      assertRefused(context, WeightFormat.W6, 2, 4, file, 8192, "another format");
      assertRefused(context, WeightFormat.W8, 2, 4, file, 0, "no record");
      assertRefused(context, WeightFormat.W8, 2, 4, file, 8193, "ends before");
      assertRefused(context, WeightFormat.W8, 2, 4, file, -1, "offset: -1");
      assertRefused(context, WeightFormat.W8, 2, 4, file, Long.MAX_VALUE, "offset");
      assertRefused(context, WeightFormat.W8, 1 << 30, 1 << 30, file, 8192, "");
      assertRefused(context, WeightFormat.W8, 2, 4, work, 0, "");
      assertRefused(context, WeightFormat.W8, 2, 4, work.resolve("none"), 0, "No such file");
      assertThatThrownBy(() -> context.writePacked(matrix, work.resolve("none"), 0))
          .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("No such file");
    }
  }

  private static void assertRefused(Context context, WeightFormat format, long rows, long cols,
      Path file, long offset, String part) {
    assertThatThrownBy(() -> context.readPacked(format, rows, cols, file, offset).close())
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining(part)
        .hasMessageNotContaining("\n");
  }
}
