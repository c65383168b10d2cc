// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import dev.nibble.generate.Comparison;
import dev.nibble.io.ModelSource;
import dev.nibble.model.LlamaConfig;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.model.Models;
import dev.nibble.model.ProgressListener;
import dev.nibble.tensor.Context;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MixedPrecisionTest {
  private static final String DOWN = "model.layers.1.mlp.down_proj.weight";

  @TempDir Path directory;

  private static List<MixedPrecision.Item> items(Random random, int count) {
    var items = new ArrayList<MixedPrecision.Item>();
    for (int i = 0; i < count; i++) {
      long rows = 16L * (1 + random.nextInt(4));
      long cols = 128L * (1 + random.nextInt(3));
      var bytes = new long[3];
      var losses = new double[3];
      for (int f = 0; f < 3; f++) {
        bytes[f] = MixedPrecision.FORMATS.get(f).bytes(rows, cols);
        losses[f] = random.nextDouble() / (1 << 2 * f); // not always falling with the bits
      }
      items.add(new MixedPrecision.Item(List.of("t" + i), rows, cols, bytes, losses));
    }
    return items;
  }

  @Test
  void noOtherChoiceWithinTheBudgetLosesLess() {
    long seed = System.nanoTime();
    var random = new Random(seed);
    for (int repeat = 0; repeat < 60; repeat++) {
      var items = items(random, 1 + random.nextInt(7));
      double bits = 4.1 + 4 * random.nextDouble();
      var plan = MixedPrecision.choose(items, bits);
      assertThat(plan.bitsPerWeight()).as("seed %d", seed).isLessThanOrEqualTo(bits);
      assertThat(plan.loss()).as("seed %d", seed).isEqualTo(lossOf(items, plan.choice()));
      assertThat(plan.loss()).as("seed %d", seed).isCloseTo(bestOf(items, bits), within(1e-12));
    }
  }

  private static double lossOf(List<MixedPrecision.Item> items, int[] choice) {
    double loss = 0;
    for (int i = 0; i < choice.length; i++) {
      loss += items.get(i).losses()[choice[i]];
    }
    return loss;
  }

  /** By trying everything. */
  private static double bestOf(List<MixedPrecision.Item> items, double bits) {
    long weights = items.stream().mapToLong(MixedPrecision.Item::weights).sum();
    double best = Double.POSITIVE_INFINITY;
    var choice = new int[items.size()];
    for (int code = 0; code < Math.pow(3, items.size()); code++) {
      long bytes = 0;
      for (int i = 0, rest = code; i < choice.length; i++, rest /= 3) {
        choice[i] = rest % 3;
        bytes += items.get(i).bytes()[choice[i]];
      }
      if (8 * bytes <= bits * weights) {
        best = Math.min(best, lossOf(items, choice));
      }
    }
    return best;
  }

  @Test
  void aBudgetBelowTheSmallestFormatsIsRefused() {
    var items = items(new Random(1), 3);
    for (double bits : new double[] {4, 0, -1, Double.NaN}) {
      assertThatThrownBy(() -> MixedPrecision.choose(items, bits))
          .isInstanceOf(InvalidArgumentException.class)
          .hasMessageContainingAll("bits: " + bits, "at least 4.");
    }
  }

  @Test
  void measuredCostsFallWithTheBitsAndTheChoiceFollowsThem() {
    try (var source = ModelSource.embedded(); var model = Models.fable("f32")) {
      var calibration = Calibration.ofText(
          "tales", Models.tales(), model.tokenizer().orElseThrow(), 256, 256);
      var items = MixedPrecision.measure(source, calibration, 256, 0, (what, done, total) -> { });
      var config = LlamaConfig.read(source);
      assertThat(items).hasSize(6 * config.layers());
      for (var item : items) {
        assertThat(item.losses()[0]).as(item.label()).isGreaterThan(item.losses()[1]);
        assertThat(item.losses()[1]).as(item.label()).isGreaterThan(item.losses()[2]);
      }
      var plan = MixedPrecision.choose(items, 5);
      var scheme = Scheme.of("w4a8").withExceptions(plan.formats());
      assertThat(MixedPrecision.bitsPerWeight(config, scheme))
          .isCloseTo(plan.bitsPerWeight(), within(1e-12)).isBetween(4.9, 5.0);
      assertThat(plan.table()).contains("layers.0.mlp.gate_proj, up_proj", "bits a weight");
    }
  }

  /** With the measurement's own definition, on the whole model: a block, and a projection of it. */
  @Test
  void measuredCostsAreThoseOfTheWholeModel() {
    try (var source = ModelSource.embedded(); var model = Models.fable("f32")) {
      var calibration = Calibration.ofText(
          "tales", Models.tales(), model.tokenizer().orElseThrow(), 512, 256);
      var items = MixedPrecision.measure(source, calibration, 512, 2, (what, done, total) -> { });
      for (int layer : new int[] {0, 3}) {
        var block = items.stream()
            .filter(item -> item.label().startsWith("layers." + layer + ".")).toList();
        assertThat(block).hasSize(6);
        double sum = block.stream().mapToDouble(item -> item.losses()[0]).sum();
        var all = block.stream().flatMap(item -> item.tensors().stream()).toList();
        // The last token of a window is not scored there; it is here.
        assertThat(divergence(source, model, calibration, all, WeightFormat.W4))
            .isCloseTo(sum, within(0.05 * sum));
        for (int f = 0; f < 2; f++) {
          double down = block.getLast().losses()[f];
          assertThat(divergence(source, model, calibration, block.getLast().tensors(),
              MixedPrecision.FORMATS.get(f))).isBetween(0.6 * down, 1.6 * down);
        }
      }
    }
  }

  /** The KL divergence if these projections, and no others, have a format. */
  private double divergence(ModelSource source, LlamaModel original, Calibration calibration,
      List<String> tensors, WeightFormat format) {
    var formats = new HashMap<String, WeightFormat>();
    tensors.forEach(name -> formats.put(name, format));
    var scheme = Scheme.of("f32").withExceptions(formats);
    var recipe = Recipe.of("fireq").withPreRopeScaling(false).withPostRopeChannels(0)
        .withCacheFactors(false).withClipping(format.equals(WeightFormat.W4)).withScheme(scheme);
    var out = directory.resolve("out" + System.nanoTime());
    try (var context = Context.create("cpu", 2)) {
      PostTrainingQuantizer.quantize(source, out, recipe, calibration, context, null);
    }
    try (var model = LlamaModel.load(out, LoadOptions.defaults().withThreads(2))) {
      return Comparison.measure(original, model,
          List.of(calibration.window(0), calibration.window(1)), ProgressListener.NONE)
          .meanKlDivergence();
    }
  }

  @Test
  void activationsAndCacheAreThoseOfSixBitsUnlessAskedFor() {
    var recipe = MixedPrecision.recipe();
    assertThat(recipe.scheme()).isEqualTo(Scheme.of("w6a16").withProjections(WeightFormat.W4));
    assertThat(recipe.compensation()).isEqualTo(Compensation.GPTQ);
    assertThat(recipe.preRopeScaling() || recipe.cacheFactors()).isFalse();
    assertThat(MixedPrecision.recipe(Scheme.of("w4a8"))).isEqualTo(Recipe.of("fireq+gptq"));
  }

  @Test
  void bitsCountCodesAndScales() {
    try (var source = ModelSource.embedded()) {
      var config = LlamaConfig.read(source);
      assertThat(MixedPrecision.bitsPerWeight(config, Scheme.of("f32"))).isEqualTo(32);
      // 4 bits, 8 of a scale for 128, and a factor of 32 for each of the 28 matrices.
      assertThat(MixedPrecision.bitsPerWeight(config, Scheme.of("w4a8")))
          .isCloseTo(4.0625, within(0.001)).isGreaterThan(4.0625);
    }
  }

  @Test
  void aModelOfMixedFormatsLoadsTheSameFromAFileAndFromTheOriginal() {
    var mixed = Scheme.of("w4a8").withExceptions(Map.of(DOWN, WeightFormat.W8));
    assertThat(mixed.name()).isEqualTo("custom");
    assertThat(mixed.formatOf(DOWN)).isEqualTo(WeightFormat.W8);
    var out = directory.resolve("mixed");
    try (var source = ModelSource.embedded();
        var context = Context.create("cpu", 0)) {
      Quantizer.quantize(source, out, mixed, context, null);
      var options = LoadOptions.defaults();
      try (var expected = LlamaModel.load(source, options.withScheme(mixed));
          var plain = LlamaModel.load(source, options.withScheme("w4a8"));
          var loaded = LlamaModel.load(out, options);
          // A named scheme chooses activations and cache; the weights are as they are.
          var chosen = LlamaModel.load(out, options.withScheme("w4a8"))) {
        assertThat(loaded.scheme()).isEqualTo(mixed);
        assertThat(chosen.scheme()).isEqualTo(mixed);
        assertThat(logits(loaded)).isEqualTo(logits(expected)).isNotEqualTo(logits(plain));
        assertThat(loaded.weightBytesPerToken()).isGreaterThan(plain.weightBytesPerToken());
      }
      var others = Scheme.of("w4a8").withExceptions(Map.of(DOWN, WeightFormat.W6));
      assertThatThrownBy(() -> LlamaModel.load(out, options.withScheme(others)))
          .isInstanceOf(InvalidArgumentException.class)
          .hasMessageContaining("already quantized, with others");
    }
  }

  private static float[] logits(LlamaModel model) {
    try (var session = model.newSession(8)) {
      return session.forward(new int[] {1, 2, 3, 4}).toArray(ValueLayout.JAVA_FLOAT);
    }
  }

  @Test
  void anExceptionNeedsAKernelLikeEveryProjection() {
    assertThatThrownBy(() -> Scheme.of("w4a8i").withExceptions(Map.of(DOWN, WeightFormat.W6)))
        .isInstanceOf(UnsupportedException.class).hasMessageContainingAll(DOWN, "a8i");
    assertThat(Scheme.of("w4a8").withExceptions(Map.of(DOWN, WeightFormat.W4)))
        .isEqualTo(Scheme.of("w4a8"));
  }
}
