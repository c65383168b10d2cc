// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.UnsupportedException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;

/**
 * What {@code config.json} would say of the model in a GGUF file: architecture {@code llama}, its
 * sizes, rotary embedding, and the tokens that begin and end a text.
 */
final class GgufConfig {
  private static final String ARCHITECTURE = "llama";
  private static final double DEFAULT_THETA = 10_000;
  private static final int MAX_HEAD_DIM = 1 << 16;
  /** What ends a text: of the whole, of a turn, of a message. */
  private static final List<String> END_TOKENS = List.of("tokenizer.ggml.eos_token_id",
      "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id");
  private static final int NO_TOKEN = -1;

  private final GgufHeader header;
  private final GgufMetadata metadata;
  private final ByteSource source;

  private GgufConfig(GgufHeader header, ByteSource source) {
    this.header = header;
    this.metadata = header.metadata();
    this.source = source;
  }

  /**
   * The configuration, in Hugging Face's names.
   *
   * @param source the file, for the divisors of the rotary frequencies
   */
  static Map<String, Object> of(GgufHeader header, ByteSource source) {
    return new GgufConfig(header, source).map();
  }

  /** Elements of a head: what the rows of Q and K are permuted within. */
  static int headDim(GgufHeader header) {
    var metadata = header.metadata();
    int heads = metadata.layered("llama.attention.head_count", null);
    int hidden = metadata.integer("llama.embedding_length", null);
    if (heads < 1 || !metadata.has("llama.attention.key_length") && hidden % heads != 0) {
      throw metadata.unexpected("llama.attention.head_count",
          "a divisor of llama.embedding_length, " + hidden);
    }
    int size = metadata.integer("llama.attention.key_length", hidden / heads);
    if (size < 2 || size > MAX_HEAD_DIM || size % 2 != 0) {
      throw metadata.unexpected("llama.attention.key_length", "an even number from 2 to "
          + MAX_HEAD_DIM);
    }
    return size;
  }

  private Map<String, Object> map() {
    checkKind();
    int headDim = headDim(header);
    int heads = metadata.layered("llama.attention.head_count", null);
    var config = new LinkedHashMap<String, Object>();
    config.put("architectures", List.of("LlamaForCausalLM"));
    config.put("model_type", "llama");
    config.put("hidden_act", "silu");
    config.put("hidden_size", metadata.integer("llama.embedding_length", null));
    config.put("intermediate_size", metadata.layered("llama.feed_forward_length", null));
    config.put("num_hidden_layers", metadata.integer("llama.block_count", null));
    config.put("num_attention_heads", heads);
    config.put("num_key_value_heads", metadata.layered("llama.attention.head_count_kv", heads));
    config.put("head_dim", headDim);
    config.put("vocab_size", vocabulary());
    config.put("max_position_embeddings", metadata.integer("llama.context_length", null));
    config.put("rms_norm_eps", metadata.number("llama.attention.layer_norm_rms_epsilon", null));
    config.put("rope_theta", metadata.number("llama.rope.freq_base", DEFAULT_THETA));
    config.put("rope_scaling", scaling(headDim));
    config.put("tie_word_embeddings", !header.tensors().containsKey("output.weight"));
    config.put("attention_bias", bias("attn_q", "attn_k", "attn_v", "attn_output"));
    config.put("mlp_bias", bias("ffn_gate", "ffn_up", "ffn_down"));
    config.put("bos_token_id", metadata.has("tokenizer.ggml.bos_token_id")
        ? metadata.integer("tokenizer.ggml.bos_token_id", null) : NO_TOKEN);
    config.put("eos_token_id", endTokens());
    if (header.tensors().values().stream().anyMatch(tensor -> !tensor.type().isFloat())) {
      config.put(CheckpointNames.QUANTIZATION_CONFIG, Map.of("quant_method", "gguf"));
    }
    return config;
  }

  private void checkKind() {
    var architecture = metadata.text("general.architecture", null);
    if (!ARCHITECTURE.equals(architecture)) {
      throw unsupported("general.architecture", architecture, "\"" + ARCHITECTURE + '"');
    }
    int parts = metadata.integer("split.count", 0);
    if (parts > 1) {
      throw unsupported("split.count", parts, "a file that has not been split");
    }
    int experts = metadata.integer("llama.expert_count", 0);
    if (experts > 0) {
      throw unsupported("llama.expert_count", experts, "no experts");
    }
    int headDim = headDim(header);
    int values = metadata.integer("llama.attention.value_length", headDim);
    if (values != headDim) {
      throw unsupported("llama.attention.value_length", values, headDim
          + ", the length of the keys");
    }
    int rotated = metadata.integer("llama.rope.dimension_count", headDim);
    if (rotated != headDim) {
      throw unsupported("llama.rope.dimension_count", rotated, headDim + ", the whole head");
    }
    for (var tensor : header.tensors().keySet()) {
      if (GgufNames.huggingFace(tensor) == null && !GgufNames.isIgnored(tensor)) {
        throw new UnsupportedException(header.file() + ": tensor " + Problem.quote(tensor)
            + ": no part of a LLaMA that Nibble runs");
      }
    }
  }

