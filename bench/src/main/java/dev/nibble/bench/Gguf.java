// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.InvalidArgumentException;
import dev.nibble.model.LlamaConfig;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;

/**
 * Writes a LLaMA model of random weights in GGUF, version 3, for other programs to be timed on.
 *
 * <p>The format is the public specification {@code docs/gguf.md} of the ggml project: a header,
 * key/value metadata, tensor descriptions (sizes innermost first), and the tensors' data aligned
 * to 32 bytes; all little-endian. Blocks, as ggml defines them: Q4_0 is 32 weights, an F16 scale
 * and 16 bytes of 4-bit codes; Q8_0 is 32 weights, an F16 scale and 32 signed bytes; Q6_K is 256
 * weights, 128 bytes of low bits, 64 bytes of high bits, 16 signed 8-bit scales and an F16 scale.
 */
final class Gguf {
  private static final int VERSION = 3;
  private static final int ALIGNMENT = 32;
  private static final int CHUNK = 1 << 20;
  // Metadata value types.
  private static final int UINT32 = 4;
  private static final int FLOAT32 = 6;
  private static final int STRING = 8;

  /** How a tensor is stored. */
  enum Type {
    F32(0, 1, 4), F16(1, 1, 2), Q4_0(2, 32, 18), Q8_0(8, 32, 34), Q6_K(14, 256, 210);

    final int id;
    final int block;
    final int blockBytes;

    Type(int id, int block, int blockBytes) {
      this.id = id;
      this.block = block;
      this.blockBytes = blockBytes;
    }

    long bytes(long rows, long cols) {
      return rows * (cols / block) * blockBytes;
    }
  }

  /** A whole file's types, as llama.cpp's own quantizer mixes them. */
  enum FileType {
    /** Blocks in Q4_0, embedding and head in Q6_K. */
    Q4_0(Type.Q4_0, Type.Q6_K, 2),
    /** All in Q8_0. */
    Q8_0(Type.Q8_0, Type.Q8_0, 7),
    /** All in F16. */
    F16(Type.F16, Type.F16, 1);

    final Type projections;
    final Type head;
    final int id;

    FileType(Type projections, Type head, int id) {
      this.projections = projections;
      this.head = head;
      this.id = id;
    }
  }

  private record Tensor(String name, Type type, int rows, int cols) {
    long bytes() {
      return type.bytes(rows, cols);
    }

