// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import dev.nibble.model.LlamaModel;
import dev.nibble.model.Models;
import dev.nibble.model.ProgressListener;
import dev.nibble.model.Session;
import dev.nibble.quantize.Scheme;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.DoubleStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** What quantization costs, as mean negative log-likelihood of original tales, in nats a token. */
class QuantizedLossTest {
  private static final int WINDOW = 512;

  /**
   * Bounds on the rise over F32. A rise on 1,569 tokens has a sampling error, which the table shows
   * as two standard errors of the paired differences: about 0.017 for 4-bit weights, 0.007 for
   * 6-bit ones, 0.003 for 8-bit ones and 0.0003 for BF16. Each bound is the loss to be expected
   * plus that:
   *
   * <ul>
   *   <li>W4: round-to-nearest INT4 with a 4-bit cache costs a model of this size some 0.04 nats;
   *       0.06. A wrong scale, nibble order or group boundary costs more than 1.
   *   <li>W6 and W8: nothing that one can tell from zero on this text; 0.01 and 0.005.
   *   <li>BF16: the weights are BF16 already, activations keep 8 bits of mantissa; 0.002.
   * </ul>
   */
  private static final Map<String, Double> BOUNDS = Map.of(
      "f32", 0.0, "bf16", 0.002, "w4a8", 0.06, "w4a8i", 0.06, "w6a16", 0.01, "w6a8", 0.01,
      "w8a8", 0.005);

  @ParameterizedTest
  @CsvSource({"256, 3.3951", "512, 3.3699", "1024, 3.3597"})
  void f32EqualsTheReference(int window, double expected) {
    try (var model = Models.fable("f32")) {
      var tokens = tales(model);
      assertThat(tokens).hasSize(1573);
      var result = Perplexity.measure(model, tokens, window, ProgressListener.NONE);
      assertThat(result.meanNegativeLogLikelihood()).isCloseTo(expected, within(0.001));
      assertThat(result.scoredTokens()).isEqualTo(1573 - Math.ceilDiv(1573, window));
      assertThat(result.perplexity())
          .isCloseTo(Math.exp(result.meanNegativeLogLikelihood()), within(1e-9));
    }
  }

  @Test
  void riseOfEachSchemeStaysUnderItsBound() {
    var losses = new LinkedHashMap<String, double[]>();
    for (var scheme : Scheme.names()) {
      try (var model = Models.fable(scheme); var session = model.newSession(WINDOW)) {
        losses.put(scheme, lossOfEachToken(session, tales(model)));
      }
    }
    var table = new StringBuilder(String.format("tales.txt, windows of %d tokens%n%-8s %10s %10s"
        + " %10s %10s%n", WINDOW, "scheme", "nats/token", "rise", "+-2 s.e.", "bound"));
    var rises = new LinkedHashMap<String, Double>();
    losses.forEach((scheme, loss) -> {
      var rise = new double[loss.length];
      Arrays.setAll(rise, i -> loss[i] - losses.get("f32")[i]);
      double mean = mean(rise);
      double variance = Arrays.stream(rise).map(r -> (r - mean) * (r - mean)).sum() / rise.length;
      rises.put(scheme, mean);
      table.append(String.format("%-8s %10.4f %+10.4f %10.4f %10.4f%n", scheme, mean(loss), mean,
          2 * Math.sqrt(variance / rise.length), BOUNDS.get(scheme)));
    });
    System.out.print(table);
    rises.forEach(
        (scheme, rise) -> assertThat(rise).as(scheme).isLessThanOrEqualTo(BOUNDS.get(scheme)));
  }

  private static double[] lossOfEachToken(Session session, int[] tokens) {
    var losses = DoubleStream.builder();
    for (int start = 0; start < tokens.length; start += WINDOW) {
      int first = start;
      int end = Math.min(start + WINDOW, tokens.length);
      session.reset();
      session.forwardAll(Arrays.copyOfRange(tokens, start, end), (i, logits) -> {
        if (first + i + 1 < end) {
          losses.add(Perplexity.negativeLogLikelihood(logits, tokens[first + i + 1]));
        }
      });
    }
    return losses.build().toArray();
  }

  private static double mean(double[] values) {
    return Arrays.stream(values).average().orElseThrow();
  }

  static Iterable<String> quantizedSchemes() {
    return Scheme.names().stream().filter(name -> !name.equals("f32")).toList();
  }

  /** One flipped activation code moves single logits, so that the loss is what must agree. */
  @ParameterizedTest
  @MethodSource("quantizedSchemes")
  void chunksAgreeByLoss(String scheme) {
    try (var model = Models.fable(scheme); var session = model.newSession(WINDOW)) {
      var tokens = Arrays.copyOf(tales(model), WINDOW);
      double whole = loss(session, tokens, WINDOW);
      assertThat(loss(session, tokens, 37)).as("in chunks").isCloseTo(whole, within(0.002));
      assertThat(loss(session, tokens, 1)).as("token by token").isCloseTo(whole, within(0.002));
    }
  }

  private static double loss(Session session, int[] tokens, int chunk) {
    session.reset();
    double[] sum = {0};
    for (int start = 0; start < tokens.length; start += chunk) {
      int first = start;
      var part = Arrays.copyOfRange(tokens, start, Math.min(start + chunk, tokens.length));
      session.forwardAll(part, (i, logits) -> {
        if (first + i + 1 < tokens.length) {
          sum[0] += Perplexity.negativeLogLikelihood(logits, tokens[first + i + 1]);
        }
      });
    }
    return sum[0] / (tokens.length - 1);
  }

  private static int[] tales(LlamaModel model) {
    return model.tokenizer().orElseThrow().encode(Models.tales());
  }
}
