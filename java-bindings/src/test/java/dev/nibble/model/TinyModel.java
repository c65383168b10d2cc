// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
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
 * A small LLaMA with random weights, written as a Hugging Face directory by a writer that shares
 * nothing with the library. Fields are the knobs of a test; set them, then {@link #write}.
 */
final class TinyModel {
  int hidden = 64;
  int intermediate = 96;
  int layers = 2;
  int heads = 4;
  int kvHeads = 2;
  int headDim = 16;
  int vocabulary = 40;
  boolean tied = true;
  boolean attentionBias;
  boolean mlpBias;
  /** F32, F16 or BF16. */
  String dtype = "F32";
  int shards = 1;
  String rope = "\"rope_theta\": 10000.0";
  double[] frequencies; // null for plain RoPE with theta 10000

  /** A weight in its file's precision: shape and values. */
  record Weight(int[] shape, double[] values) {}

  final Map<String, Weight> weights = new LinkedHashMap<>();

  /** Draws all weights, rounded to dtype. */
  TinyModel draw(long seed) {
    var random = new Random(seed);
    matrix(random, "model.embed_tokens.weight", vocabulary, hidden, 1);
    for (int i = 0; i < layers; i++) {
      var p = "model.layers." + i + ".";
      vector(random, p + "input_layernorm.weight", hidden, 1);
      linear(random, p + "self_attn.q_proj", heads * headDim, hidden, attentionBias);
      linear(random, p + "self_attn.k_proj", kvHeads * headDim, hidden, attentionBias);
      linear(random, p + "self_attn.v_proj", kvHeads * headDim, hidden, attentionBias);
      linear(random, p + "self_attn.o_proj", hidden, heads * headDim, attentionBias);
      vector(random, p + "post_attention_layernorm.weight", hidden, 1);
      linear(random, p + "mlp.gate_proj", intermediate, hidden, mlpBias);
      linear(random, p + "mlp.up_proj", intermediate, hidden, mlpBias);
      linear(random, p + "mlp.down_proj", hidden, intermediate, mlpBias);
    }
    vector(random, "model.norm.weight", hidden, 1);
    if (!tied) {
      matrix(random, "lm_head.weight", vocabulary, hidden, 1 / Math.sqrt(hidden));
    }
    return this;
  }

  private void linear(Random random, String name, int rows, int cols, boolean bias) {
    matrix(random, name + ".weight", rows, cols, 1 / Math.sqrt(cols));
    if (bias) {
      vector(random, name + ".bias", rows, 0);
    }
  }

  private void matrix(Random random, String name, int rows, int cols, double deviation) {
    weights.put(name, new Weight(new int[] {rows, cols}, random.doubles((long) rows * cols, -1, 1)
        .map(u -> round(u * deviation * Math.sqrt(3))).toArray()));
  }

  private void vector(Random random, String name, int size, double center) {
    weights.put(name, new Weight(new int[] {size},
        random.doubles(size, -0.3, 0.3).map(u -> round(center + u)).toArray()));
  }

  private double round(double value) {
    return switch (dtype) {
      case "F16" -> Float.float16ToFloat(Float.floatToFloat16((float) value));
      // Dropping mantissa bits is a rounding too, and all that a test weight needs.
      case "BF16" -> Float.intBitsToFloat(Float.floatToIntBits((float) value) & 0xFFFF0000);
      default -> (float) value;
    };
  }

  ReferenceLlama reference() {
    var values = new LinkedHashMap<String, double[]>();
    weights.forEach((name, weight) -> values.put(name, weight.values()));
    var plain = new double[headDim / 2];
    for (int i = 0; i < plain.length; i++) {
      plain[i] = Math.pow(10_000, -2.0 * i / headDim);
    }
    return new ReferenceLlama(values, hidden, layers, heads, kvHeads, headDim, 1e-5,
        frequencies == null ? plain : frequencies, tied);
  }

  String config() {
    return """
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
         "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": %d,
         "num_attention_heads": %d, "num_key_value_heads": %d, "head_dim": %d, "vocab_size": %d,
         "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": %b,
         "attention_bias": %b, "mlp_bias": %b, "bos_token_id": 0, "eos_token_id": [1, 2], %s}
        """.formatted(hidden, intermediate, layers, heads, kvHeads, headDim, vocabulary, tied,
        attentionBias, mlpBias, rope);
  }

  /** Writes the directory and returns it. */
  Path write(Path directory) {
    try {
      Files.createDirectories(directory);
      Files.writeString(directory.resolve("config.json"), config());
      var names = List.copyOf(weights.keySet());
      if (shards == 1) {
        Files.write(directory.resolve("model.safetensors"), safetensors(names));
        return directory;
      }
      var index = new StringJoiner(", ", "{\"weight_map\": {", "}}");
      for (int shard = 0; shard < shards; shard++) {
        var file = "model-%05d-of-%05d.safetensors".formatted(shard + 1, shards);
        var part = new ArrayList<String>();
        for (int i = shard; i < names.size(); i += shards) {
          part.add(names.get(i));
          index.add("\"" + names.get(i) + "\": \"" + file + "\"");
        }
        Files.write(directory.resolve(file), safetensors(part));
      }
      Files.writeString(directory.resolve("model.safetensors.index.json"), index.toString());
      return directory;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private byte[] safetensors(List<String> names) throws IOException {
    var header = new StringJoiner(", ", "{", "}");
    var data = new ByteArrayOutputStream();
    for (var name : names) {
      var weight = weights.get(name);
      int begin = data.size();
      data.write(encode(weight.values()));
      header.add("\"%s\": {\"dtype\": \"%s\", \"shape\": %s, \"data_offsets\": [%d, %d]}".formatted(
          name, dtype, Arrays.toString(weight.shape()), begin, data.size()));
    }
    var json = header.toString().getBytes(StandardCharsets.UTF_8);
    var file = ByteBuffer.allocate(8 + json.length + data.size()).order(ByteOrder.LITTLE_ENDIAN);
    return file.putLong(json.length).put(json).put(data.toByteArray()).array();
  }

  private byte[] encode(double[] values) {
    boolean wide = dtype.endsWith("32");
    var bytes =
        ByteBuffer.allocate(values.length * (wide ? 4 : 2)).order(ByteOrder.LITTLE_ENDIAN);
    for (double value : values) {
      switch (dtype) {
        case "F16" -> bytes.putShort(Float.floatToFloat16((float) value));
        case "BF16" -> bytes.putShort((short) (Float.floatToRawIntBits((float) value) >>> 16));
        default -> bytes.putFloat((float) value);
      }
    }
    return bytes.array();
  }
}
