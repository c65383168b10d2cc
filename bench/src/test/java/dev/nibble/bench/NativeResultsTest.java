// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ModelFormatException;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class NativeResultsTest {

  @Test
  void readsWhatTheNativeBenchmarkWrites() {
    var results = TestFiles.nativeResults();
    assertThat(results.smoke()).isTrue();
    assertThat(results.limits()).hasSize(2);
    assertThat(results.limit().threads()).isEqualTo(results.threads()).isEqualTo(2);
    assertThat(results.limit().readKernels()).hasSize(25);
    assertThat(results.gemm()).isNotEmpty().allSatisfy(g -> {
      assertThat(g.median()).isBetween(g.min(), g.max());
      assertThat(g.gigabytes()).isCloseTo(g.bytes() / g.median() / 1e9,
          org.assertj.core.data.Percentage.withPercentage(0.01));
      assertThat(g.gigaops()).isCloseTo(2.0 * g.rows() * g.n() * g.k() / g.median() / 1e9,
          org.assertj.core.data.Percentage.withPercentage(0.01));
    });
    assertThat(results.attention()).hasSize(6);
    assertThat(results.models()).hasSize(6);
    assertThat(results.threadScaling()).hasSize(8);
    assertThat(results.skipped()).anyMatch(s -> s.startsWith("gemm_f32_a8i_e5m2: "));
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', value = {
    "\"schema\": \"nibble-bench-native-1\" | \"schema\": \"other\""
        + " | f.schema: \"other\" given, expected \"nibble-bench-native-1\"",
    "\"share_of_limit\": | \"share\": | f.gemm[0]: has no field \"share_of_limit\"",
    "\"rows\": 1, | \"rows\": \"1\", | f.gemm[0].rows: \"1\" given, expected an integer",
    "\"bound\": | \"bound\": \"\", \"was\": | f.gemm[0].bound: \"\" given, expected",
    "\"read_kernels\": [ | \"read_kernels\": [7, | f.limits[0].read_kernels[0]: an integer given,",
    "\"smoke\": true | \"smoke\": 1 | f.smoke: 1 given, expected true or false",
  })
  void errorsNameTheField(String from, String to, String message) {
    var text = TestFiles.text("native-results.json");
    assertThat(text).contains(from);
    int at = text.indexOf(from);
    var spoilt = text.substring(0, at) + to + text.substring(at + from.length());
    assertThatThrownBy(() -> NativeResults.parse(spoilt.getBytes(StandardCharsets.UTF_8), "f"))
        .isInstanceOf(ModelFormatException.class)
        .hasMessageStartingWith(message);
  }
}
