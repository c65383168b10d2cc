// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ModelFormatException;
import dev.nibble.NibbleException;
import dev.nibble.UnsupportedException;
import dev.nibble.model.LlamaConfig;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Headers and metadata of GGUF files, right ones and wrong ones. */
class GgufHeaderTest {
  @TempDir Path directory;

  private static GgufBytes tiny() {
    return ForeignSeeds.tiny(GgufBytes.Q8_0);
  }

  private LlamaConfig config(GgufBytes file) {
    try (var source = open(file)) {
      return LlamaConfig.read(source);
    }
  }

  private ModelSource open(GgufBytes file) {
    try {
      return ModelSource.directory(Files.write(directory.resolve("m.gguf"), file.bytes()));
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {2, 3})
  void metadataBecomesAConfiguration(int version) {
    var file = new GgufBytes(version).string("general.architecture", "llama")
        .u16("llama.block_count", 3).u64("llama.context_length", 4096)
        .u32("llama.embedding_length", 64).ints("llama.feed_forward_length", 96, 96, 96)
        .ints("llama.attention.head_count", 4, 4, 4).u32("llama.attention.head_count_kv", 2)
        .f64("llama.attention.layer_norm_rms_epsilon", 1e-6).f32("llama.rope.freq_base", 5e5f)
        .u32("tokenizer.ggml.bos_token_id", 7).u32("tokenizer.ggml.eos_token_id", 8)
        .u32("tokenizer.ggml.eot_token_id", 9).alignment(64)
        .tensor("token_embd.weight", GgufBytes.F16, new byte[2 * 10 * 64], 10, 64)
        .tensor("output.weight", GgufBytes.F16, new byte[2 * 10 * 64], 10, 64);
    var config = config(file);
    assertThat(config.layers()).isEqualTo(3);
    assertThat(config.maxPositions()).isEqualTo(4096);
    assertThat(config.hiddenSize()).isEqualTo(64);
    assertThat(config.intermediateSize()).isEqualTo(96);
    assertThat(config.heads()).isEqualTo(4);
    assertThat(config.kvHeads()).isEqualTo(2);
    assertThat(config.headDim()).isEqualTo(16);
    assertThat(config.vocabSize()).isEqualTo(10);
    assertThat(config.rmsNormEps()).isEqualTo(1e-6f);
    assertThat(config.ropeTheta()).isEqualTo(5e5);
    assertThat(config.tiedEmbedding()).isFalse();
    assertThat(config.attentionBias()).isFalse();
    assertThat(config.bosToken()).isEqualTo(7);
    assertThat(config.eosTokens()).containsExactly(8, 9);
    try (var source = open(file)) {
      assertThat(source.has("tokenizer.json")).isFalse();
      assertThat(source.directory()).isEmpty();
      assertThat(ForeignCheckpoint.of(source)).isNull(); // floats only
    }
  }

  @Test
  void aFileIsKnownByItsNameOrItsFirstBytes() throws IOException {
    var bytes = tiny().bytes();
    for (var name : List.of("x.gguf", "blob")) {
      try (var source = ModelSource.directory(Files.write(directory.resolve(name), bytes))) {
        assertThat(source.name()).endsWith(name);
        assertThat(source.describe("config.json")).contains(name, "metadata");
      }
    }
    var other = Files.writeString(directory.resolve("y.gguf"), "not one of them");
    assertThatThrownBy(() -> ModelSource.directory(other))
        .isInstanceOf(ModelFormatException.class).hasMessageContainingAll("y.gguf", "GGUF");
    assertThatThrownBy(() -> ModelSource.directory(directory.resolve("none.gguf")))
        .isInstanceOf(ModelFormatException.class).hasMessageContaining("no such");
  }

  @Test
  void rowsOfQueriesAndKeysAreInOrder() {
    var rows = new byte[16 * 34];
    for (int row = 0; row < 16; row++) {
      rows[row * 34 + 2] = (byte) row;
    }
    var file = tiny().removeTensor("blk.0.attn_q.weight")
        .tensor("blk.0.attn_q.weight", GgufBytes.Q8_0, GgufBytes.permuted(rows, 16, 16), 16, 32)
        .tensor("blk.0.attn_v.weight", GgufBytes.Q8_0, rows, 16, 32);
    try (var source = open(file); var store = source.tensors()) {
      for (var name : List.of("q_proj", "v_proj")) {
        var bytes = new byte[rows.length];
        store.read("model.layers.0.self_attn." + name + ".weight", MemorySegment.ofArray(bytes));
        assertThat(bytes).containsExactly(rows);
      }
    }
  }

  /** Every file of the corpus that has a fault is refused, with what is wrong in the message. */
  @ParameterizedTest
  @CsvSource(delimiter = '|', value = {
    "empty                  | GGUF",
    "magic-only             | the version",
    "header-cut             | tensor_count",
    "metadata-cut           | metadata_kv_count",
    "data-cut               | truncated",
    "version-1              | version",
    "tensors-2-63           | tensor_count",
    "tensors-negative       | tensor_count",
    "pairs-2-60             | metadata_kv_count",
    "key-length-2-62        | a metadata key",
    "string-longer-than-file| x: count or length",
    "value-type-99          | value type 99",
    "array-count-2-61       | x: count or length",
    "array-of-arrays        | an array",
    "tokens-count-wrong     | tokenizer.ggml.tokens",
    "alignment-0            | general.alignment is 0",
    "alignment-24           | general.alignment is 24",
    "alignment-2-31         | general.alignment is 2147483648",
    "offset-unaligned       | offset 3",
    "offset-2-63            | offset 9223372036854775808",
    "overlap                | inside the tensor before it",
    "shape-overflows        | does not fit in 64 bits",
    "shape-zero             | a dimension of 0",
    "rank-5                 | rank 5",
    "row-not-whole-blocks   | multiple of 32",
    "name-twice             | is there twice",
    "type-unsupported       | type Q2_K",
    "head-count-0           | llama.attention.head_count is 0",
    "key-length-odd         | llama.attention.key_length is 17",
    "epsilon-nan            | layer_norm_rms_epsilon"
  })
  void faultsAreNamed(String name, String message) throws IOException {
    var file = Files.write(directory.resolve("m.gguf"), ForeignSeeds.gguf().get(name));
    assertThatThrownBy(() -> {
      try (var source = ModelSource.directory(file); var store = source.tensors()) {
        Tokenizer.load(source).close();
      }
    }).isInstanceOf(NibbleException.class).hasMessageContainingAll("m.gguf", message)
        .hasMessageNotContaining("\n");
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', value = {
    "general.architecture        | qwen2 | general.architecture is \"qwen2\"",
    "llama.rope.scaling.type     | yarn  | llama.rope.scaling.type is \"yarn\"",
    "llama.expert_count          | 8     | llama.expert_count is 8",
    "llama.rope.dimension_count  | 8     | llama.rope.dimension_count is 8",
    "llama.attention.value_length| 8     | llama.attention.value_length is 8",
    "split.count                 | 3     | split.count is 3"
  })
  void otherModelsAreNamed(String key, String value, String message) {
    var file = tiny();
    if (value.matches("[0-9]+")) {
      file.u32(key, Integer.parseInt(value));
    } else {
      file.string(key, value);
    }
    assertThatThrownBy(() -> open(file)).isInstanceOf(UnsupportedException.class)
        .hasMessageContainingAll("m.gguf", message);
  }

  @Test
  void otherTensorsAreNamed() {
    assertThatThrownBy(() -> open(tiny()
        .tensor("blk.0.attn_q_norm.weight", GgufBytes.F32, new byte[64], 16)))
        .isInstanceOf(UnsupportedException.class).hasMessageContaining("attn_q_norm");
    assertThatThrownBy(() -> open(tiny()
        .tensor("blk.0.attn_q.bias", GgufBytes.F32, new byte[64], 16)))
        .isInstanceOf(UnsupportedException.class).hasMessageContaining("all or none");
    assertThatThrownBy(() -> open(tiny().removeTensor("token_embd.weight")))
        .isInstanceOf(ModelFormatException.class).hasMessageContaining("token_embd.weight");
  }

  @Test
  void bigEndianFilesAreNamed() throws IOException {
    var bytes = tiny().bytes();
    System.arraycopy(new byte[] {0, 0, 0, 3}, 0, bytes, 4, 4);
    var file = Files.write(directory.resolve("m.gguf"), bytes);
    assertThatThrownBy(() -> ModelSource.directory(file))
        .isInstanceOf(UnsupportedException.class).hasMessageContaining("big-endian");
  }
}
