// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class JsonTest {

  private static byte[] utf8(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  @Test
  void valuesKeepTheirKinds() {
    var value = Json.parseObject(utf8("""
        {"i": -3, "big": 99999999999999999999, "f": 1e-05, "whole": 2.0, "t": true, "n": null,
         "s": "\\u00e9\\ud83d\\udc32", "list": [1, [], {}]}"""), "x");
    assertThat(value.keySet()).containsExactly("i", "big", "f", "whole", "t", "n", "s", "list");
    assertThat(value).containsEntry("i", -3L)
        .containsEntry("big", new BigInteger("99999999999999999999"))
        .containsEntry("f", 1e-5).containsEntry("whole", 2.0).containsEntry("t", true)
        .containsEntry("n", null).containsEntry("s", "é🐲")
        .containsEntry("list", List.of(1L, List.of(), Map.of()));
  }

  @Test
  void writingAndParsingAgree() {
    var map = new LinkedHashMap<String, Object>();
    map.put("text", "a\"b\\c\n\u0001é🐲");
    map.put("numbers", Arrays.asList(1L, -2L, Long.MIN_VALUE, 0.1, null, false));
    map.put("inner", Map.of("k", List.of(Map.of())));
    var bytes = Json.write(map);
    assertThat(new String(bytes, StandardCharsets.UTF_8))
        .endsWith("}\n").startsWith("{\n  \"text\"");
    assertThat(Json.parse(bytes, "x")).isEqualTo(map);
    assertThatThrownBy(() -> Json.write(Map.of("k", Double.NaN)))
        .isInstanceOf(InvalidArgumentException.class);
  }

  @ParameterizedTest
  @ValueSource(strings = {"", " ", "{", "{\"a\" 1}", "{\"a\":1,}", "[1,]", "01", "+1", "NaN",
      "1e999", "nul", "{a:1}", "{'a':1}", "\"\u0001\"", "\"abc", "// c\n1", "1 2",
      "{\"a\":1,\"a\":2}",
      "\"\\ud800", "12345678901234567890123456789012345678901234567890123456789012345"})
  void whatIsNotJsonIsRefused(String text) {
    assertThatThrownBy(() -> Json.parse(utf8(text), "file.json"))
        .isExactlyInstanceOf(ModelFormatException.class)
        .message().startsWith("file.json: ").doesNotContain("\n");
  }

  @Test
  void messagesNameThePosition() {
    assertThatThrownBy(() -> Json.parse(utf8("{\n  \"a\": x}"), "file.json"))
        .hasMessageContaining("line 2, column");
  }

  @Test
  void limitsHold() {
    assertThatThrownBy(() -> Json.parse(new byte[Json.MAX_BYTES + 1], "f"))
        .isInstanceOf(ModelFormatException.class).hasMessageContaining("16777217 bytes");
    var deep = "[".repeat(Json.MAX_DEPTH) + "]".repeat(Json.MAX_DEPTH);
    Json.parse(utf8(deep), "f");
    assertThatThrownBy(() -> Json.parse(utf8("[" + deep + "]"), "f"))
        .isInstanceOf(ModelFormatException.class).hasMessageContaining("depth");
    var many = "[" + "1,".repeat(Json.MAX_VALUES) + "1]";
    assertThatThrownBy(() -> Json.parse(utf8(many), "f"))
        .isInstanceOf(ModelFormatException.class).hasMessageContaining("2000000 JSON values");
  }

  @Test
  void aTopLevelThatIsNoObjectIsRefused() {
    assertThatThrownBy(() -> Json.parseObject(utf8("3"), "f"))
        .isInstanceOf(ModelFormatException.class)
        .hasMessage("f: the top level is an integer, expected an object");
  }

  /** Memory for the smallest values there are stays below the stated multiple of the input. */
  @ParameterizedTest
  @ValueSource(strings = {"{},", "[],", "1,", "1.5,", "\"\",", "{\"\":1},", "[1],",
      "999999999999999999999,"})
  void expansionIsBounded(String element) {
    var text = utf8("[" + element.repeat(60_000) + "1]");
    var threads = (com.sun.management.ThreadMXBean)
        java.lang.management.ManagementFactory.getThreadMXBean();
    Json.parse(text, "f"); // loads classes
    long before = threads.getCurrentThreadAllocatedBytes();
    Json.parse(text, "f");
    long allocated = threads.getCurrentThreadAllocatedBytes() - before;
    assertThat(allocated).isLessThan((1L << 20) + (long) Json.MAX_EXPANSION * text.length);
  }
}
