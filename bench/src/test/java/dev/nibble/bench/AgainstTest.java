// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class AgainstTest {

  private static final LlamaBench.Test DECODE = new LlamaBench.Test(0, 64, 0);
  private static final String SHAPE = "256x1x256x4x2x512";
  /** Answers as a llama-bench does: 100 tokens a second, whatever is asked. */
  private static final String STAND_IN = """
      case "$*" in *--help*) echo "-p, --n-prompt -d, --n-depth -o, --output"; exit 0 ;; esac
      depth=0
      while [ $# -gt 0 ]; do
        case "$1" in
          -m) [ -f "$2" ] || exit 3 ;; -p) p=$2 ;; -n) n=$2 ;; -d) depth=$2 ;; -t) t=$2 ;;
        esac
        shift
      done
      echo "loading" >&2
      echo "[ {\\"n_prompt\\": $p, \\"n_gen\\": $n, \\"n_depth\\": $depth, \\"n_threads\\": $t,"
      echo "  \\"avg_ts\\": 100.0 } ]"
      """;

  @TempDir
  Path directory;

  private record Run(int code, String out, String err) {}

  private Run bench(String... arguments) {
    var out = new ByteArrayOutputStream();
    var err = new ByteArrayOutputStream();
    System.setProperty("nibble.bench.dir", directory.resolve("work").toString());
    int code = BenchMain.run(arguments, new PrintStream(out, true, StandardCharsets.UTF_8),
        new PrintStream(err, true, StandardCharsets.UTF_8));
    return new Run(code, out.toString(StandardCharsets.UTF_8),
        err.toString(StandardCharsets.UTF_8));
  }

  @Test
  void comparesInTurnAndPrintsTheRatio() throws IOException {
    var peer = TestFiles.script(directory, "llama-bench", STAND_IN);
    var run = bench("bench", "--against", peer.toString(), "--shape", SHAPE, "--rounds", "2",
        "--threads", "2", "--depth", "32");
    assertThat(run.code).as(run.err).isZero();
    assertThat(run.out).contains("prefill 512 ").contains("decode 64 ")
        .contains("decode 64 behind 32 ").contains("100.0 (100.0 to 100.0)").contains("Q4_0");
    assertThat(Files.list(directory.resolve("work"))).as("their model is removed").isEmpty();
  }

  @Test
  void printsJson() throws IOException {
    var peer = TestFiles.script(directory, "llama-bench", STAND_IN);
    var run = bench("bench", "--against=" + peer, "--shape", SHAPE, "--rounds", "3", "--json",
        "--type", "q8_0", "--depth", "0");
    assertThat(run.code).as(run.err).isZero();
    var json = Fields.parse(run.out.getBytes(StandardCharsets.UTF_8), "out");
    assertThat(json.text("scheme")).isEqualTo("w8a8");
    assertThat(json.objects("results")).hasSize(2).allSatisfy(r -> {
      assertThat(r.list("ours_tokens_per_s")).hasSize(3);
      assertThat(r.positive("theirs_median")).isEqualTo(100);
      assertThat(r.positive("ratio_median")).isCloseTo(r.positive("ours_median") / 100,
          org.assertj.core.data.Percentage.withPercentage(1e-6));
    });
  }

  /** A build without the option for a depth has another, which tells the depth as a prompt. */
  @Test
  void anOlderProgramIsAskedInItsWay() throws IOException {
    var peer = TestFiles.script(directory, "llama-bench", """
        case "$*" in
          *--help*) echo "-p, --n-prompt -gp <pp,tg> -o, --output" ;;
          *"-gp 32,64"*) echo '[{"n_prompt": 32, "n_gen": 64, "avg_ts": 7.0}]' ;;
          *) exit 1 ;;
        esac""");
    var bench = new LlamaBench(peer.toString(), List.of());
    var behind = new LlamaBench.Test(0, 64, 32);
    assertThat(bench.supports(behind)).isTrue();
    assertThat(bench.run(peer, 1, behind)).isEqualTo(7);
    assertThat(bench.supports(new LlamaBench.Test(512, 0, 32))).isFalse();
  }

  @Test
  void whatFailsIsSaidInOneLine() throws IOException {
    var failing = TestFiles.script(directory, "failing",
        "case $1 in --help) echo '--n-prompt --output';; *) echo 'first\nno model' >&2; exit 9;;"
            + " esac");
    var other = TestFiles.script(directory, "other", "echo something else");
    var silent = TestFiles.script(directory, "silent",
        "case $1 in --help) echo '--n-prompt --output';; esac");
    var plain = Files.writeString(directory.resolve("plain"), "text");
    expect("failed with exit code 9: no model", "--against", failing.toString());
    expect("is not a llama-bench", "--against", other.toString());
    expect("llama-bench's output: no JSON array", "--against", silent.toString());
    expect("may not be executed", "--against", plain.toString());
    expect("is not a file", "--against", directory + "/missing");
    expect("no no-such-llama-bench on the PATH", "--against", "no-such-llama-bench");
    expect("--type: \"q9\" given, expected q4_0, q8_0 or f16", "--against", "x", "--type", "q9");
    expect("scheme: unknown name \"w1\"", "--against", "x", "--scheme", "w1");
    expect("--rounds: 0 given, expected 1 to 100", "--against", "x", "--rounds", "0");
    expect("expected one of --report and --against");
    expect("expected one of --report and --against", "--report", "--against", "x");
    expect("Unknown option: '--nothing'", "--against", "x", "--nothing");
  }

  private void expect(String message, String... arguments) {
    var words = new java.util.ArrayList<>(List.of("bench"));
    words.addAll(List.of(arguments));
    if (!words.contains("--report")) {
      words.addAll(List.of("--shape", SHAPE));
    }
    var run = bench(words.toArray(String[]::new));
    assertThat(run.code).as(run.err).isEqualTo(2);
    assertThat(run.out).isEmpty();
    var lines = run.err.lines().filter(l -> l.startsWith("nibble: ")).toList();
    assertThat(lines).as(run.err).hasSize(1);
    assertThat(lines.getFirst()).contains(message);
  }

  @Test
  void readsWhatLlamaBenchPrints() {
    var result = "{\"n_prompt\": 0, \"n_gen\": 64, \"avg_ts\": 12.5}";
    assertThat(LlamaBench.rate("[" + result + "]", DECODE)).isEqualTo(12.5);
    assertThat(LlamaBench.rate("a line [of text]\n[\n" + result + "\n]\n", DECODE))
        .isEqualTo(12.5);
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', value = {
    "''                                         | no JSON array in \"\"",
    "error: no model                            | no JSON array in \"error: no model\"",
    "[{\"n_prompt\": 0                          | no JSON array in",
    "[]                                         | 0 results, expected the one that was asked for",
    "[{}, {}]                                   | 2 results",
    "[7]                                        | an integer given, expected an object",
    "[{\"n_prompt\": 0, \"n_gen\": 64}]         | has no field \"avg_ts\"",
    "[{\"n_prompt\": 0, \"n_gen\": 64, \"avg_ts\": 0}] | avg_ts: 0 given, expected a number above 0",
    "[{\"n_prompt\": 0, \"n_gen\": 64, \"avg_ts\": \"1\"}] | avg_ts: \"1\" given, expected a number",
    "[{\"n_prompt\": 9, \"n_gen\": 64, \"avg_ts\": 1}] | prompt 9, generated 64, depth 0; asked for",
    "[{\"n_prompt\": 0, \"n_gen\": 64, \"n_depth\": 5, \"avg_ts\": 1}] | depth 5; asked for 0, 64, 0",
    "[nonsense]                                 | not JSON",
  })
  void whatElseItPrintsIsRefused(String output, String message) {
    assertThatThrownBy(() -> LlamaBench.rate(output, DECODE))
        .isInstanceOf(ModelFormatException.class)
        .hasMessageStartingWith("llama-bench's output")
        .hasMessageContaining(message);
  }

  @Test
  void aPathIsSearchedInOrder() throws IOException {
    var first = Files.createDirectory(directory.resolve("a"));
    var second = Files.createDirectory(directory.resolve("b"));
    TestFiles.script(second, "llama-bench", "exit 0");
    assertThat(LlamaBench.find("llama-bench", first + ":" + second))
        .isEqualTo(second.resolve("llama-bench"));
    TestFiles.script(first, "llama-bench", "exit 0");
    assertThat(LlamaBench.find("llama-bench", first + ":" + second))
        .isEqualTo(first.resolve("llama-bench"));
    assertThatThrownBy(() -> LlamaBench.find("llama-bench", ""))
        .isInstanceOf(InvalidArgumentException.class);
  }

  @Test
  void everyTypeHasASchemeOfItsBits() {
    assertThat(Against.Options.schemeFor(Gguf.FileType.Q4_0)).isEqualTo("w4a8i");
    assertThat(Against.Options.schemeFor(Gguf.FileType.Q8_0)).isEqualTo("w8a8");
    assertThat(Against.Options.schemeFor(Gguf.FileType.F16)).isEqualTo("bf16");
  }
}
