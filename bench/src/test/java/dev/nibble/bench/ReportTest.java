// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeFalse;

import dev.nibble.InvalidArgumentException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The report from end to end, on tiny shapes. */
class ReportTest {

  private static final Path SHAPES = TestFiles.resource("tiny-shapes.txt");

  /** The native benchmark; {@code ./nibble test} builds it and names it. */
  private static NativeBench bench() {
    var program = System.getProperty("nibble.bench.native", "");
    assumeFalse(program.isEmpty(), "nibble.bench.native is not set");
    return new NativeBench(Path.of(program), SHAPES);
  }

  @Test
  void writesThePageTheResultsAndThePictures(@TempDir Path directory) throws IOException {
    var messages = new ByteArrayOutputStream();
    var page = new Report(bench(), SHAPES, directory.resolve("new/folder"),
        new PrintStream(messages, true, StandardCharsets.UTF_8))
        .run(new Report.Options(2, false, true));
    var text = Files.readString(page);
    assertThat(text).contains("<svg").contains("gemm_f32_a8i_w4").contains("CallBenchmark")
        .doesNotContain("http:").doesNotContain("https:");
    var folder = directory.resolve("new/folder");
    var json = Fields.parse(Files.readAllBytes(folder.resolve("results.json")), "results.json");
    assertThat(json.text("schema")).isEqualTo("nibble-bench-report-1");
    assertThat(Fields.of("environment", json.map().get("environment")).text("java")).isNotEmpty();
    assertThat(json.objects("jmh")).hasSize(4);
    assertThat(folder.resolve("plots/roofline.png")).isNotEmptyFile();
    assertThat(folder.resolve("native.json")).doesNotExist();
  }

  @Test
  void javaAndTheNativeLoopTakeTurns() {
    var result = JavaAgainstNative.run(bench(), "64x2x96x4x2x128", "w4a8i", 2, 16, 3);
    assertThat(result.java().values()).hasSize(3).allMatch(rate -> rate > 0);
    assertThat(result.nativeLoop().values()).hasSize(3).allMatch(rate -> rate > 0);
    assertThat(result.ratio().values().getFirst()).isEqualTo(
        result.java().values().getFirst() / result.nativeLoop().values().getFirst());
    assertThat(result.toMap()).containsKeys("java_over_native_median", "java_allocated_bytes");
  }

  @Test
  void aMissingProgramIsNamed() {
    assertThatThrownBy(() -> new NativeBench(Path.of("/nonexistent/nibble_bench"), SHAPES))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessageStartingWith("/nonexistent/nibble_bench: not a program");
  }
}
