// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class RecipeTest {

  @Test
  void everyNameGivesARecipeOfThatName() {
    assertThat(Recipe.names()).containsAll(Scheme.names()).contains("fireq", "fireq+gptq",
        "fireq+awq", "fireq-pow2", "zeroquant-fp6", "zeroquant-fp6-e2m3", "llm-qat",
        "llm-qat-kv8").doesNotHaveDuplicates();
    for (var name : Recipe.names()) {
      assertThat(Recipe.of(name).name()).isEqualTo(name);
      assertThat(Recipe.of(name).describe()).startsWith(name);
    }
    for (var name : Scheme.names()) {
      assertThat(Recipe.of(name).scheme()).isEqualTo(Scheme.of(name));
      assertThat(Recipe.of(name).needsCalibration()).isFalse();
    }
  }

  @Test
  void recipesHaveTheFormatsOfTheirPapers() {
    var w4a8 = Scheme.of("w4a8");
    assertThat(Recipe.of("fireq").scheme()).isEqualTo(w4a8);
    assertThat(Recipe.of("fireq+gptq").scheme()).isEqualTo(w4a8);
    assertThat(Recipe.of("fireq-pow2").scheme().projections())
        .isEqualTo(new WeightFormat(CodeType.I4, ScaleType.POW2, 128));
    assertThat(Recipe.of("zeroquant-fp6").scheme()).isEqualTo(Scheme.of("w6a16"));
    assertThat(Recipe.of("zeroquant-fp6-e2m3").scheme().projections())
        .isEqualTo(new WeightFormat(CodeType.E2M3, ScaleType.F32, 0));
    var llmQat = Recipe.of("llm-qat").scheme();
    assertThat(llmQat.projections()).isEqualTo(new WeightFormat(CodeType.I4, ScaleType.F32, 0));
    assertThat(llmQat.activations()).isEqualTo(ActivationType.A8I);
    assertThat(llmQat.cache()).isEqualTo(KvType.KV4);
    assertThat(Recipe.of("llm-qat-kv8").scheme().cache()).isEqualTo(KvType.KV8);
    assertThat(Recipe.of("w4a8+gptq").compensation()).isEqualTo(Compensation.GPTQ);
    assertThat(Recipe.of("fireq+awq").compensation()).isEqualTo(Compensation.AWQ);
    for (var name : List.of("zeroquant-fp6", "llm-qat", "zeroquant-fp6-e2m3")) {
      assertThat(Recipe.of(name).needsCalibration()).isFalse();
    }
  }

  @Test
  void partsAreSwitchedOneByOne() {
    var recipe = Recipe.of("fireq");
    assertThat(recipe.withClipping(false).clipping()).isFalse();
    assertThat(recipe.withTensorScale(false).tensorScale()).isFalse();
    assertThat(recipe.withChannelScaling(false).channelScaling()).isFalse();
    assertThat(recipe.withPreRopeScaling(false).preRopeScaling()).isFalse();
    assertThat(recipe.withPostRopeChannels(0).postRopeChannels()).isZero();
    assertThat(recipe.withCacheFactors(false).cacheFactors()).isFalse();
    var plain = recipe.withClipping(false).withChannelScaling(false).withPreRopeScaling(false)
        .withPostRopeChannels(0).withCacheFactors(false);
    assertThat(plain.needsCalibration()).isFalse();
    assertThat(plain.withTensorScale(false).needsCalibration()).isTrue();
    assertThat(plain.withName("w4a8")).isEqualTo(Recipe.of("w4a8"));
  }

  @Test
  void whatDoesNotExistOrFitIsRefused() {
    for (var name : List.of("", "fireq4", "fireq+", "fireq+none", "fireq+gptq+awq", "+gptq")) {
      assertThatThrownBy(() -> Recipe.of(name)).isInstanceOf(InvalidArgumentException.class)
          .hasMessageContaining("\"" + name + "\"").hasMessageContaining("zeroquant-fp6-e2m3");
    }
    assertThatThrownBy(() -> Recipe.of("w8a8+gptq")).isInstanceOf(UnsupportedException.class)
        .hasMessageContaining("gptq is for 4-bit weights");
    assertThatThrownBy(() -> Recipe.of("fireq").withScheme(Scheme.of("w6a8")))
        .isInstanceOf(UnsupportedException.class).hasMessageContaining("clipping");
    assertThatThrownBy(
        () -> Recipe.of("fireq").withScheme(Scheme.of("w4a8").withCache(KvType.KV8)))
        .isInstanceOf(UnsupportedException.class).hasMessageContaining("4-bit cache");
    assertThatThrownBy(() -> Recipe.of("fireq").withPostRopeChannels(-1))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("-1");
  }

  @Test
  void aTextIsCutIntoWholeWindows() {
    var tokens = IntStream.range(0, 100).toArray();
    var calibration = Calibration.ofTokens("text", tokens, 35, 10);
    assertThat(calibration.windows()).isEqualTo(3);
    assertThat(calibration.windowTokens()).isEqualTo(10);
    assertThat(calibration.tokens()).isEqualTo(30);
    // Spread over the text, without overlap.
    assertThat(Arrays.stream(new int[] {0, 1, 2}).map(i -> calibration.window(i)[0]).toArray())
        .containsExactly(0, 30, 60);
    assertThat(calibration.window(1)).isEqualTo(IntStream.range(30, 40).toArray());
    assertThat(calibration.fingerprint()).hasSize(32)
        .isEqualTo(Calibration.ofTokens("other", tokens, 30, 10).fingerprint())
        .isNotEqualTo(Calibration.ofTokens("text", tokens, 40, 10).fingerprint());
    assertThat(Calibration.ofTokens("text", tokens, 1000, 10).windows()).isEqualTo(10);
  }

  @Test
  void aTextWithoutAWholeWindowIsRefused() {
    var tokens = new int[20];
    assertThatThrownBy(() -> Calibration.ofTokens("my.txt", tokens, 64, 32))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessage("my.txt: 20 tokens, but calibration needs at least one window of 32");
    assertThatThrownBy(() -> Calibration.ofTokens("my.txt", tokens, 5, 10))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("5 given");
    assertThatThrownBy(() -> Calibration.ofTokens("my.txt", tokens, 5, 1))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("at least 2");
    assertThatThrownBy(() -> Calibration.ofWindows(List.of()))
        .isInstanceOf(InvalidArgumentException.class);
    assertThatThrownBy(() -> Calibration.ofWindows(List.of(new int[3], new int[4])))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("one length");
  }
}
