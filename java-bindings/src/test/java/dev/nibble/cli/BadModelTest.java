// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Model directories that are missing, truncated, lying or malicious, through the command line. */
class BadModelTest {

  @TempDir private Path directory;
  private Path model;

  @BeforeEach
  void copyModel() throws IOException {
    model = CommandLineRun.copyOfGolden(directory);
  }

  private CommandLineRun logits() {
    return CommandLineRun.of("logits", "--model", model.toString(), "--tokens", "1,2,3", "--out",
        directory.resolve("logits.safetensors").toString());
  }

  private byte[] weights() throws IOException {
    return Files.readAllBytes(model.resolve("model.safetensors"));
  }

  private void weights(byte[] bytes) throws IOException {
    Files.write(model.resolve("model.safetensors"), bytes);
  }

  /** Changes the header's text to one of the same length. */
  private void header(String from, String to) throws IOException {
    var bytes = weights();
    var text = new String(bytes, StandardCharsets.ISO_8859_1);
    int at = text.indexOf(from);
    if (at < 0 || from.length() != to.length()) {
      throw new AssertionError(from + " -> " + to);
    }
    System.arraycopy(to.getBytes(StandardCharsets.ISO_8859_1), 0, bytes, at, to.length());
    weights(bytes);
  }

  @Test
  void theUnspoiltModelLoads() {
    logits().succeeds();
  }

  @Test
  void missingFilesAreNamed() throws IOException {
    Files.delete(model.resolve("model.safetensors"));
    logits().isRefusedWith(model.toString(), "neither model.safetensors nor");
    Files.delete(model.resolve("config.json"));
    logits().isRefusedWith("config.json", "no such file");
  }

  @Test
  void aTruncatedFileIsNamed() throws IOException {
    weights(Arrays.copyOf(weights(), weights().length - 1000));
    logits().isRefusedWith("model.safetensors", "data_offsets", "truncated");
    weights(Arrays.copyOf(weights(), 100));
    logits().isRefusedWith("model.safetensors", "header length 3056");
    weights(new byte[0]);
    logits().isRefusedWith("model.safetensors", "is empty");
  }

  @Test
  void aHeaderBeyondTheFileIsNamed() throws IOException {
    var bytes = weights();
    ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).putLong(0, 1L << 62);
    weights(bytes);
    logits().isRefusedWith("model.safetensors", "header length 4611686018427387904");
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', textBlock = """
      "dtype":"F32"    | "dtype":"F99"    | model.embed_tokens.weight | dtype "F99"
      "dtype":"F32"    | "dtype":"I32"    | model.embed_tokens.weight | dtype I32
      "shape":[320,128] | "shape":[128,320] | model.embed_tokens.weight | shape [128, 320]
      [0,163840]       | [163840,0]       | model.embed_tokens.weight | data_offsets [163840, 0]
      [0,163840]       | [4,163844]       | model.embed_tokens.weight | hole
      [163840,164352]  | [163328,163840]  | input_layernorm.weight    | inside the tensor before
      "model.norm.weight" | "model.morn.weight" | model.norm.weight   | missing""")
  void aHeaderThatLiesIsNamed(String from, String to, String tensor, String problem)
      throws IOException {
    header(from, to);
    logits().isRefusedWith("model.safetensors", tensor, problem);
  }

  @Test
  void aShapeThatOverflowsIsNamed() throws IOException {
    header("\"shape\":[320,128]", "\"shape\":[9e9,9e9]");
    logits().isRefusedWith("model.safetensors", "model.embed_tokens.weight", "shape");
  }

  @Test
  void notANumberIsNamed() throws IOException {
    var bytes = weights();
    int data = 8 + 3056;
    ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
        .putInt(data + 4 * (128 * 5 + 6), 0x7FC00000);
    weights(bytes);
    logits().isRefusedWith("model.safetensors", "model.embed_tokens.weight", "[5");
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', textBlock = """
      "../model/model.safetensors" | plain name
      "/etc/passwd"                | plain name
      "shard.safetensors"          | does not exist
      7                            | an integer""")
  void anIndexThatLeadsAwayIsNamed(String shard, String problem) throws IOException {
    Files.move(model.resolve("model.safetensors"), directory.resolve("away.safetensors"));
    Files.writeString(model.resolve("model.safetensors.index.json"),
        "{\"weight_map\": {\"model.norm.weight\": " + shard + "}}");
    logits().isRefusedWith("model.safetensors.index.json", "model.norm.weight", problem);
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', textBlock = """
      "LlamaForCausalLM"            | "GPT2LMHeadModel"            | architectures
      "hidden_size": 128            | "hidden_size": -128          | hidden_size
      "hidden_size": 128            | "hidden_size": 1e300         | hidden_size
      "hidden_size": 128            | "hidden_size": "128"         | hidden_size
      "num_hidden_layers": 3        | "num_hidden_layers": 2000000000 | num_hidden_layers
      "num_attention_heads": 4      | "num_attention_heads": 3     | num_
      "vocab_size": 320             | "vocab_size": 321            | model.embed_tokens.weight
      "hidden_act": "silu"          | "hidden_act": "gelu"         | hidden_act
      "vocab_size": 320             | "vocab_size": [              | config.json""")
  void aConfigurationThatIsWrongIsNamed(String from, String to, String problem)
      throws IOException {
    var file = model.resolve("config.json");
    var text = Files.readString(file);
    Files.writeString(file, text.replace(from, to));
    assertThat(text).contains(from);
    logits().isRefusedWith(model.toString(), problem);
  }

  @Test
  void aModelWithoutATokenizerHasNoText() {
    CommandLineRun.of("generate", "x", "--model", model.toString())
        .isRefusedWith(model.toString(), "no tokenizer.json");
  }

  @Test
  void aTokenizerThatIsNoneIsNamed() throws IOException {
    Files.writeString(model.resolve("tokenizer.json"), "{\"version\": 3}");
    CommandLineRun.of("generate", "x", "--model", model.toString())
        .isRefusedWith("tokenizer.json", "not a valid tokenizer");
  }

  @Test
  void anotherQuantizationIsNamed() throws IOException {
    var file = model.resolve("config.json");
    Files.writeString(file, Files.readString(file).replaceFirst("\\{",
        "{\"quantization_config\": {\"quant_method\": \"gptq\"},"));
    logits().isRefusedWith("config.json", "quant_method", "\"gptq\"");
  }
}
