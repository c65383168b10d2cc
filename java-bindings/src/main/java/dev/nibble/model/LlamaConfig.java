// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.CheckpointNames;
import dev.nibble.io.Json;
import dev.nibble.io.ModelSource;
import java.util.List;
import java.util.Objects;

/**
 * The hyperparameters of a LLaMA model, checked: LLaMA 1, 2, 3.x and everything of that shape.
 *
 * @param hiddenSize width of the residual stream
 * @param intermediateSize width of the feed-forward block
 * @param layers transformer blocks
 * @param heads query heads
 * @param kvHeads key/value heads; divides heads
 * @param headDim elements of a head, even, 16 to 256; need not be hiddenSize / heads
 * @param vocabSize tokens
 * @param maxPositions the longest context the model was made for
 * @param rmsNormEps epsilon of every RMSNorm, above 0
 * @param ropeTheta the base of the rotary frequencies
 * @param ropeScaling how they are scaled
 * @param tiedEmbedding whether the output head is the embedding matrix
 * @param attentionBias whether q, k, v and o projections have biases
 * @param mlpBias whether gate, up and down projections have biases
 * @param bosToken what begins a text, or -1
 * @param eosTokens what ends a text, any of these; may be empty
 */
public record LlamaConfig(
    int hiddenSize,
    int intermediateSize,
    int layers,
    int heads,
    int kvHeads,
    int headDim,
    int vocabSize,
    int maxPositions,
    float rmsNormEps,
    double ropeTheta,
    RopeScaling ropeScaling,
    boolean tiedEmbedding,
    boolean attentionBias,
    boolean mlpBias,
    int bosToken,
    List<Integer> eosTokens) {

  // Far beyond any LLaMA, near enough that no product of two overflows and that a hostile file
  // cannot ask for absurd amounts of memory unnoticed.
  static final int MAX_WIDTH = 1 << 20;
  static final int MAX_LAYERS = 1 << 12;
  static final int MAX_VOCABULARY = 1 << 24;
  static final int MAX_POSITIONS = 1 << 28;
  static final int MIN_HEAD_DIM = 16;
  static final int MAX_HEAD_DIM = 256;

  /**
   * Checks every range and that heads and products fit together.
   *
   * @throws InvalidArgumentException naming the field, its value and what was expected
   */
  public LlamaConfig {
    check("hidden_size", hiddenSize, 1, MAX_WIDTH);
    check("intermediate_size", intermediateSize, 1, MAX_WIDTH);
    check("num_hidden_layers", layers, 1, MAX_LAYERS);
    check("num_attention_heads", heads, 1, MAX_WIDTH);
    check("num_key_value_heads", kvHeads, 1, heads);
    check("head_dim", headDim, MIN_HEAD_DIM, MAX_HEAD_DIM);
    check("vocab_size", vocabSize, 1, MAX_VOCABULARY);
    check("max_position_embeddings", maxPositions, 1, MAX_POSITIONS);
    require(headDim % 2 == 0, "head_dim", headDim, "an even number");
    require(heads % kvHeads == 0, "num_key_value_heads", kvHeads,
        "a divisor of num_attention_heads, " + heads);
    require((long) heads * headDim <= MAX_WIDTH, "num_attention_heads * head_dim",
        (long) heads * headDim, "at most " + MAX_WIDTH);
    require(rmsNormEps > 0 && rmsNormEps < 1, "rms_norm_eps", rmsNormEps, "above 0, below 1");
    require(ropeTheta >= 1 && ropeTheta <= 1e12, "rope_theta", ropeTheta, "1 to 1e12");
    Objects.requireNonNull(ropeScaling, "ropeScaling");
    eosTokens = List.copyOf(eosTokens);
  }

  /**
   * Reads and checks {@code config.json} of a model, and {@code eos_token_id} of {@code
   * generation_config.json} where that exists.
   *
   * @throws dev.nibble.ModelFormatException naming the file, the field, its value and what was
   *     expected
   */
  public static LlamaConfig read(ModelSource source) {
    var file = source.describe(CheckpointNames.CONFIG);
    var config = Json.parseObject(source.read(CheckpointNames.CONFIG), file);
    return new ConfigReader(file, config).read(source);
  }

  /** The rotary inverse frequencies, scaled: headDim / 2 of them. */
  public float[] inverseFrequencies() {
    var frequencies = new float[headDim / 2];
    for (int i = 0; i < frequencies.length; i++) {
      float exponent = (float) (2 * i) / headDim;
      frequencies[i] = 1 / (float) Math.pow(ropeTheta, exponent);
    }
    ropeScaling.apply(frequencies);
    return frequencies;
  }

  /** Columns of the query projection's output: heads * headDim. */
  public int querySize() {
    return heads * headDim;
  }

  /** Columns of the key and the value projection's output: kvHeads * headDim. */
  public int kvSize() {
    return kvHeads * headDim;
  }

  /** The number of weights, a tied embedding counted once. */
  public long parameters() {
    long attention = 2L * hiddenSize * querySize() + 2L * hiddenSize * kvSize();
    long feedForward = 3L * hiddenSize * intermediateSize;
    long biases = (attentionBias ? querySize() + 2L * kvSize() + hiddenSize : 0)
        + (mlpBias ? 2L * intermediateSize + hiddenSize : 0);
    long perLayer = attention + feedForward + biases + 2L * hiddenSize;
    return layers * perLayer + hiddenSize
        + (long) vocabSize * hiddenSize * (tiedEmbedding ? 1 : 2);
  }

  private static void check(String field, int value, int min, int max) {
    require(value >= min && value <= max, field, value, min + " to " + max);
  }

  private static void require(boolean legal, String field, Object value, String expected) {
    if (!legal) {
      throw new InvalidArgumentException(field + " is " + value + ", expected " + expected);
    }
  }
}