  /** Rows of the embedding; the tokens of the vocabulary may be fewer. */
  private int vocabulary() {
    var embedding = header.tensors().get("token_embd.weight");
    if (embedding == null || embedding.shape().size() != 2
        || embedding.shape().getFirst() > GgufTokenizer.MAX_TOKENS) {
      throw Problem.inTensor(header.file(), "token_embd.weight",
          embedding == null ? "missing" : "shape " + embedding.shape() + ", expected a matrix of at"
              + " most " + GgufTokenizer.MAX_TOKENS + " rows");
    }
    int rows = (int) (long) embedding.shape().getFirst();
    if (metadata.count("tokenizer.ggml.tokens") > rows) {
      throw Problem.in(header.file(), "tokenizer.ggml.tokens has "
          + metadata.count("tokenizer.ggml.tokens") + " tokens, but token_embd.weight " + rows
          + " rows");
    }
    return rows;
  }

  private Object scaling(int headDim) {
    var factors = header.tensors().get(GgufNames.ROPE_FACTORS);
    var type = metadata.text("llama.rope.scaling.type", "none");
    double factor = metadata.number("llama.rope.scaling.factor",
        metadata.number("llama.rope.scale_linear", 1.0));
    switch (type) {
      case "none" -> { }
      case "linear" -> {
        if (factors != null && factor != 1) {
          throw unsupported("llama.rope.scaling.type", type,
              "\"none\" beside " + GgufNames.ROPE_FACTORS);
        }
      }
      default -> throw unsupported("llama.rope.scaling.type", type, "\"none\" or \"linear\"");
    }
    if (factors != null) {
      return Map.of("rope_type", "factors", "factors", factors(factors, headDim));
    }
    // Files from before llama.rope.scaling.type have scale_linear alone.
    boolean linear = factor != 1 && (type.equals("linear")
        || !metadata.has("llama.rope.scaling.type"));
    return linear ? Map.of("rope_type", "linear", "factor", factor) : null;
  }

  private List<Object> factors(GgufHeader.Tensor tensor, int headDim) {
    if (tensor.type() != GgufType.F32 || !tensor.shape().equals(List.of(headDim / 2L))) {
      throw Problem.inTensor(header.file(), tensor.name(), tensor.type() + " " + tensor.shape()
          + ", expected F32 [" + headDim / 2 + "]");
    }
    var bytes = new byte[2 * headDim];
    source.read(tensor.offset(), MemorySegment.ofArray(bytes));
    var values = new ArrayList<Object>();
    for (int i = 0; i < headDim / 2; i++) {
      float value = MemorySegment.ofArray(bytes).get(
          ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN), 4L * i);
      if (!(value > 0 && value <= 1e6f)) {
        throw Problem.inTensor(header.file(), tensor.name(), "element " + i + " is " + value
            + ", expected above 0, at most 1e6");
      }
      values.add((double) value);
    }
    return values;
  }

  /** Whether all of these have a bias, in all blocks; some with and some without is refused. */
  private boolean bias(String... parts) {
    long expected = (long) parts.length * metadata.integer("llama.block_count", null);
    long found = 0;
    for (var tensor : header.tensors().keySet()) {
      for (var part : parts) {
        found += tensor.endsWith("." + part + ".bias") ? 1 : 0;
      }
    }
    if (found != 0 && found != expected) {
      throw new UnsupportedException(header.file() + ": " + found + " of the " + expected
          + " tensors \"" + String.join("\", \"", parts) + "\" have a bias, expected all or none");
    }
    return found != 0;
  }

  private List<Object> endTokens() {
    var tokens = new LinkedHashSet<Object>();
    for (var key : END_TOKENS) {
      if (metadata.has(key)) {
        tokens.add(metadata.integer(key, null));
      }
    }
    return List.copyOf(tokens);
  }

  private UnsupportedException unsupported(String key, Object value, String expected) {
    return new UnsupportedException(header.file() + ": " + key + " is "
        + (value == null ? "missing" : Problem.show(value))
        + ", which Nibble does not run; expected " + expected);
  }
}
