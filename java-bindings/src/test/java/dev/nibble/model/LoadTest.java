// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.ModelSource;
import dev.nibble.quantize.Quantizer;
import dev.nibble.quantize.Scheme;
import dev.nibble.tensor.Context;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Loading: checkpoints with faults, checkpoints quantized before, and random weights. */
class LoadTest {
  @TempDir Path directory;

  private void assertRefused(TinyModel tiny, String... messageParts) {
    tiny.write(directory);
    for (var scheme : new String[] {"f32", "w4a8"}) {
      assertThatThrownBy(
              () -> LlamaModel.load(directory, LoadOptions.defaults().withScheme(scheme)).close())
          .isInstanceOf(ModelFormatException.class).hasMessageContainingAll(messageParts)
          .hasMessageContaining("model.safetensors").hasMessageNotContaining("\n");
    }
  }

  @Test
  void missingTensor() {
    var tiny = new TinyModel().draw(1);
    tiny.weights.remove("model.layers.1.mlp.up_proj.weight");
    assertRefused(tiny, "model.layers.1.mlp.up_proj.weight", "missing");
  }

  @Test
  void missingHeadOfAnUntiedModel() {
    var tiny = new TinyModel().draw(1);
    tiny.tied = false;
    assertRefused(tiny, "lm_head.weight", "missing");
  }

  @Test
  void wrongShape() {
    var tiny = new TinyModel().draw(1);
    tiny.intermediate = 80;
    assertRefused(tiny, "model.layers.0.mlp.gate_proj.weight", "[96, 64]", "[80, 64]");
  }

  @Test
  void wrongRankOfANorm() {
    var tiny = new TinyModel().draw(1);
    var norm = tiny.weights.get("model.norm.weight");
    tiny.weights.put("model.norm.weight", new TinyModel.Weight(new int[] {1, 64}, norm.values()));
    assertRefused(tiny, "model.norm.weight", "[1, 64]", "[64]");
  }

  @Test
  void notANumber() {
    for (double bad : new double[] {Double.NaN, Double.POSITIVE_INFINITY}) {
      for (var name : new String[] {"model.norm.weight", "model.layers.0.self_attn.v_proj.weight",
          "model.embed_tokens.weight"}) {
        var tiny = new TinyModel().draw(1);
        tiny.weights.get(name).values()[33] = bad;
        assertRefused(tiny, name);
      }
    }
  }

  @Test
  void notAFloat() {
    var tiny = new TinyModel().draw(1);
    tiny.dtype = "I32";
    assertRefused(tiny, "model.embed_tokens.weight", "dtype I32", "F32, F16 or BF16");
  }

  @Test
  void progressReachesTheEnd() {
    new TinyModel().draw(1).write(directory);
    var done = new ArrayList<Long>();
    long[] last = {0};
    LlamaModel.load(directory, LoadOptions.defaults().withProgress((what, at, total) -> {
      done.add(at);
      last[0] = total;
    })).close();
    assertThat(done).isSorted().hasSizeGreaterThan(10);
    assertThat(done.getFirst()).isZero();
    assertThat(done.getLast()).isEqualTo(last[0]).isPositive();
  }

  static Iterable<String> schemes() {
    return Scheme.names();
  }

  @ParameterizedTest
  @MethodSource("schemes")
  void quantizedDirectoryGivesTheSameLogitsBitForBit(String name) throws Exception {
    var tiny = new TinyModel();
    tiny.dtype = "BF16";
    tiny.hidden = 172;
    tiny.attentionBias = true;
    tiny.tied = false;
    tiny.draw(5).write(directory.resolve("in"));
    var scheme = Scheme.of(name);
    var out = directory.resolve("out");
    try (var source = ModelSource.directory(directory.resolve("in"));
        var context = Context.create()) {
      Quantizer.quantize(source, out, scheme, context, null);
    }
    var tokens = new Random(3).ints(30, 0, tiny.vocabulary).toArray();
    // The stored directory knows its scheme; the source is told.
    try (var direct = LlamaModel.load(
            directory.resolve("in"), LoadOptions.defaults().withScheme(scheme));
        var stored = LlamaModel.load(out, LoadOptions.defaults());
        var a = direct.newSession(); var b = stored.newSession()) {
      assertThat(stored.scheme()).isEqualTo(scheme);
      var expected = Models.logits(a, tokens, 30);
      var actual = Models.logits(b, tokens, 30);
      for (int i = 0; i < 30; i++) {
        assertThat(actual.get(i)).containsExactly(expected.get(i));
      }
    }
    if (!name.equals("f32")) {
      assertThatThrownBy(() -> LlamaModel.load(out, LoadOptions.defaults().withScheme("f32")))
          .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("already quantized");
    }
  }

  @Test
  void otherLibrariesQuantizationIsRefused() throws Exception {
    var tiny = new TinyModel().draw(1);
    tiny.write(directory);
    Files.writeString(directory.resolve("config.json"), tiny.config()
        .replaceFirst("\\{", "{\"quantization_config\": {\"quant_method\": \"awq\"}, "));
    assertThatThrownBy(() -> LlamaModel.load(directory, LoadOptions.defaults()))
        .isInstanceOf(UnsupportedException.class).hasMessageContaining("awq");
  }

  @Test
  void embeddedModelIsTheDefaultScheme() {
    try (var model = LlamaModel.loadEmbedded(LoadOptions.defaults().withThreads(1))) {
      assertThat(model.name()).isEqualTo("fable-4m");
      assertThat(model.scheme()).isEqualTo(Scheme.of("w4a8"));
      assertThat(model.context().threads()).isEqualTo(1);
      assertThat(model.config().eosTokens()).containsExactly(1);
      assertThat(model.config().bosToken()).isZero();
      // Tied: the embedding is counted once, as the head. 3.15 M weights at 4.1 bits, 1 M at 8.
      assertThat(model.weightBytesPerToken()).isBetween(2_600_000L, 2_900_000L);
      assertThat(model.cacheBytesPerToken()).isEqualTo(4 * 2 * 2 * (32 + 1));
    }
  }

  @ParameterizedTest
  @MethodSource("schemes")
  void syntheticModelsRunAndRepeat(String scheme) {
    var config = SyntheticConfigs.of("128x2x352x8x4x100");
    var options = LoadOptions.defaults().withScheme(scheme);
    float[] first;
    try (var model = LlamaModel.synthetic(config, options, 42);
        var session = model.newSession(16)) {
      first = Models.toArray(session.forward(new int[] {1, 2, 3}));
    }
    try (var model = LlamaModel.synthetic(config, options, 42);
        var session = model.newSession(16)) {
      assertThat(Models.toArray(session.forward(new int[] {1, 2, 3}))).containsExactly(first);
    }
    for (float logit : first) {
      assertThat(logit).isFinite();
    }
    assertThat(first).doesNotContain(0f);
  }

  @Test
  void namedConfigurations() {
    assertThat(SyntheticConfigs.of("llama-3.2-1b").parameters()).isEqualTo(1_235_814_400L);
    assertThat(SyntheticConfigs.of("llama-3-8b").parameters()).isEqualTo(8_030_261_248L);
    assertThat(SyntheticConfigs.of("llama-2-7b").parameters()).isEqualTo(6_738_415_616L);
    assertThatThrownBy(() -> SyntheticConfigs.of("gpt-2"))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessageContainingAll("gpt-2", "llama-3.2-1b", "HIDDENxLAYERS");
    assertThatThrownBy(() -> SyntheticConfigs.of("128x0"))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("num_hidden_layers");
  }
}
