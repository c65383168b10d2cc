// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.StringJoiner;

/**
 * Small files for the fuzz tests: whole ones, and ones with a fault that a reader has to find. Run
 * {@link #main} with the folder of the test resources to write the corpus again.
 */
final class ForeignSeeds {
  private static final int MAX_TOKENS = 40;

  private ForeignSeeds() {}

  /** Writes the corpus of {@code ForeignFuzzTest} under resources. */
  public static void main(String[] arguments) throws IOException {
    var inputs = Path.of(arguments[0], "dev", "nibble", "io", "ForeignFuzzTestInputs");
    write(inputs.resolve("gguf"), gguf());
    write(inputs.resolve("packed"), packed());
  }

  private static void write(Path folder, Map<String, byte[]> files) throws IOException {
    Files.createDirectories(folder);
    for (var file : files.entrySet()) {
      Files.write(folder.resolve(file.getKey()), file.getValue());
    }
  }

  /** A model of one block and one head, 32 wide, in a type of blocks of 32. */
  static GgufBytes tiny(int type) {
    int width = type >= GgufBytes.Q4_K && type <= GgufBytes.Q6_K ? 256 : 32;
    var file = new GgufBytes().string("general.architecture", "llama").u32("llama.block_count", 1)
        .u32("llama.context_length", 64).u32("llama.embedding_length", width)
        .u32("llama.feed_forward_length", width).u32("llama.attention.head_count", 1)
        .u32("llama.attention.key_length", 16).u32("llama.rope.dimension_count", 16)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    var random = new Random(type);
    var block = GgufBlocks.random(type, 16 * width, 1, random).data();
    file.tensor("token_embd.weight", type, block, 16, width);
    file.tensor("blk.0.attn_q.weight", type, GgufBytes.permuted(block, 16, 16), 16, width);
    file.tensor("output_norm.weight", GgufBytes.F32, new byte[4 * width], width);
    return file;
  }

  private static GgufBytes words(GgufBytes file) {
    var tokens = new ArrayList<>(List.of("<unk>", "<s>", "</s>", "\u2581", "k", "i", "n",
        "g", "ki", "ng", "king"));
    while (tokens.size() < 16) {
      tokens.add("<0x%02X>".formatted(tokens.size()));
    }
    var scores = new float[16];
    var types = new int[16];
    for (int i = 0; i < 16; i++) {
      scores[i] = -i;
      types[i] = i == 0 ? 2 : i < 3 ? 3 : i < 11 ? 1 : 6;
    }
    return file.string("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", tokens)
        .floats("tokenizer.ggml.scores", scores).ints("tokenizer.ggml.token_type", types)
        .u32("tokenizer.ggml.bos_token_id", 1);
  }

