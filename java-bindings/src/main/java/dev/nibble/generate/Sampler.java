// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import dev.nibble.InvalidArgumentException;
import dev.nibble.model.DeviceSampler;
import dev.nibble.model.SampleSettings;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.random.RandomGenerator;
import java.util.random.RandomGeneratorFactory;

/**
 * Chooses the next token from its logits.
 *
 * <p>The steps, in Hugging Face's order: repeat penalty (CTRL, arXiv 1909.05858), temperature,
 * top-k, top-p (nucleus sampling, arXiv 1904.09751), min-p (arXiv 2407.01082), then a draw by the
 * generator {@code L64X128MixRandom} of {@code java.util.random}, which Java defines to the bit. A
 * new sampler with the same settings and seed makes the same choices for the same logits.
 *
 * <p>Of equal logits the smaller id comes first. For one thread; after its first choice it
 * allocates nothing, and it sorts only as many candidates as it needs.
 */
public final class Sampler implements DeviceSampler {
  private static final String RANDOM = "L64X128MixRandom";
  private static final int MAX_TOKENS = 1 << 22; // keeps every sum of weights below 2^62

  private final SamplerOptions options;
  private final RandomGenerator random;
  private final Candidates candidates = new Candidates();
  private final int[] recent; // a ring of the last tokens
  private int observed;
  private int[] markedAt = {}; // the choice at which a token was last penalized
  private int choices;

  /** A sampler at the start of its random sequence. */
  public Sampler(SamplerOptions options) {
    this.options = options;
    this.random = RandomGeneratorFactory.of(RANDOM).create(options.seed());
    this.recent = new int[options.repeatPenalty() == 1 ? 0 : options.repeatWindow()];
  }

  /** Always the likeliest token. */
  public static Sampler greedy() {
    return builder().temperature(0).build();
  }

  /**
   * Nucleus sampling: the likeliest tokens that together have probability p.
   *
   * @param p above 0, at most 1
   * @param temperature 0 for greedy, 1 for the model's own probabilities
   * @param seed decides the random sequence
   */
  public static Sampler topP(float p, float temperature, long seed) {
    return builder().topP(p).temperature(temperature).seed(seed).build();
  }

  /**
   * The k likeliest tokens.
   *
   * @param k 1 or more
   * @param temperature 0 for greedy, 1 for the model's own probabilities
   * @param seed decides the random sequence
   */
  public static Sampler topK(int k, float temperature, long seed) {
    return builder().topK(k).temperature(temperature).seed(seed).build();
  }

  /** All settings, one by one. */
  public static SamplerOptions.Builder builder() {
    return new SamplerOptions.Builder();
  }

  /** What it was made with. */
  public SamplerOptions options() {
    return options;
  }

  @Override
  public void observe(int token) {
    if (recent.length > 0) {
      recent[observed % recent.length] = token;
      // Stays non-negative for texts of any length, and congruent to the count.
      observed = observed + 1 == 2 * recent.length ? recent.length : observed + 1;
    }
  }

  @Override
  public int choose(MemorySegment logits) {
    int count = Math.toIntExact(logits.byteSize() / ValueLayout.JAVA_FLOAT.byteSize());
    if (count == 0) {
      throw new InvalidArgumentException("logits: empty, expected one for each token");
    }
    if (count > MAX_TOKENS) {
      throw new InvalidArgumentException(
          "logits: " + count + " given, expected at most " + MAX_TOKENS);
    }
    var values = candidates.load(logits, count);
    penalize(values, count);
    int best = candidates.best();
    if (options.temperature() == 0) {
      return best;
    }
    candidates.weigh(options.temperature(), best);
    return candidates.draw(options, random);
  }

  @Override
  public SampleSettings settings() {
    return new SampleSettings(options.temperature(), options.topK(), options.topP(),
        options.minP(), options.repeatPenalty(), options.repeatWindow());
  }

  @Override
  public double nextUniform() {
    return random.nextDouble();
  }

  @Override
  public int recent(int[] tokens) {
    int held = Math.min(observed, recent.length);
    int most = -1;
    for (int i = 0; i < held; i++) {
      most = Math.max(most, recent[i]);
    }
    startMarking(most + 1);
    int count = 0;
    for (int i = 0; i < held; i++) {
      if (recent[i] >= 0 && mark(recent[i])) {
        tokens[count++] = recent[i];
      }
    }
    return count;
  }

  /** Makes each of the recent tokens less likely, once however often it occurred. */
  private void penalize(float[] values, int count) {
    if (recent.length == 0) {
      return;
    }
    startMarking(count);
    for (int i = 0; i < Math.min(observed, recent.length); i++) {
      int token = recent[i];
      if (token >= 0 && token < count && mark(token)) {
        values[token] = values[token] > 0
            ? values[token] / options.repeatPenalty()
            : values[token] * options.repeatPenalty();
      }
    }
  }

  /** Forgets which of the tokens below count are marked. */
  private void startMarking(int count) {
    if (markedAt.length < count) {
      markedAt = new int[count];
      choices = 0;
    }
    choices++;
  }

  /** Marks a token; false if it is already. */
  private boolean mark(int token) {
    boolean fresh = markedAt[token] != choices;
    markedAt[token] = choices;
    return fresh;
  }
}
