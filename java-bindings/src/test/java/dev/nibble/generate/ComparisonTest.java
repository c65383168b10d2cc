// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.nibble.InvalidArgumentException;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.Models;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

class ComparisonTest {
  private static final int TOKENS = 90;
  private static final int WINDOW = 40;

  private static int[] tokens(LlamaModel model) {
    return Arrays.copyOf(
        model.tokenizer().orElseThrow().encode(Models.tales()), TOKENS);
  }

  private static Comparison compare(LlamaModel original, LlamaModel model, List<int[]> windows) {
    return Comparison.measure(original, model, windows, (what, done, total) -> { });
  }

  @Test
  void agreesWithTheDefinitionsInDoublePrecision() {
    try (var original = Models.fable("f32"); var model = Models.fable("w4a8")) {
      double nll = 0;
      double kl = 0;
      int agreed = 0;
      int scored = 0;
      for (var window : Comparison.windows(tokens(original), WINDOW)) {
        var p = probabilities(original, window);
        var q = probabilities(model, window);
        for (int t = 0; t + 1 < window.length; t++, scored++) {
          nll -= Math.log(q[t][window[t + 1]]);
          for (int i = 0; i < p[t].length; i++) {
            kl += p[t][i] * Math.log(p[t][i] / q[t][i]);
          }
          agreed += top(p[t]) == top(q[t]) ? 1 : 0;
        }
      }
      var result = compare(original, model, Comparison.windows(tokens(original), WINDOW));
      assertThat(result.scoredTokens()).isEqualTo(scored).isEqualTo(TOKENS - 3);
      assertThat(result.meanNegativeLogLikelihood()).isCloseTo(nll / scored, within(1e-6));
      assertThat(result.meanKlDivergence()).isCloseTo(kl / scored, within(1e-6)).isPositive();
      assertThat(result.topOneAgreement()).isEqualTo((double) agreed / scored);
      var perplexity =
          Perplexity.measure(model, tokens(original), WINDOW, (what, done, total) -> { });
      assertThat(result.meanNegativeLogLikelihood())
          .isCloseTo(perplexity.meanNegativeLogLikelihood(), within(1e-9));
      assertThat(result.perplexity()).isCloseTo(perplexity.perplexity(), within(1e-6));
    }
  }

  private static double[][] probabilities(LlamaModel model, int[] window) {
    var rows = new double[window.length][];
    try (var session = model.newSession(window.length)) {
      session.forwardAll(window, (i, logits) -> {
        var values = logits.toArray(ValueLayout.JAVA_FLOAT);
        rows[i] = new double[values.length];
        double sum = 0;
        for (int v = 0; v < values.length; v++) {
          rows[i][v] = Math.exp(values[v]);
          sum += rows[i][v];
        }
        for (int v = 0; v < values.length; v++) {
          rows[i][v] /= sum;
        }
      });
    }
    return rows;
  }

  private static int top(double[] values) {
    int best = 0;
    for (int i = 1; i < values.length; i++) {
      best = values[i] > values[best] ? i : best;
    }
    return best;
  }

  @Test
  void aModelDoesNotDivergeFromItself() {
    try (var model = Models.fable("f32")) {
      var windows = Comparison.windows(tokens(model), WINDOW);
      var all = compare(model, model, windows);
      assertThat(all.meanKlDivergence()).isZero();
      assertThat(all.topOneAgreement()).isEqualTo(1);
      var first = compare(model, model, windows.subList(0, 1));
      var rest = compare(model, model, windows.subList(1, windows.size()));
      assertThat(first.and(rest).meanNegativeLogLikelihood())
          .isCloseTo(all.meanNegativeLogLikelihood(), within(1e-12));
      assertThat(first.and(rest).scoredTokens()).isEqualTo(all.scoredTokens());
    }
  }

  @Test
  void aLastWindowOfOneTokenIsLeftOut() {
    assertThat(Comparison.windows(new int[9], 4)).hasSize(2);
    assertThat(Comparison.windows(new int[10], 4)).hasSize(3).last()
        .isEqualTo(new int[2]);
  }

  @Test
  void nothingToScoreIsRefused() {
    try (var model = Models.fable("f32")) {
      for (var windows : List.of(List.<int[]>of(), List.of(new int[] {1}))) {
        assertThatThrownBy(() -> compare(model, model, windows))
            .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("windows");
      }
    }
  }
}