  private static GgufBytes letters(GgufBytes file) {
    return file.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "llama-bpe")
        .strings("tokenizer.ggml.tokens", List.of("<s>", "k", "i", "n", "g", "ki", "ng", "\u0120"))
        .ints("tokenizer.ggml.token_type", 3, 1, 1, 1, 1, 1, 1, 1)
        .strings("tokenizer.ggml.merges", List.of("k i", "n g"))
        .u32("tokenizer.ggml.bos_token_id", 0);
  }

  private static byte[] longs(long... values) {
    var buffer = ByteBuffer.allocate(8 * values.length).order(ByteOrder.LITTLE_ENDIAN);
    buffer.asLongBuffer().put(values);
    return buffer.array();
  }

  private static byte[] array(int type, long count, int bytes) {
    return ByteBuffer.allocate(16 + bytes).order(ByteOrder.LITTLE_ENDIAN).putInt(9).putInt(type)
        .putLong(count).array();
  }

  /** Files by name. */
  static Map<String, byte[]> gguf() {
    var files = new LinkedHashMap<String, byte[]>();
    for (int type : new int[] {GgufBytes.Q4_0, GgufBytes.Q4_1, GgufBytes.Q5_0, GgufBytes.Q5_1,
        GgufBytes.Q8_0, GgufBytes.Q4_K, GgufBytes.Q5_K, GgufBytes.Q6_K}) {
      files.put("type-" + type, tiny(type).bytes());
    }
    var good = words(tiny(GgufBytes.Q8_0)).bytes();
    files.put("pieces", good);
    files.put("letters", letters(tiny(GgufBytes.Q8_0)).bytes());
    files.put("empty", new byte[0]);
    files.put("magic-only", Arrays.copyOf(good, 4));
    files.put("header-cut", Arrays.copyOf(good, 23));
    files.put("metadata-cut", Arrays.copyOf(good, 200));
    files.put("data-cut", Arrays.copyOf(good, good.length - 1));
    files.put("version-1", patched(good, 4, longs(1)[0], 1));
    files.put("tensors-2-63", patchedLong(good, 8, Long.MAX_VALUE));
    files.put("tensors-negative", patchedLong(good, 8, -1));
    files.put("pairs-2-60", patchedLong(good, 16, 1L << 60));
    files.put("key-length-2-62", patchedLong(good, 24, 1L << 62));
    files.put("string-longer-than-file", tiny(GgufBytes.Q8_0)
        .raw("x", ByteBuffer.allocate(12).order(ByteOrder.LITTLE_ENDIAN).putInt(8)
            .putLong(1L << 40).array()).bytes());
    files.put("value-type-99", tiny(GgufBytes.Q8_0)
        .raw("x", new byte[] {99, 0, 0, 0, 0}).bytes());
    files.put("array-count-2-61", tiny(GgufBytes.Q8_0).raw("x", array(6, 1L << 61, 8)).bytes());
    files.put("array-of-arrays", tiny(GgufBytes.Q8_0).raw("x", array(9, 1, 12)).bytes());
    files.put("tokens-count-wrong", words(tiny(GgufBytes.Q8_0))
        .raw("tokenizer.ggml.tokens", array(8, 3, 4)).bytes());
    files.put("alignment-0", tiny(GgufBytes.Q8_0).u32("general.alignment", 0).bytes());
    files.put("alignment-24", tiny(GgufBytes.Q8_0).u32("general.alignment", 24).bytes());
    files.put("alignment-2-31", tiny(GgufBytes.Q8_0).u32("general.alignment", 1L << 31).bytes());
    files.put("offset-unaligned",
        tiny(GgufBytes.Q8_0).tensorAt(3, "blk.0.ffn_up.weight", 0, new byte[4], 1).bytes());
    files.put("offset-2-63",
        tiny(GgufBytes.Q8_0).tensorAt(1L << 63, "blk.0.ffn_up.weight", 0, new byte[4], 1).bytes());
    files.put("overlap",
        tiny(GgufBytes.Q8_0).tensorAt(0, "blk.0.ffn_up.weight", 0, new byte[4], 1).bytes());
    files.put("shape-overflows", tiny(GgufBytes.Q8_0).tensor("blk.0.ffn_up.weight", 0,
        new byte[4], 1L << 40, 1L << 40).bytes());
    files.put("shape-zero",
        tiny(GgufBytes.Q8_0).tensor("blk.0.ffn_up.weight", 0, new byte[4], 0, 4).bytes());
    files.put("rank-5", tiny(GgufBytes.Q8_0)
        .tensor("blk.0.ffn_up.weight", 0, new byte[4], 1, 1, 1, 1, 1).bytes());
    files.put("row-not-whole-blocks", tiny(GgufBytes.Q8_0)
        .tensor("blk.0.ffn_up.weight", GgufBytes.Q8_0, new byte[34], 1, 31).bytes());
    files.put("name-twice", tiny(GgufBytes.Q8_0)
        .tensor("output_norm.weight", 0, new byte[128], 32).bytes());
    files.put("type-unsupported", tiny(GgufBytes.Q8_0)
        .tensor("blk.0.ffn_up.weight", 10, new byte[84], 1, 256).bytes());
    files.put("head-count-0",
        tiny(GgufBytes.Q8_0).u32("llama.attention.head_count", 0).bytes());
    files.put("key-length-odd",
        tiny(GgufBytes.Q8_0).u32("llama.attention.key_length", 17).bytes());
    files.put("embedding-length-2-31",
        tiny(GgufBytes.Q8_0).u32("llama.embedding_length", Integer.MAX_VALUE).bytes());
    files.put("epsilon-nan", tiny(GgufBytes.Q8_0)
        .f32("llama.attention.layer_norm_rms_epsilon", Float.NaN).bytes());
    files.put("scores-nan", words(tiny(GgufBytes.Q8_0))
        .floats("tokenizer.ggml.scores", new float[] {Float.NaN}).bytes());
    files.put("merges-without-space", letters(tiny(GgufBytes.Q8_0))
        .strings("tokenizer.ggml.merges", List.of("ki")).bytes());
    files.put("token-empty-special", letters(tiny(GgufBytes.Q8_0))
        .strings("tokenizer.ggml.tokens",
            List.of("", "k", "i", "n", "g", "ki", "ng", "\u0120")).bytes());
    var runs = new ArrayList<String>();
    for (int i = 1; i <= MAX_TOKENS; i++) {
      runs.add("a".repeat(i));
    }
    files.put("merges-many", new GgufBytesOf(runs).file().bytes());
    return files;
  }

  /** Pieces that are all prefixes of each other: as many merges as there can be. */
  private record GgufBytesOf(List<String> runs) {
    GgufBytes file() {
      var file = tiny(GgufBytes.Q8_0).removeTensor("token_embd.weight")
          .tensor("token_embd.weight", GgufBytes.F32, new byte[4 * 32 * MAX_TOKENS],
              MAX_TOKENS, 32);
      return file.string("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", runs)
          .floats("tokenizer.ggml.scores", new float[MAX_TOKENS]);
    }
  }

  private static byte[] patched(byte[] bytes, int at, byte value, int count) {
    var result = bytes.clone();
    Arrays.fill(result, at, at + count, value);
    return result;
  }

  private static byte[] patchedLong(byte[] bytes, int at, long value) {
    var result = bytes.clone();
    System.arraycopy(longs(value), 0, result, at, 8);
    return result;
  }

  // ---- directories ---------------------------------------------------------------------------

  private static final String CONFIG = """
      {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32,
       "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 16,
       "vocab_size": 16, "quantization_config": %s}""";
  private static final String GPTQ =
      "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 16}";
  private static final String AWQ =
      "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 16, \"version\": \"gemm\"}";
  private static final String COMPRESSED = """
      {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups":
       {"g": {"weights": {"num_bits": 4, "type": "int", "strategy": "group",
       "group_size": 16}}}}""";

  /** A safetensors file of tensors "name dtype [shape]" with random bytes. */
  private static byte[] tensors(String... tensors) {
    var header = new StringJoiner(",", "{", "}");
    int at = 0;
    for (var tensor : tensors) {
      var parts = tensor.split(" ", 3);
      int bytes = switch (parts[1]) {
        case "I8" -> 1;
        case "F16", "BF16" -> 2;
        case "I64" -> 8;
        default -> 4;
      };
      for (var size : parts[2].replaceAll("[\\[\\] ]", "").split(",")) {
        bytes *= Integer.parseInt(size);
      }
      header.add("\"model.layers.0.self_attn.%s\":{\"dtype\":\"%s\",\"shape\":%s,".formatted(
          parts[0], parts[1], parts[2]) + "\"data_offsets\":[" + at + "," + (at + bytes) + "]}");
      at += bytes;
    }
    var json = header.toString().getBytes(StandardCharsets.UTF_8);
    var data = new byte[at];
    new Random(at).nextBytes(data);
    return ByteBuffer.allocate(8 + json.length + at).order(ByteOrder.LITTLE_ENDIAN)
        .putLong(json.length).put(json).put(data).array();
  }

  private static byte[] directory(String config, String... tensors) {
    return ForeignTargets.join(CONFIG.formatted(config), tensors(tensors));
  }

  /** Directories by name, as {@link ForeignTargets#packed} takes them. */
  static Map<String, byte[]> packed() {
    var files = new LinkedHashMap<String, byte[]>();
    files.put("gptq", directory(GPTQ, "q_proj.qweight I32 [4,16]", "q_proj.qzeros I32 [2,2]",
        "q_proj.scales F16 [2,16]", "k_proj.qweight I32 [4,16]", "k_proj.qzeros I32 [2,2]",
        "k_proj.scales F32 [2,16]"));
    files.put("gptq-order", directory(GPTQ, "q_proj.qweight I32 [4,16]",
        "q_proj.qzeros I32 [2,2]", "q_proj.scales F16 [2,16]", "q_proj.g_idx I32 [32]"));
    files.put("awq", directory(AWQ, "q_proj.qweight I32 [32,2]", "q_proj.qzeros I32 [2,2]",
        "q_proj.scales F16 [2,16]"));
    files.put("compressed", directory(COMPRESSED, "q_proj.weight_packed I32 [16,4]",
        "q_proj.weight_scale BF16 [16,2]"));
    files.put("compressed-zeros", directory(COMPRESSED, "q_proj.weight_packed I32 [16,4]",
        "q_proj.weight_scale BF16 [16,2]", "q_proj.weight_zero_point I32 [2,2]"));
    files.put("compressed-zero-bytes", directory(COMPRESSED, "q_proj.weight_packed I32 [16,4]",
        "q_proj.weight_scale BF16 [16,2]", "q_proj.weight_zero_point I8 [16,2]"));
    files.put("compressed-shape", directory(COMPRESSED, "q_proj.weight_packed I32 [16,4]",
        "q_proj.weight_scale BF16 [16,2]", "q_proj.weight_shape I64 [2]"));
    files.put("scales-missing", directory(GPTQ, "q_proj.qweight I32 [4,16]",
        "q_proj.qzeros I32 [2,2]"));
    files.put("scales-vector", directory(GPTQ, "q_proj.qweight I32 [4,16]",
        "q_proj.qzeros I32 [2,2]", "q_proj.scales F16 [32]"));
    files.put("no-groups", directory(GPTQ.replace("16", "-1"), "q_proj.qweight I32 [4,16]",
        "q_proj.qzeros I32 [0,2]", "q_proj.scales F16 [0,16]"));
    files.put("group-of-1", directory(GPTQ.replace("16", "1"), "q_proj.qweight I32 [4,16]",
        "q_proj.qzeros I32 [32,2]", "q_proj.scales F16 [32,16]"));
    files.put("group-size-text", directory(GPTQ.replace("16", "\"a\""),
        "q_proj.qweight I32 [4,16]"));
    files.put("config-groups-empty", directory(
        COMPRESSED.replaceFirst("(?s)\"g\".*", "}}"), "q_proj.weight_packed I32 [16,4]"));
    files.put("config-groups-text", directory(
        COMPRESSED.replaceFirst("(?s)\\{\"g\".*", "3}"), "q_proj.weight_packed I32 [16,4]"));
    files.put("config-only", CONFIG.formatted(AWQ).getBytes(StandardCharsets.UTF_8));
    return files;
  }
}
