// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/** The embedded model as a GGUF file: its tokenizer, and its weights in F32. */
public final class FableGguf {
  private FableGguf() {}

  /** The tokenizer alone. */
  public static GgufBytes tokenizer(GgufBytes file) {
    try (var source = ModelSource.embedded()) {
      var json = Json.parseObject(source.read("tokenizer.json"), "tokenizer.json");
      var model = (Map<?, ?>) json.get("model");
      var vocabulary = (Map<?, ?>) model.get("vocab");
      var tokens = new String[vocabulary.size()];
      vocabulary.forEach((token, id) -> tokens[((Long) id).intValue()] = (String) token);
      var types = new int[tokens.length];
      Arrays.fill(types, 1);
      types[0] = 3;
      types[1] = 3;
      var merges = new ArrayList<String>();
      for (var merge : (List<?>) model.get("merges")) {
        var pair = (List<?>) merge;
        merges.add(pair.get(0) + " " + pair.get(1));
      }
      return file.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "llama-bpe")
          .strings("tokenizer.ggml.tokens", List.of(tokens))
          .ints("tokenizer.ggml.token_type", types)
          .strings("tokenizer.ggml.merges", merges)
          .u32("tokenizer.ggml.bos_token_id", 0).u32("tokenizer.ggml.eos_token_id", 1);
    }
  }

  /** The whole model. */
  public static GgufBytes whole() {
    var file = new GgufBytes().string("general.architecture", "llama")
        .string("general.name", "fable-4m").u32("llama.block_count", 4)
        .u32("llama.context_length", 1024).u32("llama.embedding_length", 256)
        .u32("llama.feed_forward_length", 768).u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2).u32("llama.rope.dimension_count", 64)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5f)
        .f32("llama.rope.freq_base", 10_000).u32("llama.vocab_size", 4096);
    tokenizer(file);
    try (var source = ModelSource.embedded(); var store = source.tensors()) {
      for (var name : store.names()) {
        var info = store.info(name);
        var bytes = new byte[(int) info.byteLength()];
        store.read(name, MemorySegment.ofArray(bytes));
        // BF16 in the model's file.
        var shorts = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asShortBuffer();
        var values = new double[shorts.remaining()];
        for (int i = 0; i < values.length; i++) {
          values[i] = Float.intBitsToFloat(shorts.get(i) << 16);
        }
        var data = GgufBytes.floatBytes(values);
        if (name.contains("q_proj") || name.contains("k_proj")) {
          data = GgufBytes.permuted(data, (int) info.dim(0), 64);
        }
        file.tensor(ggufName(name), GgufBytes.F32, data, info.shape());
      }
      return file;
    }
  }

  private static String ggufName(String name) {
    return name.replace("model.embed_tokens", "token_embd").replace("model.norm", "output_norm")
        .replace("model.layers.", "blk.").replace("input_layernorm", "attn_norm")
        .replace("post_attention_layernorm", "ffn_norm")
        .replace("self_attn.o_proj", "attn_output").replace("self_attn.", "attn_")
        .replace("mlp.", "ffn_").replace("_proj", "");
  }
}
