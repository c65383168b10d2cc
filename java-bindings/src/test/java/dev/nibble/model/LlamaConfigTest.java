// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import dev.nibble.NibbleException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.Json;
import dev.nibble.io.ModelSource;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What config.json may say, and what it may not. */
class LlamaConfigTest {
  private static final String VALID = """
      {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
       "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
       "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 40,
       "max_position_embeddings": 128, "rms_norm_eps": 1e-5}""";

  @TempDir Path directory;

  /** The valid configuration with fields replaced or added. */
  static LlamaConfig parse(String fields) {
    var bytes = VALID.getBytes(StandardCharsets.UTF_8);
    var map = new LinkedHashMap<>(Json.parseObject(bytes, "test"));
    map.putAll(
        Json.parseObject(("{" + fields + "}").getBytes(StandardCharsets.UTF_8), "test"));
    try (var source = ModelSource.embedded()) {
      map.putIfAbsent("eos_token_id", 1L);
      return new ConfigReader("config.json", map).read(source);
    }
  }

  @Test
  void defaultsOfAbsentFields() {
    var config = parse("");
    assertThat(config.headDim()).isEqualTo(16);
    assertThat(config.tiedEmbedding()).isFalse();
    assertThat(config.attentionBias()).isFalse();
    assertThat(config.mlpBias()).isFalse();
    assertThat(config.ropeTheta()).isEqualTo(10_000);
    assertThat(config.ropeScaling()).isEqualTo(new RopeScaling.None());
    assertThat(config.bosToken()).isEqualTo(-1);
  }

  @Test
  void bothFormsOfRopeSettings() {
    var scaling = new RopeScaling.Llama3(32, 1, 4, 8192);
    var settings = """
        "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192""";
    var old = parse("\"rope_theta\": 5e5, \"rope_scaling\": {\"rope_type\": \"llama3\", "
        + settings + "}");
    var current = parse("\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"llama3\", "
        + settings + "}");
    assertThat(old.ropeScaling()).isEqualTo(scaling);
    assertThat(current).isEqualTo(old);
    assertThat(current.ropeTheta()).isEqualTo(500_000);
  }

  @Test
  void endTokensComeFromTheGenerationConfigFirst() throws Exception {
    Files.writeString(directory.resolve("config.json"),
        VALID.replaceFirst("\\{", "{\"eos_token_id\": 3, "));
    try (var source = ModelSource.directory(directory)) {
      assertThat(LlamaConfig.read(source).eosTokens()).containsExactly(3);
      Files.writeString(directory.resolve("generation_config.json"), "{\"eos_token_id\": [7, 9]}");
      assertThat(LlamaConfig.read(source).eosTokens()).containsExactly(7, 9);
    }
  }

  @Test
  void countsParametersOfTheEmbeddedModel() {
    try (var source = ModelSource.embedded()) {
      assertThat(LlamaConfig.read(source).parameters()).isEqualTo(4_196_608);
    }
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
    "\"hidden_size\": 0 | hidden_size is 0",
    "\"hidden_size\": -64 | hidden_size is -64",
    "\"hidden_size\": 2097152 | hidden_size is 2097152",
    "\"hidden_size\": 99999999999 | hidden_size is 99999999999",
    "\"hidden_size\": \"64\" | hidden_size is \"64\"",
    "\"hidden_size\": 64.5 | hidden_size is 64.5",
    "\"hidden_size\": null | hidden_size is missing",
    "\"intermediate_size\": 0 | intermediate_size is 0",
    "\"num_hidden_layers\": 0 | num_hidden_layers is 0",
    "\"num_hidden_layers\": 100000 | num_hidden_layers is 100000",
    "\"num_attention_heads\": 0 | num_attention_heads is 0",
    "\"num_attention_heads\": 5 | num_attention_heads is 5",
    "\"num_key_value_heads\": 3 | num_key_value_heads is 3",
    "\"num_key_value_heads\": 8 | num_key_value_heads is 8",
    "\"head_dim\": 17 | head_dim is 17",
    "\"head_dim\": 8 | head_dim is 8",
    "\"head_dim\": 512 | head_dim is 512",
    "\"vocab_size\": 0 | vocab_size is 0",
    "\"vocab_size\": 2147483647 | vocab_size is 2147483647",
    "\"max_position_embeddings\": 0 | max_position_embeddings is 0",
    "\"rms_norm_eps\": -1 | rms_norm_eps is -1",
    "\"rms_norm_eps\": 0 | rms_norm_eps is 0",
    "\"rope_theta\": 0 | rope_theta is 0",
    "\"tie_word_embeddings\": 1 | tie_word_embeddings is 1",
    "\"eos_token_id\": 40 | eos_token_id is",
    "\"bos_token_id\": 40 | bos_token_id is 40",
    "\"rope_scaling\": [] | rope_scaling is []",
    "\"rope_scaling\": {\"type\": \"linear\"} | rope_scaling.factor is missing",
    "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0} | rope_scaling.factor is 0",
  })
  void badValuesAreNamed(String fields, String message) {
    // generation_config.json of the embedded model gives the end token unless the field is wrong
    // there, so eos_token_id is tried through a file of its own.
    if (fields.contains("eos_token_id")) {
      assertThatThrownBy(() -> readWith(fields)).isInstanceOf(ModelFormatException.class)
          .hasMessageContaining("config.json: " + message);
      return;
    }
    assertThatThrownBy(() -> parse(fields)).isInstanceOf(ModelFormatException.class)
        .hasMessageContaining("config.json: " + message).hasMessageNotContaining("\n");
  }

  private LlamaConfig readWith(String field) throws Exception {
    Files.writeString(
        directory.resolve("config.json"), VALID.replaceFirst("\\{", "{" + field + ", "));
    try (var source = ModelSource.directory(directory)) {
      return LlamaConfig.read(source);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {
    "\"architectures\": [\"MistralForCausalLM\"]",
    "\"architectures\": null",
    "\"model_type\": \"mistral\"",
    "\"hidden_act\": \"gelu\"",
    "\"partial_rotary_factor\": 0.5",
    "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2.0}",
    "\"rope_parameters\": {\"rope_type\": \"dynamic\", \"factor\": 2.0}",
    "\"rope_scaling\": {\"rope_type\": null}"
  })
  void otherKindsAreRefusedByName(String field) {
    var name = field.substring(1, field.indexOf('"', 1));
    assertThatThrownBy(() -> parse(field)).isInstanceOf(UnsupportedException.class)
        .hasMessageStartingWith("config.json: " + name).hasMessageContaining("expected");
  }

  @Test
  void recordChecksItself() {
    assertThatThrownBy(() -> new LlamaConfig(64, 96, 2, 4, 3, 16, 40, 128, 1e-5f, 1e4,
        new RopeScaling.None(), true, false, false, -1, List.of()))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("num_key_value_heads");
    assertThatThrownBy(() -> new LlamaConfig(1 << 20, 96, 2, 1 << 20, 1 << 20, 256, 40, 128, 1e-5f,
        1e4, new RopeScaling.None(), true, false, false, -1, List.of()))
        .isInstanceOf(NibbleException.class).hasMessageContaining("num_attention_heads * head_dim");
  }
}
