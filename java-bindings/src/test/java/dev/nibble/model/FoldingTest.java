// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import static org.assertj.core.api.Assertions.assertThat;

import dev.nibble.io.ModelSource;
import dev.nibble.quantize.ActivationType;
import dev.nibble.quantize.Calibration;
import dev.nibble.quantize.Compensation;
import dev.nibble.quantize.KvType;
import dev.nibble.quantize.PostTrainingQuantizer;
import dev.nibble.quantize.Recipe;
import dev.nibble.quantize.Scheme;
import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;
import java.util.function.Consumer;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Scaling a model's weights does not change what it computes. */
class FoldingTest {
  private static final int TOKENS = 48;

  @TempDir Path directory;

  enum Kind {
    GROUPED_QUERY(m -> {}),
    UNTIED(m -> m.tied = false),
    NO_GROUPING(m -> m.kvHeads = 4),
    ONE_KEY_VALUE_HEAD(m -> m.kvHeads = 1),
    HEAD_DIM_APART(m -> m.headDim = 24),
    BIASES(m -> m.attentionBias = m.mlpBias = true),
    SHARDS_OF_BF16(m -> {
      m.shards = 3;
      m.dtype = "BF16";
    });

    private final Consumer<TinyModel> change;

    Kind(Consumer<TinyModel> change) {
      this.change = change;
    }
  }

  /** All scalings, and weights that stay F32. */
  private static Recipe folding() {
    var scheme =
        Scheme.of(WeightFormat.F32, ActivationType.F32, KvType.KV4, WeightFormat.F32);
    return new Recipe("folding", scheme, Compensation.NONE, false, true, true, true, 3, true);
  }

  @ParameterizedTest
  @EnumSource
  void aScaledModelComputesTheSame(Kind kind) {
    var model = new TinyModel();
    kind.change.accept(model);
    model.draw(7 + kind.ordinal());
    // Outliers, so that the scales have something to do.
    var norm = model.weights.get("model.layers.0.input_layernorm.weight").values();
    norm[3] *= 20;
    var keys = model.weights.get("model.layers.1.self_attn.k_proj.weight");
    for (int k = 0; k < keys.shape()[1]; k++) {
      keys.values()[5 * keys.shape()[1] + k] *= 8;
    }
    var in = model.write(directory.resolve("in"));
    var out = directory.resolve("out");
    var random = new Random(5);
    var windows = List.of(tokens(random, model), tokens(random, model), tokens(random, model));
    try (var source = ModelSource.directory(in); var context = Context.create("cpu", 2)) {
      PostTrainingQuantizer.quantize(
          source, out, folding(), Calibration.ofWindows(windows), context, null);
    }
    var f32 = LoadOptions.defaults().withThreads(2).withScheme("f32");
    var tokens = tokens(random, model);
    try (var original = LlamaModel.load(in, f32); var scaled = LlamaModel.load(out, f32);
        var session = original.newSession(TOKENS); var other = scaled.newSession(TOKENS)) {
      assertThat(scaled.weights().layers.getFirst().attentionNorm().weight().toFloats())
          .as("the fold left its trace")
          .isNotEqualTo(original.weights().layers.getFirst().attentionNorm().weight().toFloats());
      var expected = Models.logits(session, tokens, TOKENS);
      var actual = Models.logits(other, tokens, TOKENS);
      for (int i = 0; i < TOKENS; i++) {
        assertThat(Models.difference(actual.get(i), expected.get(i))).as("token %d", i)
            .isLessThan(1e-4 * Math.max(1, largest(expected.get(i))));
      }
    }
  }

  private static double largest(float[] logits) {
    return Models.difference(logits, new float[logits.length]);
  }

  private static int[] tokens(Random random, TinyModel model) {
    return random.ints(TOKENS, 0, model.vocabulary).toArray();
  }
}
