// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.nibble.InternalException;
import dev.nibble.InvalidArgumentException;
import java.lang.foreign.MemorySegment;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class SamplerTest {
  private static MemorySegment logits(float... values) {
    return MemorySegment.ofArray(values);
  }

  @Test
  void greedyTakesTheFirstOfTheLargest() {
    assertThat(Sampler.greedy().choose(logits(1, 3, 2, 3))).isEqualTo(1);
    assertThat(Sampler.greedy().choose(logits(-5))).isZero();
    assertThat(Sampler.greedy().choose(
        logits(Float.NEGATIVE_INFINITY, Float.NEGATIVE_INFINITY))).isZero();
  }

  @Test
  void frequenciesFollowTheProbabilities() {
    var sampler = Sampler.builder().seed(7).build();
    var logits = logits((float) Math.log(0.5), (float) Math.log(0.3), (float) Math.log(0.2));
    var counts = new double[3];
    int draws = 100_000;
    for (int i = 0; i < draws; i++) {
      counts[sampler.choose(logits)]++;
    }
    // Five standard deviations of a binomial share: 5 * sqrt(0.25 / 100000) = 0.008.
    assertThat(counts[0] / draws).isCloseTo(0.5, within(0.008));
    assertThat(counts[1] / draws).isCloseTo(0.3, within(0.008));
    assertThat(counts[2] / draws).isCloseTo(0.2, within(0.008));
  }

  @Test
  void eachCutKeepsWhatItSays() {
    var logits = logits((float) Math.log(0.5), (float) Math.log(0.3), (float) Math.log(0.15),
        (float) Math.log(0.05));
    assertThat(seen(Sampler.topK(2, 1, 1), logits)).containsExactly(true, true, false, false);
    assertThat(seen(Sampler.topP(0.7f, 1, 1), logits)).containsExactly(true, true, false, false);
    assertThat(seen(Sampler.topP(0.9f, 1, 1), logits)).containsExactly(true, true, true, false);
    assertThat(seen(Sampler.topP(0.01f, 1, 1), logits))
        .containsExactly(true, false, false, false);
    assertThat(seen(Sampler.builder().minP(0.2f).build(), logits))
        .containsExactly(true, true, true, false);
    assertThat(seen(Sampler.builder().build(), logits)).containsExactly(true, true, true, true);
  }

  private static boolean[] seen(Sampler sampler, MemorySegment logits) {
    var seen = new boolean[4];
    for (int i = 0; i < 2000; i++) {
      seen[sampler.choose(logits)] = true;
    }
    return seen;
  }

  @Test
  void repeatPenaltyForgetsAfterItsWindow() {
    var sampler =
        Sampler.builder().temperature(0).repeatPenalty(2).repeatWindow(2).build();
    var logits = logits(1, 1.5f, -1);
    sampler.observe(1);
    assertThat(sampler.choose(logits)).isZero(); // 1.5 / 2 < 1
    sampler.observe(2);
    assertThat(sampler.choose(logits)).isZero();
    sampler.observe(2);
    assertThat(sampler.choose(logits)).isEqualTo(1);
  }

  @Test
  void sameSeedSameChoices() {
    var random = new Random(1);
    var a = Sampler.topP(0.95f, 0.9f, 42);
    var b = Sampler.topP(0.95f, 0.9f, 42);
    var other = Sampler.topP(0.95f, 0.9f, 43);
    int differences = 0;
    for (int i = 0; i < 200; i++) {
      var values = new float[100];
      for (int j = 0; j < values.length; j++) {
        values[j] = random.nextFloat(4);
      }
      int choice = a.choose(logits(values));
      assertThat(b.choose(logits(values))).isEqualTo(choice);
      differences += other.choose(logits(values)) == choice ? 0 : 1;
    }
    assertThat(differences).isPositive();
  }

  @Test
  void brokenLogitsAreReported() {
    assertThatThrownBy(() -> Sampler.greedy().choose(logits(1, Float.NaN)))
        .isInstanceOf(InternalException.class).hasMessageContaining("logits[1] is NaN");
    assertThatThrownBy(() -> Sampler.greedy().choose(logits()))
        .isInstanceOf(InvalidArgumentException.class);
  }

  @ParameterizedTest
  @ValueSource(strings = {"temperature", "top-k", "top-p", "min-p", "repeat-penalty",
      "repeat-window"})
  void settingsOutOfRangeAreNamed(String name) {
    var builder = Sampler.builder();
    switch (name) {
      case "temperature" -> builder.temperature(Float.NaN);
      case "top-k" -> builder.topK(-1);
      case "top-p" -> builder.topP(0);
      case "min-p" -> builder.minP(1.5f);
      case "repeat-penalty" -> builder.repeatPenalty(0);
      default -> builder.repeatWindow(0);
    }
    assertThatThrownBy(builder::build).isInstanceOf(InvalidArgumentException.class)
        .hasMessageStartingWith(name + ": ").hasMessageContaining("expected");
  }
}
