// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.Json;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class QuantizationConfigTest {

  private static Scheme parse(String json) {
    var bytes = json.getBytes(StandardCharsets.UTF_8);
    return QuantizationConfig.parse(Json.parseObject(bytes, "config.json"), "config.json");
  }

  @Test
  void everySchemeComesBack() {
    for (var name : Scheme.names()) {
      comesBack(Scheme.of(name));
    }
    comesBack(Scheme.of("w4a8").withCache(KvType.F32)
        .withProjections(new WeightFormat(CodeType.I4, ScaleType.POW2, 32)));
    comesBack(Scheme.of("w4a8").withExceptions(Map.of(
        "model.layers.0.mlp.down_proj.weight", WeightFormat.W8,
        "model.layers.11.self_attn.k_proj.weight", WeightFormat.W6)));
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', quoteCharacter = '`', textBlock = """
      [1]                                               | exceptions is [1]
      {"lm_head.weight": {}}                            | exceptions names "lm_head.weight"
      {"model.layers.0.mlp.up_proj.weight": {"code": 4}} | up_proj.weight.code is 4""")
  void wrongExceptionsAreNamed(String value, String message) {
    var map = QuantizationConfig.toMap(Scheme.of("w4a8"));
    var json = new String(Json.write(Map.of("quantization_config", map)), StandardCharsets.UTF_8);
    var changed = json.strip().replaceFirst("}\\s*}$", ", \"exceptions\": " + value + "}}");
    assertThatThrownBy(() -> parse(changed)).isExactlyInstanceOf(ModelFormatException.class)
        .hasMessageContainingAll("config.json", message);
  }

  private static void comesBack(Scheme scheme) {
    var bytes = Json.write(Map.of("quantization_config", QuantizationConfig.toMap(scheme)));
    assertThat(parse(new String(bytes, StandardCharsets.UTF_8))).isEqualTo(scheme);
  }

  @Test
  void aModelWithoutOneIsNotQuantized() {
    assertThat(parse("{}")).isNull();
    assertThat(parse("{\"quantization_config\": null}")).isNull();
  }

  @Test
  void anotherMethodIsUnsupported() {
    assertThatThrownBy(() -> parse("{\"quantization_config\": {\"quant_method\": \"gptq\"}}"))
        .isInstanceOf(UnsupportedException.class)
        .hasMessageContainingAll("config.json", "quantization_config.quant_method", "\"gptq\"");
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', quoteCharacter = '`', textBlock = """
      "nibble"         | 5                  | quant_method          | 5
      "version": 1     | "version": 2       | version               | 2
      "i4"             | "i5"               | weights.code          | "i5"
      "e4m3"           | ["e4m3"]           | weights.scale         | [e4m3]
      "e4m3"           | "none"             | weights               | none
      128              | 100                | weights               | 100
      128              | -16                | weights.group_size    | -16
      128              | 128.0              | weights.group_size    | 128.0
      128              | 99999999999        | weights.group_size    | 99999999999
      "a8f"            | null               | activations           | missing
      "kv4"            | "kv\\u001b"        | kv_cache              | kv?
      "i8"             | "e3m2", "x": 1     | embedding.code        |
      {"code": "i8", "scale": "f32", "group_size": 0} | 3 | embedding | 3""")
  void wrongFieldsAreNamed(String valid, String replacement, String field, String value) {
    var json = """
        {"quantization_config": {"quant_method": "nibble", "version": 1, "scheme": "w4a8",
          "weights": {"code": "i4", "scale": "e4m3", "group_size": 128}, "activations": "a8f",
          "kv_cache": "kv4", "embedding": {"code": "i8", "scale": "f32", "group_size": 0}}}""";
    assertThat(json).contains(valid);
    assertThat(parse(json)).isEqualTo(Scheme.of("w4a8"));
    var changed = json.replace(valid, replacement);
    if (value == null) { // another legal scheme
      assertThat(parse(changed).embedding()).isEqualTo(WeightFormat.W6);
      return;
    }
    assertThatThrownBy(() -> parse(changed)).isExactlyInstanceOf(ModelFormatException.class)
        .hasMessageContainingAll("config.json", "quantization_config." + field, value);
  }
}
