// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import java.util.ArrayList;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class SchemeTest {

  @ParameterizedTest
  @CsvSource({
      "f32,   F32,  NONE, 0,   F32, F32,  F32,  NONE",
      "bf16,  BF16, NONE, 0,   A16, KV16, BF16, NONE",
      "w4a8,  I4,   E4M3, 128, A8F, KV4,  I8,   F32",
      "w4a8i, I4,   E4M3, 128, A8I, KV4,  I8,   F32",
      "w6a16, E3M2, F32,  0,   A16, KV8,  I8,   F32",
      "w6a8,  E3M2, F32,  0,   A8F, KV8,  I8,   F32",
      "w8a8,  I8,   F32,  0,   A8I, KV8,  I8,   F32"})
  void theTableIsTheDesigns(String name, CodeType code, ScaleType scale, int group,
      ActivationType activations, KvType cache, CodeType embedding, ScaleType embeddingScale) {
    var scheme = Scheme.of(name);
    assertThat(scheme.name()).isEqualTo(name);
    assertThat(scheme.projections()).isEqualTo(new WeightFormat(code, scale, group));
    assertThat(scheme.activations()).isEqualTo(activations);
    assertThat(scheme.cache()).isEqualTo(cache);
    assertThat(scheme.embedding()).isEqualTo(new WeightFormat(embedding, embeddingScale, 0));
    assertThat(Scheme.names()).contains(name).hasSize(7);
  }

  @Test
  void unknownNamesAreRefusedWithTheListOfThoseThatExist() {
    assertThatThrownBy(() -> Scheme.of("w5")).isInstanceOf(InvalidArgumentException.class)
        .hasMessageContainingAll("\"w5\"", "f32, bf16, w4a8, w4a8i, w6a16, w6a8, w8a8");
    assertThatThrownBy(() -> CodeType.ofOption("w5")).isInstanceOf(InvalidArgumentException.class)
        .hasMessageContainingAll("--weights", "\"w5\"", "w6e2m3");
    assertThatThrownBy(() -> ScaleType.ofOption("none"))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessageContainingAll("--scale-type", "pow2");
    assertThatThrownBy(() -> ActivationType.ofOption("a4"))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessageContainingAll("--activations", "a8i");
    assertThatThrownBy(() -> KvType.ofOption("kv2")).isInstanceOf(InvalidArgumentException.class)
        .hasMessageContainingAll("--kv", "kv16");
  }

  @Test
  void everyCombinationHasAKernelOrIsRefused() {
    var refused = new ArrayList<CodeType>();
    for (var code : CodeType.values()) {
      for (var activations : ActivationType.values()) {
        try {
          Scheme.of(WeightFormat.of(code), activations, KvType.KV8, WeightFormat.W8);
        } catch (UnsupportedException e) {
          assertThat(activations).isEqualTo(ActivationType.A8I);
          assertThat(e).hasMessageContainingAll(code.option(), "a8i", "w4, w6e2m3 and w8");
          refused.add(code);
        }
      }
    }
    assertThat(refused).containsExactly(CodeType.E3M2, CodeType.E4M3, CodeType.E5M2, CodeType.BF16,
        CodeType.F16, CodeType.F32);
  }

  @Test
  void formatsWithoutAKernelAreRefused() {
    assertThatThrownBy(() -> WeightFormat.W8.withScale(ScaleType.E4M3))
        .isInstanceOf(UnsupportedException.class)
        .hasMessageContainingAll("w8", "e4m3", "f16, bf16, f32");
    assertThatThrownBy(() -> WeightFormat.BF16.withGroupSize(32))
        .isInstanceOf(UnsupportedException.class).hasMessageContaining("not quantized");
    for (int group : new int[] {-16, 8, 100}) {
      assertThatThrownBy(() -> WeightFormat.W4.withGroupSize(group))
          .isInstanceOf(InvalidArgumentException.class)
          .hasMessageContainingAll(String.valueOf(group), "multiple of 16");
    }
  }

  @Test
  void overriddenSchemesAreCustomUntilTheyEqualANamedOne() {
    var scheme = Scheme.of("w4a8").withActivations(ActivationType.A8I);
    assertThat(scheme).isEqualTo(Scheme.of("w4a8i"));
    var custom = scheme.withCache(KvType.KV16);
    assertThat(custom.name()).isEqualTo("custom");
    assertThat(custom.withCache(KvType.KV4).name()).isEqualTo("w4a8i");
    assertThat(custom.describe()).contains("w4", "e4m3", "128", "a8i", "kv16");
    assertThat(scheme.withEmbedding(WeightFormat.BF16).headActivations())
        .isEqualTo(ActivationType.A16);
    assertThat(scheme.headActivations()).isEqualTo(ActivationType.A8I);
  }

  /** The sizes of nibble.h's table, odd column counts included. */
  @Test
  void sizesAreThoseOfTheHeader() {
    var w4 = WeightFormat.W4.withGroupSize(32);
    assertThat(w4.codeBytes(3, 33)).isEqualTo(3 * 17);
    assertThat(w4.highBytes(3, 33)).isZero();
    assertThat(w4.scaleBytes(3, 33)).isEqualTo(3 * 2);
    assertThat(w4.factorCount(3)).isEqualTo(1);
    assertThat(w4.withScale(ScaleType.POW2).factorCount(3)).isEqualTo(3);
    assertThat(w4.withScale(ScaleType.F16).factorCount(3)).isZero();
    assertThat(WeightFormat.W6.codeBytes(3, 33)).isEqualTo(3 * 17);
    assertThat(WeightFormat.W6.highBytes(3, 33)).isEqualTo(3 * 9);
    assertThat(WeightFormat.W6.scaleBytes(3, 33)).isEqualTo(3 * 4);
    assertThat(WeightFormat.W8.codeBytes(3, 33)).isEqualTo(3 * 33);
    assertThat(WeightFormat.BF16.codeBytes(3, 33)).isEqualTo(3 * 66);
    assertThat(WeightFormat.F32.codeBytes(3, 33)).isEqualTo(3 * 132);
    assertThat(WeightFormat.F32.scaleBytes(3, 33)).isZero();
    assertThatThrownBy(() -> WeightFormat.F32.codeBytes(Long.MAX_VALUE / 2, 2))
        .isInstanceOf(ArithmeticException.class);
  }
}
