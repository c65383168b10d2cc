// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.Json;
import dev.nibble.io.ModelSource;
import dev.nibble.io.TensorStore;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.tensor.Context;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class QuantizerTest {

  private static final int[] TOKENS = {1, 17, 300, 5, 5, 42, 99, 256, 0, 319, 7};
  private static final Context CONTEXT = Context.create("cpu", 2);

  @TempDir private Path directory;

  @AfterAll
  static void close() {
    CONTEXT.close();
  }

  private static Path golden(String name) {
    try {
      return Path.of(QuantizerTest.class.getResource("/golden/" + name).toURI());
    } catch (URISyntaxException e) {
      throw new AssertionError(e);
    }
  }

  private static void quantize(Path in, Path out, Scheme scheme) {
    try (var source = ModelSource.directory(in)) {
      Quantizer.quantize(source, out, scheme, CONTEXT, null);
    }
  }

  /** The raw bits of all logits. */
  private static int[] logits(Path model, Scheme scheme) {
    var options = LoadOptions.defaults().withThreads(2).withScheme(scheme);
    try (var loaded = LlamaModel.load(model, options);
        var session = loaded.newSession(TOKENS.length)) {
      int vocabulary = loaded.config().vocabSize();
      var bits = new int[TOKENS.length * vocabulary];
      session.forwardAll(TOKENS, (index, row) -> MemorySegment.copy(
          row, ValueLayout.JAVA_INT, 0, bits, index * vocabulary, vocabulary));
      return bits;
    }
  }

  private List<String> listing() throws IOException {
    try (var files = Files.list(directory)) {
      return files.map(file -> file.getFileName().toString()).sorted().toList();
    }
  }

  static Stream<Scheme> schemes() {
    var schemes = new ArrayList<Scheme>();
    Scheme.names().forEach(name -> schemes.add(Scheme.of(name)));
    var w4a8 = Scheme.of("w4a8");
    for (var scale : List.of(ScaleType.POW2, ScaleType.F16, ScaleType.BF16, ScaleType.F32)) {
      schemes.add(w4a8.withProjections(new WeightFormat(CodeType.I4, scale, 32)));
    }
    for (var code : new CodeType[] {CodeType.E2M3, CodeType.E4M3, CodeType.E5M2}) {
      schemes.add(w4a8.withProjections(new WeightFormat(code, ScaleType.F16, 64)));
    }
    schemes.add(w4a8.withEmbedding(WeightFormat.W4));
    return schemes.stream();
  }

  @ParameterizedTest
  @MethodSource("schemes")
  void aQuantizedDirectoryGivesTheBitsOfQuantizingOnLoad(Scheme scheme) {
    for (var name : List.of("gqa-tied", "mha-untied")) {
      var out = directory.resolve(name);
      quantize(golden(name), out, scheme);
      var expected = logits(golden(name), scheme);
      assertThat(logits(out, null)).as("%s with its own scheme", name).isEqualTo(expected);
      assertThat(logits(out, scheme)).as("%s with the scheme named", name).isEqualTo(expected);
      assertThat(Arrays.stream(expected).anyMatch(bits -> bits != 0)).isTrue();
    }
  }

  @Test
  void theDirectoryHoldsThePartsThatTheNamesPromise() throws IOException {
    var out = directory.resolve("out");
    var steps = new ArrayList<Long>();
    try (var source = ModelSource.embedded()) {
      Quantizer.quantize(source, out, Scheme.of("w6a8"), CONTEXT, (tensor, done, total) -> {
        assertThat(Files.exists(out)).as("published before it is whole").isFalse();
        steps.add(done);
        assertThat(done).isLessThanOrEqualTo(total);
      });
    }
    assertThat(steps).isSorted().hasSize(39);
    assertThat(listing()).containsExactly("out");
    try (var source = ModelSource.embedded(); var copy = ModelSource.directory(out);
        var original = source.tensors(); var store = copy.tensors()) {
      for (var file :
          List.of("tokenizer.json", "tokenizer_config.json", "generation_config.json")) {
        assertThat(copy.read(file)).isEqualTo(source.read(file));
      }
      var before = Json.parseObject(source.read("config.json"), "before");
      var after = Json.parseObject(copy.read("config.json"), "after");
      assertThat(after.remove("quantization_config")).isNotNull();
      assertThat(after).isEqualTo(before);

      var weight = "model.layers.3.mlp.down_proj.weight";
      assertThat(store.has(weight)).isFalse();
      assertThat(store.info(weight + ".codes").shape()).containsExactly(256, 384);
      assertThat(store.info(weight + ".codes_high").shape()).containsExactly(256, 192);
      assertThat(store.info(weight + ".scales").shape()).containsExactly(256, 1);
      assertThat(store.has(weight + ".factors")).isFalse();
      assertThat(bytes(store, "model.norm.weight")).isEqualTo(bytes(original, "model.norm.weight"));
      assertThat(Files.size(out.resolve("model.safetensors"))).isLessThan(4_000_000);
    }
  }

  private static byte[] bytes(TensorStore store, String tensor) {
    var bytes = new byte[(int) store.info(tensor).byteLength()];
    store.read(tensor, MemorySegment.ofArray(bytes));
    return bytes;
  }

  @Test
  void anOutputThatHoldsSomethingIsRefused() throws IOException {
    var out = Files.createDirectory(directory.resolve("out"));
    quantize(golden("gqa-tied"), out, Scheme.of("w4a8")); // empty: fine
    assertThatThrownBy(() -> quantize(golden("gqa-tied"), out, Scheme.of("w8a8")))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessageContainingAll(out.toString(), "not empty");
    var file = Files.createFile(directory.resolve("file"));
    assertThatThrownBy(() -> quantize(golden("gqa-tied"), file, Scheme.of("w8a8")))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("is a file");
    assertThatThrownBy(() -> quantize(out, directory.resolve("again"), Scheme.of("w4a8")))
        .isInstanceOf(UnsupportedException.class).hasMessageContaining("quantized already");
    assertThat(listing()).containsExactly("file", "out");
  }

  @Test
  void notANumberIsReportedAndLeavesNothing() throws IOException {
    var model = Files.createDirectory(directory.resolve("model"));
    try (var files = Files.list(golden("gqa-tied"))) {
      for (var file : files.toList()) {
        Files.copy(file, model.resolve(file.getFileName().toString()));
      }
    }
    var weight = "model.layers.1.mlp.up_proj.weight";
    var file = model.resolve("model.safetensors");
    try (var store = TensorStore.open(file); var raw = new RandomAccessFile(file.toFile(), "rw")) {
      raw.seek(store.info(weight).offset() + 4 * (128 * 3 + 7));
      raw.write(new byte[] {0, 0, (byte) 0xC0, 0x7F});
    }
    assertThatThrownBy(() -> quantize(model, directory.resolve("out"), Scheme.of("w4a8")))
        .isInstanceOf(ModelFormatException.class)
        .hasMessageContainingAll("model.safetensors", weight, "[3", "7]");
    assertThat(listing()).containsExactly("model");
  }

  @Test
  void aListenerThatThrowsLeavesNothing() throws IOException {
    try (var source = ModelSource.directory(golden("gqa-tied"))) {
      assertThatThrownBy(() -> Quantizer.quantize(source, directory.resolve("out"),
          Scheme.of("w4a8"), CONTEXT, (tensor, done, total) -> {
            if (done > total / 2) {
              throw new IllegalStateException("stop");
            }
          })).isInstanceOf(IllegalStateException.class);
    }
    assertThat(listing()).isEmpty();
  }
}
