// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.InvalidArgumentException;
import dev.nibble.model.SyntheticConfigs;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class GgufTest {

  private static final String SHAPE = "256x2x512x4x2x767";

  @ParameterizedTest
  @EnumSource(Gguf.FileType.class)
  void aReaderFindsEveryTensor(Gguf.FileType type, @TempDir Path directory) throws IOException {
    var path = directory.resolve("model.gguf");
    long read = Gguf.write(path, SyntheticConfigs.of(SHAPE), type);
    var file = ByteBuffer.wrap(Files.readAllBytes(path)).order(ByteOrder.LITTLE_ENDIAN);
    assertThat(file.getInt()).isEqualTo(0x46554747); // "GGUF"
    assertThat(file.getInt()).isEqualTo(3);
    long tensors = file.getLong();
    long entries = file.getLong();
    assertThat(tensors).isEqualTo(2 + 2 * 9);
    var metadata = new LinkedHashMap<String, Object>();
    for (long i = 0; i < entries; i++) {
      var key = string(file);
      metadata.put(key, switch (file.getInt()) {
        case 4 -> (Object) file.getInt();
        case 6 -> file.getFloat();
        case 8 -> string(file);
        default -> throw new AssertionError(key);
      });
    }
    assertThat(metadata).containsAllEntriesOf(Map.of("general.architecture", "llama",
        "llama.embedding_length", 256, "llama.block_count", 2, "llama.feed_forward_length", 512,
        "llama.attention.head_count", 4, "llama.attention.head_count_kv", 2,
        "llama.vocab_size", 767, "tokenizer.ggml.model", "no_vocab"));

    var sizes = Map.of(0, new long[] {1, 4}, 1, new long[] {1, 2}, 2, new long[] {32, 18},
        8, new long[] {32, 34}, 14, new long[] {256, 210});
    long end = 0;
    long matrices = 0;
    for (long i = 0; i < tensors; i++) {
      var name = string(file);
      int rank = file.getInt();
      long columns = file.getLong();
      long rows = rank == 2 ? file.getLong() : 1;
      var block = sizes.get(file.getInt());
      long bytes = rows * columns / block[0] * block[1];
      assertThat(file.getLong()).as(name).isEqualTo(end);
      end += (bytes + 31) / 32 * 32;
      matrices += rank == 2 ? bytes : 0;
      if (name.equals("blk.1.ffn_down.weight")) {
        assertThat(columns).isEqualTo(512);
        assertThat(rows).isEqualTo(256);
      }
    }
    long data = (file.position() + 31) / 32 * 32;
    assertThat(Files.size(path)).isEqualTo(data + end);
    assertThat(read).isEqualTo(matrices); // the head is tied: every matrix is read
  }

  @Test
  void sizesThatDoNotFitTheBlocksAreNamed(@TempDir Path directory) {
    assertThatThrownBy(() -> Gguf.write(directory.resolve("m.gguf"),
        SyntheticConfigs.of("128x1"), Gguf.FileType.Q4_0))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessage("token_embd.weight: 128 columns, but Q6_K needs a multiple of 256");
  }

  private static String string(ByteBuffer file) {
    var bytes = new byte[Math.toIntExact(file.getLong())];
    file.get(bytes);
    return new String(bytes, StandardCharsets.UTF_8);
  }
}
