// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.util.Map;

/**
 * The names of files and tensors in a model directory; the one place where they are written down.
 *
 * <p>An unquantized checkpoint has Hugging Face's tensor names. A quantized one replaces each
 * quantized matrix {@code X.weight} by its canonical parts, in the layout that {@code nibble.h}
 * draws at {@code nb_weight_format}:
 *
 * <table>
 * <caption>Parts of a quantized matrix [N, K]</caption>
 * <tr><th>tensor</th><th>type and shape</th><th>present</th></tr>
 * <tr><td>{@code X.weight.codes}</td><td>U8 [N, bytes of a row]</td><td>always</td></tr>
 * <tr><td>{@code X.weight.codes_high}</td><td>U8 [N, ceil(K/4)]</td><td>6-bit codes</td></tr>
 * <tr><td>{@code X.weight.scales}</td><td>[N, ceil(K/G)]: F8_E4M3, I8 (powers of two), F16, BF16
 * or F32</td><td>always</td></tr>
 * <tr><td>{@code X.weight.factors}</td><td>F32 [1] or [N]</td><td>I4 with E4M3 or power-of-two
 * scales</td></tr>
 * </table>
 *
 * <p>A calibrated model may have {@link #KEY_FACTORS}, {@link #VALUE_FACTORS} and {@link
 * #KEY_SCALES} besides.
 *
 * <p>Matrices in a 16- or 32-bit format, norms and biases stay single tensors with their Hugging
 * Face names.
 */
public final class CheckpointNames {

  /** The model's hyperparameters. */
  public static final String CONFIG = "config.json";
  /** The tokenizer. */
  public static final String TOKENIZER = "tokenizer.json";
  /** The weights, when they are in one file. */
  public static final String WEIGHTS = "model.safetensors";
  /** Which file holds which tensor, when there are several. */
  public static final String WEIGHTS_INDEX = "model.safetensors.index.json";
  /** The key of the scheme in {@link #CONFIG}. */
  public static final String QUANTIZATION_CONFIG = "quantization_config";

  /** The embedding, and the output head where the two are tied. */
  public static final String EMBEDDING = "model.embed_tokens.weight";
  /** The output head. */
  public static final String HEAD = "lm_head.weight";

  /** The weight of the norm before the output head. */
  public static final String NORM = "model.norm.weight";

  /** Factors of the scales of a 4-bit cache's keys, F32 [layers]; quantized models only. */
  public static final String KEY_FACTORS = "model.kv_cache.key_factors";
  /** Factors of the scales of a 4-bit cache's values, F32 [layers]; quantized models only. */
  public static final String VALUE_FACTORS = "model.kv_cache.value_factors";
  /** Scales of keys behind the rotation, F32 [layers, kv heads, head size]; quantized only. */
  public static final String KEY_SCALES = "model.kv_cache.key_scales";

  private CheckpointNames() {}

  /** The codes of a quantized matrix. */
  public static String codes(String weight) {
    return weight + ".codes";
  }

  /** The upper two bits of 6-bit codes. */
  public static String codesHigh(String weight) {
    return weight + ".codes_high";
  }

  /** The group scales. */
  public static String scales(String weight) {
    return weight + ".scales";
  }

  /** The F32 factors of the scales. */
  public static String factors(String weight) {
    return weight + ".factors";
  }

  /** Whether the tensor is the weight of an attention or feed-forward projection. */
  public static boolean isProjection(String tensor) {
    return tensor.startsWith("model.layers.") && (tensor.endsWith("_proj.weight"));
  }

  /** Whether the tensor is the embedding or the output head. */
  public static boolean isEmbeddingOrHead(String tensor) {
    return tensor.equals(EMBEDDING) || tensor.equals(HEAD);
  }

  /**
   * Whether {@code config.json} says that the weights are quantized, by Nibble or by anything
   * else.
   */
  public static boolean isQuantized(Map<String, Object> config) {
    return config.get(QUANTIZATION_CONFIG) != null;
  }
}
