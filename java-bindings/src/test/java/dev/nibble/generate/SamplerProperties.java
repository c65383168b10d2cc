// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import static org.assertj.core.api.Assertions.assertThat;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import java.util.random.RandomGenerator;
import java.util.random.RandomGeneratorFactory;
import java.util.stream.IntStream;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.FloatRange;
import net.jqwik.api.constraints.IntRange;

/** The sampler against a plain one that sorts everything. */
class SamplerProperties {

  @Property(tries = 500)
  void choosesAsThePlainSamplerDoes(
      @ForAll @IntRange(min = 1, max = 60) int vocabulary,
      @ForAll @FloatRange(min = 0.1f, max = 3) float temperature,
      @ForAll @IntRange(min = 0, max = 70) int topK,
      @ForAll @FloatRange(min = 0.01f, max = 1) float topP,
      @ForAll @FloatRange(min = 0, max = 1) float minP,
      @ForAll @FloatRange(min = 0.5f, max = 2) float penalty,
      @ForAll long seed) {
    var options = new SamplerOptions(temperature, topK, topP, minP, penalty, 5, seed);
    var sampler = new Sampler(options);
    var plain = new PlainSampler(options);
    var random = new Random(seed);
    for (int step = 0; step < 20; step++) {
      // Few distinct values, so that ties are common.
      var logits = new float[vocabulary];
      for (int i = 0; i < vocabulary; i++) {
        logits[i] = random.nextInt(-6, 7) * 0.5f;
      }
      int expected = plain.choose(logits);
      int actual = sampler.choose(MemorySegment.ofArray(logits.clone()));
      assertThat(actual).isEqualTo(expected);
      sampler.observe(actual);
      plain.recent.add(actual);
    }
  }

  @Property(tries = 100)
  void logitsAreNotChanged(@ForAll long seed) {
    var logits = new float[30];
    var random = new Random(seed);
    for (int i = 0; i < logits.length; i++) {
      logits[i] = random.nextFloat();
    }
    try (var arena = Arena.ofConfined()) {
      var segment = arena.allocateFrom(ValueLayout.JAVA_FLOAT, logits);
      var sampler = Sampler.builder().repeatPenalty(1.5f).topK(3).seed(seed).build();
      for (int i = 0; i < 5; i++) {
        sampler.observe(sampler.choose(segment));
      }
      assertThat(segment.toArray(ValueLayout.JAVA_FLOAT)).containsExactly(logits);
    }
  }

  /** One screen of the definition: sort, cut, draw. */
  private static final class PlainSampler {
    private final SamplerOptions options;
    private final RandomGenerator random;
    private final List<Integer> recent = new ArrayList<>();

    PlainSampler(SamplerOptions options) {
      this.options = options;
      this.random = RandomGeneratorFactory.of("L64X128MixRandom").create(options.seed());
    }

    int choose(float[] original) {
      var logits = original.clone();
      int from = Math.max(0, recent.size() - options.repeatWindow());
      recent.subList(from, recent.size()).stream().distinct().forEach(token -> {
        if (options.repeatPenalty() != 1) {
          logits[token] = logits[token] > 0
              ? logits[token] / options.repeatPenalty()
              : logits[token] * options.repeatPenalty();
        }
      });
      float max = Float.NEGATIVE_INFINITY;
      for (float logit : logits) {
        max = Math.max(max, logit);
      }
      var weights = new double[logits.length];
      for (int i = 0; i < weights.length; i++) {
        weights[i] = Math.exp(((double) logits[i] - max) / options.temperature());
      }
      var order = IntStream.range(0, logits.length).boxed()
          .sorted(Comparator.comparing((Integer i) -> -logits[i]).thenComparing(i -> i)).toList();
      boolean cut = options.topK() > 0 && options.topK() < logits.length;
      var available = cut ? order.subList(0, options.topK()) : order;
      double total = cut
          ? available.stream().mapToDouble(i -> weights[i]).reduce(0, Double::sum)
          : sum(weights);
      var kept = new ArrayList<Integer>();
      double mass = 0;
      for (int token : available) {
        boolean wanted = options.topP() >= 1 && options.minP() <= 0
            || mass < options.topP() * total && weights[token] >= options.minP();
        if (!kept.isEmpty() && !wanted) {
          break;
        }
        kept.add(token);
        mass += weights[token];
      }
      if (!cut && options.topP() >= 1 && options.minP() <= 0) {
        kept.sort(null); // nothing to sort for: drawn in the order of ids
      }
      double keptMass = 0;
      for (int token : kept) {
        keptMass += weights[token];
      }
      double left = random.nextDouble() * keptMass;
      for (int token : kept) {
        left -= weights[token];
        if (left < 0) {
          return token;
        }
      }
      return kept.getLast();
    }

    private static double sum(double[] values) {
      double sum = 0;
      for (double value : values) {
        sum += value;
      }
      return sum;
    }
  }
}
