// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** Every JMH benchmark runs, on tiny shapes and for milliseconds; nothing judges a speed. */
class JmhSmokeTest {

  private static final Path SHAPES = TestFiles.resource("tiny-shapes.txt");

  /** Without a fork the benchmarks see the properties of this JVM. */
  private static List<JmhRun.Result> run(Class<?> type, Map<String, List<String>> parameters) {
    var before = System.getProperty("nibble.bench.shapes");
    System.setProperty("nibble.bench.shapes", SHAPES.toString());
    try {
      return JmhRun.run(type, parameters, SHAPES, JmhRun.Effort.SMOKE);
    } finally {
      System.setProperty("nibble.bench.shapes", before);
    }
  }

  @Test
  void calls() {
    var results = run(CallBenchmark.class, Map.of());
    assertThat(results).extracting(JmhRun.Result::name).containsExactlyInAnyOrder(
        "CallBenchmark.downcall", "CallBenchmark.criticalDowncall",
        "CallBenchmark.nativeProductOfNoRows", "CallBenchmark.facadeProductOfNoRows");
    assertThat(results).allSatisfy(r -> {
      assertThat(r.score()).isPositive();
      assertThat(r.unit()).isEqualTo("ns/op");
    });
  }

  @Test
  void gemm() {
    var results = run(GemmBenchmark.class, Map.of("kernel", List.of("a8i_w4", "a8f_w4"),
        "matrix", List.of("64x2x96x4x2x128 gate"), "rows", List.of("1", "8"),
        "coldBytes", List.of("10000")));
    assertThat(results).hasSize(4);
    assertThat(results.getFirst().parameters()).containsKeys("kernel", "matrix", "rows");
  }

  @Test
  void attention() {
    assertThat(run(AttentionBenchmark.class, Map.of("tokens", List.of("40"),
        "layers", List.of("2")))).hasSize(3);
  }

  @Test
  void decode() {
    assertThat(run(DecodeBenchmark.class, Map.of("model", List.of("64x2"),
        "scheme", List.of("w4a8", "w4a8i")))).hasSize(2)
        .allSatisfy(r -> assertThat(r.score()).isPositive());
  }
}
