// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.io.GgufBlocks;
import dev.nibble.io.GgufBytes;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;
import java.util.function.ToIntFunction;

/** Writes a {@link TinyModel} as a GGUF file, its weights replaced by what its blocks hold. */
final class ForeignFiles {
  private ForeignFiles() {}

  /** A model whose rows are whole superblocks. */
  static TinyModel tiny() {
    var tiny = new TinyModel();
    tiny.hidden = 256;
    tiny.intermediate = 512;
    tiny.heads = 4;
    tiny.kvHeads = 2;
    tiny.headDim = 64;
    tiny.vocabulary = 48;
    return tiny;
  }

  /** GGUF's name of a tensor. */
  static String gguf(String name) {
    return name.replace("model.embed_tokens", "token_embd").replace("lm_head", "output")
        .replace("model.norm", "output_norm").replace("model.layers.", "blk.")
        .replace("input_layernorm", "attn_norm").replace("post_attention_layernorm", "ffn_norm")
        .replace("self_attn.o_proj", "attn_output").replace("self_attn.", "attn_")
        .replace("mlp.", "ffn_").replace("_proj", "");
  }

  /** The metadata of a model. */
  static GgufBytes metadata(TinyModel tiny) {
    var file = new GgufBytes();
    return file.string("general.architecture", "llama").u32("llama.block_count", tiny.layers)
        .u32("llama.context_length", 128).u32("llama.embedding_length", tiny.hidden)
        .u32("llama.feed_forward_length", tiny.intermediate)
        .u32("llama.attention.head_count", tiny.heads)
        .u32("llama.attention.head_count_kv", tiny.kvHeads)
        .u32("llama.attention.key_length", tiny.headDim)
        .u32("llama.attention.value_length", tiny.headDim)
        .u32("llama.rope.dimension_count", tiny.headDim)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5f)
        .f32("llama.rope.freq_base", 10_000);
  }

  /**
   * The file of a model that was drawn.
   *
   * @param typeOf the number of the type for each matrix, by its Hugging Face name
   */
  static GgufBytes file(TinyModel tiny, ToIntFunction<String> typeOf, long seed) {
    var file = metadata(tiny);
    var random = new Random(seed);
    for (var name : List.copyOf(tiny.weights.keySet())) {
      var weight = tiny.weights.get(name);
      var shape = weight.shape();
      int type = shape.length == 1 ? GgufBytes.F32 : typeOf.applyAsInt(name);
      byte[] data;
      if (type == GgufBytes.F32) {
        data = GgufBytes.floatBytes(weight.values());
      } else if (type == GgufBytes.F16 || type == GgufBytes.BF16) {
        data = floats(weight.values(), type);
      } else {
        double deviation = name.contains("embed") ? 1 : 1 / Math.sqrt(shape[1]);
        var blocks = GgufBlocks.random(type, shape[0] * shape[1], deviation, random);
        tiny.weights.put(name, new TinyModel.Weight(shape, blocks.values()));
        data = blocks.data();
      }
      if (name.contains("q_proj") || name.contains("k_proj")) {
        data = GgufBytes.permuted(data, shape[0], tiny.headDim);
      }
      var sizes = new long[shape.length];
      for (int i = 0; i < sizes.length; i++) {
        sizes[i] = shape[i];
      }
      file.tensor(gguf(name), type, data, sizes);
    }
    return file;
  }

  /** Rounds values to the type, in place; returns their bytes. */
  private static byte[] floats(double[] values, int type) {
    var bytes = new byte[2 * values.length];
    for (int i = 0; i < values.length; i++) {
      float value = (float) values[i];
      int bits = type == GgufBytes.F16
          ? Float.floatToFloat16(value) : Float.floatToRawIntBits(value) >>> 16;
      values[i] = type == GgufBytes.F16
          ? Float.float16ToFloat((short) bits) : Float.intBitsToFloat(bits << 16);
      bytes[2 * i] = (byte) bits;
      bytes[2 * i + 1] = (byte) (bits >> 8);
    }
    return bytes;
  }

  static Path write(Path file, GgufBytes gguf) {
    try {
      return Files.write(file, gguf.bytes());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
