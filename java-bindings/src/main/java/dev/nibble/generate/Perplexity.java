// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import dev.nibble.InvalidArgumentException;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.ProgressListener;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;

/**
 * How well a model predicts a text.
 *
 * @param meanNegativeLogLikelihood in nats a scored token
 * @param scoredTokens tokens that were predicted
 */
public record Perplexity(double meanNegativeLogLikelihood, long scoredTokens) {

  /** exp of the mean negative log-likelihood. */
  public double perplexity() {
    return Math.exp(meanNegativeLogLikelihood);
  }

  /**
   * Measures tokens in windows cut without overlap; the first token of each window is not scored,
   * and the last window may be shorter. Sums are in double precision.
   *
   * @param tokens at least 2, the first one usually the beginning-of-text token
   * @param window tokens of a window, 2 to the model's context
   * @param progress hears how many tokens are done
   */
  public static Perplexity measure(
      LlamaModel model, int[] tokens, int window, ProgressListener progress) {
    if (tokens.length < 2) {
      throw new InvalidArgumentException(
          "tokens: " + tokens.length + " given, expected at least 2");
    }
    int most = model.config().maxPositions();
    if (window < 2 || window > most) {
      throw new InvalidArgumentException("window: " + window + " given, expected 2 to " + most
          + ", the model's max_position_embeddings");
    }
    double sum = 0;
    long scored = 0;
    try (var session = model.newSession(Math.min(window, tokens.length))) {
      for (int start = 0; start < tokens.length; start += window) {
        progress.progress("perplexity", start, tokens.length);
        var part = Arrays.copyOfRange(tokens, start, Math.min(start + window, tokens.length));
        if (part.length > 1) {
          var score = new Score(part);
          session.reset();
          session.forwardAll(part, score::add);
          sum += score.sum;
          scored += part.length - 1;
        }
      }
    }
    progress.progress("", tokens.length, tokens.length);
    return new Perplexity(sum / scored, scored);
  }

  /** -log softmax(logits)[token], by a log-sum-exp in double precision; logits F32 [vocabulary]. */
  public static double negativeLogLikelihood(MemorySegment logits, int token) {
    long count = logits.byteSize() / ValueLayout.JAVA_FLOAT.byteSize();
    float max = Float.NEGATIVE_INFINITY;
    for (long i = 0; i < count; i++) {
      max = Math.max(max, logits.getAtIndex(ValueLayout.JAVA_FLOAT, i));
    }
    double sum = 0;
    for (long i = 0; i < count; i++) {
      sum += Math.exp((double) logits.getAtIndex(ValueLayout.JAVA_FLOAT, i) - max);
    }
    return max + Math.log(sum) - logits.getAtIndex(ValueLayout.JAVA_FLOAT, token);
  }

  /** The sum over one window: the logits after token i predict token i + 1. */
  private static final class Score {
    private final int[] tokens;
    private double sum;

    Score(int[] tokens) {
      this.tokens = tokens;
    }

    void add(int index, MemorySegment logits) {
      if (index + 1 < tokens.length) {
        sum += negativeLogLikelihood(logits, tokens[index + 1]);
      }
    }
  }
}
