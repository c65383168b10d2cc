// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import static dev.nibble.io.SafetensorsBytes.entry;
import static dev.nibble.io.SafetensorsBytes.file;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ModelFormatException;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class ModelSourceTest {

  private static final String INDEX = "model.safetensors.index.json";

  @TempDir private Path root;
  private Path model;

  @BeforeEach
  void makeDirectory() throws IOException {
    model = Files.createDirectory(root.resolve("model"));
  }

  private void shard(Path path, String tensor) {
    SafetensorsBytes.write(path, file("{" + entry(tensor, "U8", "[2]", "[0,2]") + "}", 2));
  }

  private void index(String json) {
    SafetensorsBytes.write(model.resolve(INDEX), json.getBytes(StandardCharsets.UTF_8));
  }

  private TensorStore open() {
    try (var source = ModelSource.directory(model)) {
      return source.tensors();
    }
  }

  @Test
  void shardsAreOneStore() {
    shard(model.resolve("model-1.safetensors"), "a");
    shard(model.resolve("model-2.safetensors"), "b");
    index("""
        {"metadata": {"total_size": 4},
         "weight_map": {"b": "model-2.safetensors", "a": "model-1.safetensors"}}""");
    try (var store = open()) {
      assertThat(store.names()).containsExactly("b", "a");
      assertThat(store.info("a").file()).endsWith("model-1.safetensors");
      var data = MemorySegment.ofArray(new byte[2]);
      store.read("b", data);
      assertThat(data.toArray(ValueLayout.JAVA_BYTE)).containsExactly(0, 1);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"../outside.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".",
      "", "..\\\\outside.safetensors", "C:x.safetensors", "x\\u0000.safetensors"})
  void shardNamesWithAPathAreRefused(String name) {
    shard(root.resolve("outside.safetensors"), "a");
    index("{\"weight_map\": {\"a\": \"" + name + "\"}}");
    assertThatThrownBy(this::open).isExactlyInstanceOf(ModelFormatException.class)
        .hasMessageContainingAll(INDEX, "tensor \"a\"", "weight_map", "plain name");
  }

  @Test
  void linksOutOfTheDirectoryAreRefused() throws IOException {
    shard(root.resolve("outside.safetensors"), "a");
    Files.createSymbolicLink(model.resolve("x.safetensors"), root.resolve("outside.safetensors"));
    index("{\"weight_map\": {\"a\": \"x.safetensors\"}}");
    assertThatThrownBy(this::open).isExactlyInstanceOf(ModelFormatException.class)
        .hasMessageContainingAll(INDEX, "tensor \"a\"", "\"x.safetensors\"", "leads out");
  }

  @Test
  void linksOfTheHuggingFaceCacheAreFollowed() throws IOException {
    var blobs = Files.createDirectory(root.resolve("blobs"));
    model = Files.createDirectories(root.resolve("snapshots").resolve("0123abcd"));
    shard(blobs.resolve("hash"), "a");
    Files.createSymbolicLink(model.resolve("x.safetensors"), Path.of("../../blobs/hash"));
    index("{\"weight_map\": {\"a\": \"x.safetensors\"}}");
    try (var store = open()) {
      assertThat(store.has("a")).isTrue();
    }
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', quoteCharacter = '`', textBlock = """
      {}                                           | weight_map        | missing
      {"weight_map": []}                           | weight_map        | an array
      {"weight_map": {"a": 3}}                     | tensor "a"        | an integer
      {"weight_map": {"a": null}}                  | tensor "a"        | null
      {"weight_map": {"a": ["x.safetensors"]}}     | tensor "a"        | an array
      {"weight_map": {"a": "none.safetensors"}}    | "none.safetensors" | does not exist
      {"weight_map": {"zz": "x.safetensors"}}      | tensor "zz"       | no such tensor
      {"weight_map": {"a": "folder"}}              | folder            | is a directory
      {"weight_map": {"a": "empty"}}               | empty             | is empty
      {"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}} | Duplicate | 'a'
      [1, 2]                                       | an array          | an object
      {"weight_map":                               | not JSON          | line 1""")
  void malformedIndexIsOneLine(String json, String first, String second) throws IOException {
    shard(model.resolve("x.safetensors"), "a");
    Files.createDirectory(model.resolve("folder"));
    Files.createFile(model.resolve("empty"));
    index(json);
    assertThatThrownBy(this::open).isExactlyInstanceOf(ModelFormatException.class)
        .message().contains(model.toString()).contains(first).contains(second)
        .doesNotContain("\n");
  }

  @Test
  void missingThingsAreReported() throws IOException {
    assertThatThrownBy(() -> ModelSource.directory(root.resolve("none")))
        .isInstanceOf(ModelFormatException.class)
        .hasMessage(root.resolve("none") + ": no such model directory");
    var plain = Files.createFile(root.resolve("plain"));
    assertThatThrownBy(() -> ModelSource.open(plain)).isInstanceOf(ModelFormatException.class)
        .hasMessageContaining("is a file");
    assertThatThrownBy(this::open).isInstanceOf(ModelFormatException.class)
        .hasMessageContainingAll(model.toString(), "neither model.safetensors nor");
    try (var source = ModelSource.directory(model)) {
      assertThat(source.has("config.json")).isFalse();
      assertThatThrownBy(() -> source.read("config.json"))
          .isInstanceOf(ModelFormatException.class)
          .hasMessageContainingAll("config.json", "no such file");
      Files.createDirectory(model.resolve("config.json"));
      assertThatThrownBy(() -> source.read("config.json"))
          .isInstanceOf(ModelFormatException.class)
          .hasMessageContainingAll("config.json", "is a directory");
    }
  }

  @Test
  void filesBeyondTheLimitAreNotRead() throws IOException {
    // A sparse file: only its length is large.
    try (var file = new java.io.RandomAccessFile(model.resolve("config.json").toFile(), "rw")) {
      file.setLength(ModelSource.MAX_FILE_BYTES + 1);
    }
    try (var source = ModelSource.directory(model)) {
      assertThatThrownBy(() -> source.read("config.json"))
          .isInstanceOf(ModelFormatException.class)
          .hasMessageContainingAll("config.json", "67108865 bytes", "at most 67108864");
    }
  }

  @Test
  void theEmbeddedModelIsReadFromTheJar() {
    try (var source = ModelSource.embedded(); var store = source.tensors()) {
      assertThat(source.name()).isEqualTo("fable-4m");
      assertThat(source.has("tokenizer.json")).isTrue();
      assertThat(source.has("none.json")).isFalse();
      assertThat(store.info("model.embed_tokens.weight").shape()).containsExactly(4096, 256);
      assertThatThrownBy(() -> source.read("none.json")).isInstanceOf(ModelFormatException.class)
          .hasMessageContainingAll("none.json", "no such file");
    }
  }
}
