// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import static org.assertj.core.api.Assertions.assertThat;

import dev.nibble.io.DataType;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.TensorArena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** The sampler, and the library's operators that stand in for it on a device: the same token. */
class NativeSamplerTest {
  private static final int ROUNDS = 400;

  @Test
  void penalizeAndSampleChooseWhatTheSamplerChooses() {
    var random = new Random(7);
    for (int round = 0; round < ROUNDS; round++) {
      int vocabulary = random.nextInt(1, 400);
      var options = new SamplerOptions(
          random.nextInt(9) / 4f,
          random.nextBoolean() ? 0 : random.nextInt(vocabulary + 10),
          random.nextBoolean() ? 1 : random.nextInt(1, 101) / 100f,
          random.nextBoolean() ? 0 : random.nextInt(101) / 100f,
          random.nextBoolean() ? 1 : 0.5f + random.nextFloat(),
          random.nextInt(1, 12),
          round);
      var inJava = new Sampler(options);
      var twin = new Sampler(options);
      try (var context = Context.create("cpu", 1); var arena = new TensorArena()) {
        var logits = arena.allocate(DataType.F32, 1, vocabulary);
        var uniforms = arena.allocate(DataType.F64, 1);
        var ids = arena.allocate(DataType.I32, 1);
        var recent = arena.allocate(DataType.I32, options.repeatWindow());
        var penalize = context.bindPenalize(logits, recent, options.repeatPenalty());
        var sample = context.bindSample(logits, options.temperature(), options.topK(),
            options.topP(), options.minP(), uniforms, ids);
        for (int step = 0; step < 8; step++) {
          var values = new float[vocabulary];
          for (int i = 0; i < vocabulary; i++) {
            // Many ties; now and then a token that cannot be.
            values[i] = random.nextInt(20) == 0
                ? Float.NEGATIVE_INFINITY
                : random.nextInt(-8, 9) * 0.75f;
          }
          MemorySegment.copy(
              values, 0, logits.segment(), ValueLayout.JAVA_FLOAT, 0, vocabulary);
          var tokens = new int[options.repeatWindow()];
          Arrays.fill(tokens, -1);
          twin.recent(tokens);
          for (int i = 0; i < tokens.length; i++) {
            recent.segment().setAtIndex(ValueLayout.JAVA_INT, i, distinct(tokens[i], i));
          }
          if (options.temperature() != 0) {
            uniforms.segment().set(ValueLayout.JAVA_DOUBLE, 0, twin.nextUniform());
          }
          if (options.repeatPenalty() != 1) {
            penalize.run();
          }
          sample.run(1);
          int expected = inJava.choose(MemorySegment.ofArray(values));
          assertThat(ids.segment().get(ValueLayout.JAVA_INT, 0))
              .as("%s, %d tokens", options, vocabulary).isEqualTo(expected);
          inJava.observe(expected);
          twin.observe(expected);
        }
      }
    }
  }

  /** Where there is no token, one that is outside every vocabulary, another each time. */
  private static int distinct(int token, int i) {
    return token < 0 ? -1 - i : token;
  }

  @Test
  void argmaxNamesWhatIsNoNumber() {
    try (var context = Context.create("cpu", 1); var arena = new TensorArena()) {
      var logits = arena.allocate(DataType.F32, 2, 3);
      logits.copyFrom(new float[] {1, 3, 3, 2, Float.NaN, 9});
      var ids = arena.allocate(DataType.I32, 2);
      context.bindArgmax(logits, ids).run(2);
      assertThat(ids.segment().toArray(ValueLayout.JAVA_INT)).containsExactly(1, -2);
    }
  }
}
