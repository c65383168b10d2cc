// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import dev.nibble.InvalidArgumentException;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.ProgressListener;
import dev.nibble.model.Session;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;

/**
 * What a quantized model predicts, held against its original, on one text.
 *
 * @param meanNegativeLogLikelihood of the model, in nats a scored token, as {@link Perplexity}
 *     measures it
 * @param meanKlDivergence of the original's prediction from the model's, KL(original || model), in
 *     nats a scored token
 * @param topOneAgreement share of scored tokens at which both find the same token likeliest
 * @param scoredTokens tokens that were predicted
 */
public record Comparison(double meanNegativeLogLikelihood, double meanKlDivergence,
    double topOneAgreement, long scoredTokens) {

  /** Logits in memory at a time, of each model: a quarter of a gigabyte. */
  private static final long MAX_LOGITS = 64L << 20;

  /** exp of the mean negative log-likelihood. */
  public double perplexity() {
    return Math.exp(meanNegativeLogLikelihood);
  }

  /** Both results as one, weighted by their tokens. */
  public Comparison and(Comparison other) {
    long tokens = scoredTokens + other.scoredTokens;
    double a = (double) scoredTokens / tokens;
    double b = (double) other.scoredTokens / tokens;
    return new Comparison(
        a * meanNegativeLogLikelihood + b * other.meanNegativeLogLikelihood,
        a * meanKlDivergence + b * other.meanKlDivergence,
        a * topOneAgreement + b * other.topOneAgreement, tokens);
  }

  /**
   * Runs both models over windows of tokens; the first token of each window is not scored.
   *
   * @param original the model to compare with, usually in F32; may be {@code model} itself
   * @param model another with the same vocabulary
   * @param windows each at least 2 tokens, and no more than either model's context
   * @param progress hears how many tokens are done
   */
  public static Comparison measure(LlamaModel original, LlamaModel model, List<int[]> windows,
      ProgressListener progress) {
    int vocabulary = model.config().vocabSize();
    if (original.config().vocabSize() != vocabulary) {
      throw new InvalidArgumentException("model: a vocabulary of " + vocabulary
          + " tokens, expected the original's " + original.config().vocabSize());
    }
    if (windows.isEmpty() || windows.stream().anyMatch(window -> window.length < 2)) {
      throw new InvalidArgumentException(
          "windows: " + windows.size() + " given, expected some of at least 2 tokens each");
    }
    int longest = windows.stream().mapToInt(window -> window.length).max().orElseThrow();
    long total = windows.stream().mapToLong(window -> window.length).sum();
    int rows = (int) Math.clamp(MAX_LOGITS / vocabulary, 1, longest);
    var sums = new Sums();
    long done = 0;
    try (var expected = original.newSession(longest); var actual = model.newSession(longest)) {
      var p = new float[rows][vocabulary];
      var q = new float[rows][vocabulary];
      for (var window : windows) {
        progress.progress("comparison", done, total);
        expected.reset();
        actual.reset();
        for (int start = 0; start < window.length; start += rows) {
          int count = Math.min(rows, window.length - start);
          var part = Arrays.copyOfRange(window, start, start + count);
          logits(expected, part, p);
          logits(actual, part, q);
          // What follows the last token of a window is not known.
          sums.add(p, q, window, start, Math.min(count, window.length - 1 - start));
        }
        done += window.length;
      }
    }
    progress.progress("", total, total);
    return sums.result();
  }

  /**
   * Cuts tokens into windows without overlap, as {@link Perplexity} does; a last one of a single
   * token, which would predict nothing, is left out.
   */
  public static List<int[]> windows(int[] tokens, int window) {
    return IntStream.range(0, Math.ceilDiv(tokens.length, window))
        .mapToObj(i -> Arrays.copyOfRange(tokens, i * window,
            Math.min((i + 1) * window, tokens.length)))
        .filter(part -> part.length > 1).toList();
  }

  /**
   * KL(p || q), in nats, of the distributions that two rows of logits stand for; 0 if they are the
   * same up to a constant.
   *
   * @param p finite logits
   * @param q as many
   */
  public static double klDivergence(float[] p, float[] q) {
    return Score.of(p, q, 0).kl;
  }

  private static void logits(Session session, int[] tokens, float[][] to) {
    session.forwardAll(tokens, (index, row) ->
        MemorySegment.copy(row, ValueLayout.JAVA_FLOAT, 0, to[index], 0, to[index].length));
  }

  private static final class Sums {
    private double nll;
    private double kl;
    private long agreed;
    private long tokens;

    void add(float[][] p, float[][] q, int[] window, int start, int rows) {
      // In parallel by rows, added up in their order: the same bits for any number of threads.
      var scores = new Score[rows];
      IntStream.range(0, rows).parallel()
          .forEach(i -> scores[i] = Score.of(p[i], q[i], window[start + i + 1]));
      for (var score : scores) {
        nll += score.nll;
        kl += score.kl;
        agreed += score.agrees ? 1 : 0;
      }
      tokens += rows;
    }

    Comparison result() {
      return new Comparison(nll / tokens, kl / tokens, (double) agreed / tokens, tokens);
    }
  }

  private record Score(double nll, double kl, boolean agrees) {
    /** p, q: logits of the original and of the model; token: what came next. */
    static Score of(float[] p, float[] q, int token) {
      int top = largest(p);
      int other = largest(q);
      double sumP = 0;
      double sumQ = 0;
      double difference = 0; // sum of e^p (p - q), both less their largest
      for (int i = 0; i < p.length; i++) {
        double a = (double) p[i] - p[top];
        double b = (double) q[i] - q[other];
        double weight = Math.exp(a);
        sumP += weight;
        sumQ += Math.exp(b);
        difference += weight * (a - b);
      }
      double logQ = Math.log(sumQ);
      return new Score(logQ - ((double) q[token] - q[other]),
          difference / sumP + logQ - Math.log(sumP), top == other);
    }

    private static int largest(float[] values) {
      int best = 0;
      for (int i = 1; i < values.length; i++) {
        if (values[i] > values[best]) {
          best = i;
        }
      }
      return best;
    }
  }
}
