// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import static org.assertj.core.api.Assertions.assertThat;

import dev.nibble.generate.Comparison;
import dev.nibble.io.ModelSource;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.model.Models;
import dev.nibble.model.ProgressListener;
import dev.nibble.tensor.Context;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * What calibration is worth on the built-in model, by the KL divergence of its predictions from
 * those in F32 on a short text: less noise than a difference of losses has. The bounds leave
 * room for other instruction sets and texts; half a step back fails them.
 */
class CalibratedAccuracyTest {
  private static final int WINDOW = 256;

  @TempDir static Path directory;
  private static ModelSource source;
  private static LlamaModel original;
  private static Context context;
  private static Calibration calibration;
  private static List<int[]> windows;

  @BeforeAll
  static void load() {
    source = ModelSource.embedded();
    context = Context.create("cpu", 2);
    original = LlamaModel.load(source, LoadOptions.defaults().withThreads(2).withScheme("f32"));
    calibration = Calibration.sampled(original, 16 * WINDOW, WINDOW, 3, ProgressListener.NONE);
    var tokens = original.tokenizer().orElseThrow().encode(Models.tales());
    windows = List.of(Arrays.copyOfRange(tokens, 0, 512), Arrays.copyOfRange(tokens, 512, 1024));
  }

  @AfterAll
  static void close() {
    original.close();
    context.close();
    source.close();
  }

  private static double divergence(ModelSource model, Recipe recipe) {
    var out = directory.resolve(recipe.name() + "-" + System.nanoTime());
    PostTrainingQuantizer.quantize(model, out, recipe, calibration, context, null);
    try (var quantized = LlamaModel.load(out, LoadOptions.defaults().withThreads(2))) {
      var result = Comparison.measure(original, quantized, windows, ProgressListener.NONE);
      System.out.printf("%-16s KL %.4f%n", recipe.name(), result.meanKlDivergence());
      return result.meanKlDivergence();
    }
  }

  private static double divergence(String name) {
    return divergence(source, Recipe.of(name));
  }

  @Test
  void eachMethodComesNearerToTheOriginal() {
    double nearest = divergence("w4a8");
    double fireq = divergence("fireq");
    assertThat(fireq).isLessThan(0.85 * nearest);
    assertThat(divergence("fireq+gptq")).isLessThan(0.9 * fireq);
    assertThat(divergence("fireq+awq")).isLessThan(1.1 * fireq);
    assertThat(divergence("fireq-pow2")).isLessThan(0.9 * nearest);
    assertThat(divergence("zeroquant-fp6")).isLessThan(0.25 * nearest);
  }

  @Test
  void channelsWithOutliersCostFireqNothing() throws IOException {
    var outliers = Files.createDirectory(directory.resolve("outliers"));
    OutlierModel.write(source, outliers);
    double fireq = divergence("fireq");
    try (var model = ModelSource.directory(outliers)) {
      assertThat(divergence(model, Recipe.of("fireq"))).isBetween(0.8 * fireq, 1.2 * fireq);
      // By which part: without either, the outliers show.
      assertThat(divergence(model, Recipe.of("fireq").withChannelScaling(false)))
          .isGreaterThan(1.5 * fireq);
      assertThat(divergence(model,
          Recipe.of("fireq").withPreRopeScaling(false).withPostRopeChannels(0)))
          .isGreaterThan(2 * fireq);
    }
  }

  @Test
  void aModelWritesTheSameTextForTheSameSeed() {
    var again = Calibration.sampled(original, 2 * WINDOW, WINDOW, 3, ProgressListener.NONE);
    assertThat(again.window(0)).isEqualTo(
        Calibration.sampled(original, 2 * WINDOW, WINDOW, 3, ProgressListener.NONE).window(0));
    var other = Calibration.sampled(original, 2 * WINDOW, WINDOW, 4, ProgressListener.NONE);
    assertThat(other.window(0)).isNotEqualTo(again.window(0));
    assertThat(again.window(0)).isNotEqualTo(again.window(1));
    assertThat(again.window(0)[0]).isEqualTo(original.config().bosToken());
    // The model's own text is likelier to it than another's words in its order.
    double own = Comparison.measure(original, original, List.of(again.window(0), again.window(1)),
        ProgressListener.NONE).meanNegativeLogLikelihood();
    assertThat(own).isBetween(2.0, 5.0);
  }
}
