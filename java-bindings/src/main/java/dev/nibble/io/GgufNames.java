// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.util.Map;
import java.util.regex.Pattern;

/** GGUF's names of the tensors of a LLaMA, and Hugging Face's. */
final class GgufNames {
  /** The divisors of the rotary frequencies, which Hugging Face keeps in the configuration. */
  static final String ROPE_FACTORS = "rope_freqs.weight";

  private static final Map<String, String> WHOLE = Map.of(
      "token_embd.weight", CheckpointNames.EMBEDDING,
      "output_norm.weight", "model.norm.weight",
      "output.weight", CheckpointNames.HEAD);
  private static final Map<String, String> OF_A_BLOCK = Map.of(
      "attn_norm", "input_layernorm",
      "attn_q", "self_attn.q_proj",
      "attn_k", "self_attn.k_proj",
      "attn_v", "self_attn.v_proj",
      "attn_output", "self_attn.o_proj",
      "ffn_norm", "post_attention_layernorm",
      "ffn_gate", "mlp.gate_proj",
      "ffn_up", "mlp.up_proj",
      "ffn_down", "mlp.down_proj");
  private static final Pattern BLOCK =
      Pattern.compile("blk\\.(0|[1-9][0-9]{0,8})\\.([a-z_]+)\\.(weight|bias)");

  private GgufNames() {}

  /** Hugging Face's name of a tensor, or null where it has none. */
  static String huggingFace(String gguf) {
    var whole = WHOLE.get(gguf);
    if (whole != null) {
      return whole;
    }
    var block = BLOCK.matcher(gguf);
    var part = block.matches() ? OF_A_BLOCK.get(block.group(2)) : null;
    return part == null ? null
        : "model.layers." + block.group(1) + "." + part + "." + block.group(3);
  }

  /** Whether a tensor says what the model computes without: rotations that follow from metadata. */
  static boolean isIgnored(String gguf) {
    return gguf.equals(ROPE_FACTORS) || gguf.endsWith(".attn_rot_embd")
        || gguf.endsWith(".attn_rot_embd.weight");
  }

  /**
   * Whether the rows of a tensor are permuted within each head. GGUF's rotary embedding pairs
   * neighbours, Hugging Face's element i with i + headDim / 2, so the rows of Q and K (and their
   * biases) are in another order: {@link RowOrder}.
   */
  static boolean isPermuted(String gguf) {
    var block = BLOCK.matcher(gguf);
    return block.matches() && (block.group(2).equals("attn_q") || block.group(2).equals("attn_k"));
  }
}