    long paddedBytes() {
      return (bytes() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
  }

  private final ByteBuffer header = ByteBuffer.allocate(1 << 20).order(ByteOrder.LITTLE_ENDIAN);
  private final SplittableRandom random = new SplittableRandom(1);
  private int entries;

  private Gguf() {}

  /**
   * Writes the file.
   *
   * @return bytes of weights that decoding one token reads: all projections and the head
   * @throws InvalidArgumentException if the sizes do not fit the types' blocks
   */
  static long write(Path file, LlamaConfig config, FileType type) throws IOException {
    var tensors = tensors(config, type);
    for (var t : tensors) {
      if (t.cols % t.type.block != 0) {
        throw new InvalidArgumentException(t.name + ": " + t.cols + " columns, but " + t.type
            + " needs a multiple of " + t.type.block);
      }
    }
    try (var out = new BufferedOutputStream(Files.newOutputStream(file), CHUNK)) {
      new Gguf().write(out, config, type, tensors);
    }
    long bytes = 0;
    for (var t : tensors) {
      boolean lookup = t.name.equals("token_embd.weight") && !config.tiedEmbedding();
      bytes += t.type == Type.F32 || lookup ? 0 : t.bytes();
    }
    return bytes;
  }

  private static List<Tensor> tensors(LlamaConfig c, FileType type) {
    var all = new ArrayList<Tensor>();
    int hidden = c.hiddenSize();
    all.add(new Tensor("token_embd.weight", type.head, c.vocabSize(), hidden));
    all.add(new Tensor("output_norm.weight", Type.F32, 1, hidden));
    if (!c.tiedEmbedding()) {
      all.add(new Tensor("output.weight", type.head, c.vocabSize(), hidden));
    }
    for (int i = 0; i < c.layers(); i++) {
      var block = "blk." + i + ".";
      all.add(new Tensor(block + "attn_norm.weight", Type.F32, 1, hidden));
      all.add(new Tensor(block + "attn_q.weight", type.projections, c.querySize(), hidden));
      all.add(new Tensor(block + "attn_k.weight", type.projections, c.kvSize(), hidden));
      all.add(new Tensor(block + "attn_v.weight", type.projections, c.kvSize(), hidden));
      all.add(new Tensor(block + "attn_output.weight", type.projections, hidden, c.querySize()));
      all.add(new Tensor(block + "ffn_norm.weight", Type.F32, 1, hidden));
      int inner = c.intermediateSize();
      all.add(new Tensor(block + "ffn_gate.weight", type.projections, inner, hidden));
      all.add(new Tensor(block + "ffn_up.weight", type.projections, inner, hidden));
      all.add(new Tensor(block + "ffn_down.weight", type.projections, hidden, inner));
    }
    return all;
  }

  private void write(OutputStream out, LlamaConfig c, FileType type, List<Tensor> tensors)
      throws IOException {
    header.put("GGUF".getBytes(StandardCharsets.US_ASCII)).putInt(VERSION);
    header.putLong(tensors.size());
    int countAt = header.position();
    header.putLong(0);
    metadata(c, type);
    header.putLong(countAt, entries);
    long offset = 0;
    for (var t : tensors) {
      putString(t.name);
      boolean vector = t.type == Type.F32;
      header.putInt(vector ? 1 : 2).putLong(t.cols);
      if (!vector) {
        header.putLong(t.rows);
      }
      header.putInt(t.type.id).putLong(offset);
      offset += t.paddedBytes();
    }
    while (header.position() % ALIGNMENT != 0) {
      header.put((byte) 0);
    }
    out.write(header.array(), 0, header.position());
    for (var t : tensors) {
      var chunk = chunk(t.type);
      for (long done = 0; done < t.bytes(); done += chunk.length) {
        out.write(chunk, 0, (int) Math.min(chunk.length, t.bytes() - done));
      }
      out.write(new byte[(int) (t.paddedBytes() - t.bytes())]);
    }
  }

  private void metadata(LlamaConfig c, FileType type) {
    put("general.architecture", "llama");
    put("general.name", "random weights");
    put("general.file_type", type.id);
    put("general.quantization_version", 2);
    put("general.alignment", ALIGNMENT);
    put("llama.vocab_size", c.vocabSize());
    put("llama.context_length", c.maxPositions());
    put("llama.embedding_length", c.hiddenSize());
    put("llama.block_count", c.layers());
    put("llama.feed_forward_length", c.intermediateSize());
    put("llama.attention.head_count", c.heads());
    put("llama.attention.head_count_kv", c.kvHeads());
    put("llama.attention.key_length", c.headDim());
    put("llama.attention.value_length", c.headDim());
    put("llama.attention.layer_norm_rms_epsilon", c.rmsNormEps());
    put("llama.rope.dimension_count", c.headDim());
    put("llama.rope.freq_base", 500_000f);
    // Token ids alone: no text goes in or out.
    put("tokenizer.ggml.model", "no_vocab");
  }

  private void put(String key, Object value) {
    putString(key);
    switch (value) {
      case String text -> {
        header.putInt(STRING);
        putString(text);
      }
      case Integer number -> header.putInt(UINT32).putInt(number);
      case Float number -> header.putInt(FLOAT32).putFloat(number);
      default -> throw new IllegalArgumentException(key);
    }
    entries++;
  }

  private void putString(String text) {
    var bytes = text.getBytes(StandardCharsets.UTF_8);
    header.putLong(bytes.length).put(bytes);
  }

  /** Random blocks, about a mebibyte of them: a tensor is this again and again. */
  private byte[] chunk(Type type) {
    int blocks = CHUNK / type.blockBytes;
    var data = ByteBuffer.allocate(blocks * type.blockBytes).order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < blocks; i++) {
      switch (type) {
        case F32 -> data.putFloat(1);
        case F16 -> data.putShort(f16(random.nextFloat() * 0.06f - 0.03f));
        case Q4_0 -> data.putShort(f16(0.004f)).put(randomBytes(16));
        case Q8_0 -> data.putShort(f16(0.0002f)).put(randomBytes(32));
        case Q6_K -> {
          data.put(randomBytes(128 + 64));
          for (int s = 0; s < 16; s++) {
            data.put((byte) (random.nextInt(40) - 20));
          }
          data.putShort(f16(0.0001f));
        }
      }
    }
    return data.array();
  }

  private byte[] randomBytes(int count) {
    var bytes = new byte[count];
    random.nextBytes(bytes);
    return bytes;
  }

  private static short f16(float value) {
    return Float.floatToFloat16(value);
  }
}
