// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.assertj.core.api.Assertions.withinPercentage;

import dev.nibble.quantize.Scheme;
import java.nio.file.Path;
import java.util.Random;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Every kind of LLaMA checkpoint, in F32, against a plain double-precision LLaMA. */
class TinyModelsTest {
  /** The bound that the project sets itself for a whole F32 model. */
  private static final double TOLERANCE = 2e-4;
  private static final int TOKENS = 50;

  @TempDir Path directory;

  enum Kind {
    PLAIN(m -> {}),
    UNTIED(m -> m.tied = false),
    NO_GROUPING(m -> m.kvHeads = 4),
    ONE_KEY_VALUE_HEAD(m -> m.kvHeads = 1),
    HEAD_DIM_APART(m -> m.headDim = 24),
    ODD_SIZES(m -> {
      m.hidden = 172;
      m.intermediate = 352;
      m.vocabulary = 101;
    }),
    HIDDEN_352(m -> {
      m.hidden = 352;
      m.intermediate = 172;
      m.tied = false;
    }),
    ATTENTION_BIAS(m -> m.attentionBias = true),
    MLP_BIAS(m -> m.mlpBias = true),
    BF16(m -> m.dtype = "BF16"),
    F16(m -> m.dtype = "F16"),
    SHARDS(m -> m.shards = 3),
    NEW_ROPE_FORM(m -> {
      m.rope = "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500000.0}";
      m.frequencies = plain(m.headDim, 500_000);
    }),
    LINEAR_ROPE(m -> {
      m.rope = "\"rope_theta\": 10000.0, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 4.0}";
      m.frequencies = plain(m.headDim, 10_000);
      for (int i = 0; i < m.frequencies.length; i++) {
        m.frequencies[i] /= 4;
      }
    }),
    LLAMA_3_ROPE(m -> {
      m.headDim = 32;
      m.rope = """
          "rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
          "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}""";
      m.frequencies = llama3(plain(m.headDim, 10_000), 8, 1, 4, 64);
    });

    private final Consumer<TinyModel> change;

    Kind(Consumer<TinyModel> change) {
      this.change = change;
    }

    TinyModel make() {
      var model = new TinyModel();
      change.accept(model);
      return model.draw(ordinal() + 1);
    }
  }

  @ParameterizedTest
  @EnumSource
  void agreesWithTheReference(Kind kind) {
    var tiny = kind.make();
    var tokens = new Random(7).ints(TOKENS, 0, tiny.vocabulary).toArray();
    var expected = tiny.reference().logits(tokens);
    try (var model = LlamaModel.load(
            tiny.write(directory), LoadOptions.defaults().withScheme("f32"));
        var session = model.newSession()) {
      assertThat(model.tokenizer()).isEmpty();
      for (int chunk : new int[] {TOKENS, 9, 1}) {
        session.reset();
        var rows = Models.logits(session, tokens, chunk);
        for (int t = 0; t < TOKENS; t++) {
          double largest = 0;
          for (int i = 0; i < tiny.vocabulary; i++) {
            double difference = Math.abs(rows.get(t)[i] - expected[t][i]);
            largest = Double.isNaN(difference) ? Double.MAX_VALUE : Math.max(largest, difference);
          }
          assertThat(largest).as("chunks of %d, token %d", chunk, t)
              .isLessThanOrEqualTo(TOLERANCE);
        }
      }
    }
  }

  /** Quantized forms of odd shapes run and stay near: logits correlate with the reference's. */
  @ParameterizedTest
  @EnumSource(names = {"ODD_SIZES", "HIDDEN_352", "ATTENTION_BIAS", "MLP_BIAS", "HEAD_DIM_APART"})
  void quantizedKindsStayNear(Kind kind) {
    var tiny = kind.make();
    var tokens = new Random(7).ints(TOKENS, 0, tiny.vocabulary).toArray();
    var expected = tiny.reference().logits(tokens);
    tiny.write(directory);
    for (var scheme : Scheme.names()) {
      try (var model = LlamaModel.load(directory, LoadOptions.defaults().withScheme(scheme));
          var session = model.newSession()) {
        var rows = Models.logits(session, tokens, TOKENS);
        double dot = 0;
        double a = 0;
        double b = 0;
        for (int t = 0; t < TOKENS; t++) {
          for (int i = 0; i < tiny.vocabulary; i++) {
            dot += rows.get(t)[i] * expected[t][i];
            a += (double) rows.get(t)[i] * rows.get(t)[i];
            b += expected[t][i] * expected[t][i];
          }
        }
        // Random weights at 4 bits carry some 10 % noise a layer; a mistake gives nearly 0.
        assertThat(dot / Math.sqrt(a * b)).as(scheme).isGreaterThan(0.9);
      }
    }
  }

  @Test
  void llama3FrequenciesAreKeptBlendedAndDivided() {
    var config = LlamaConfigTest.parse("""
        "head_dim": 64, "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3",
        "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}""");
    var actual = config.inverseFrequencies();
    var plain = plain(64, 500_000);
    var expected = llama3(plain, 32, 1, 4, 8192);
    assertThat(actual).hasSize(32);
    for (int i = 0; i < 32; i++) {
      // A handful of F32 operations, each within 2^-24, and a power within 2^-23.
      assertThat((double) actual[i]).isCloseTo(expected[i],
          within(expected[i] * 8 * 0x1p-24));
    }
    assertThat(actual[0]).isEqualTo(1f);
    assertThat((double) actual[31] * 32).isCloseTo(plain[31],
        withinPercentage(1e-4));
  }

  private static double[] plain(int headDim, double theta) {
    var frequencies = new double[headDim / 2];
    for (int i = 0; i < frequencies.length; i++) {
      frequencies[i] = Math.pow(theta, -2.0 * i / headDim);
    }
    return frequencies;
  }

  /** LLaMA 3's scaling as a function of how many turns a pair makes within the old context. */
  private static double[] llama3(
      double[] frequencies, double factor, double low, double high, double context) {
    var scaled = new double[frequencies.length];
    for (int i = 0; i < scaled.length; i++) {
      double turns = context * frequencies[i] / (2 * Math.PI);
      double kept = Math.clamp((turns - low) / (high - low), 0, 1);
      scaled[i] = frequencies[i] * (kept + (1 - kept) / factor);
    }
    return scaled;
  }
}
