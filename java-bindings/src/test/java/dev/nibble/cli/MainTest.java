// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import static dev.nibble.cli.CommandLineRun.resource;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import dev.nibble.io.Json;
import dev.nibble.io.TensorStore;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class MainTest {

  private static final String TALES = resource("dev/nibble/texts/tales.txt").toString();

  @TempDir private Path directory;

  private static Map<String, Object> json(CommandLineRun run) {
    return Json.parseObject(run.succeeds().out().getBytes(StandardCharsets.UTF_8), "stdout");
  }

  @Test
  void helpNamesEveryCommand() {
    var run = CommandLineRun.of("--help").succeeds();
    assertThat(run.err()).isEmpty();
    assertThat(run.out()).containsOnlyOnce("Usage: nibble").contains("generate", "quantize",
        "perplexity", "logits", "bench", "info", "nibble generate \"Once upon a time\"");
  }

  @ParameterizedTest
  @ValueSource(strings = {"generate", "quantize", "perplexity", "logits", "bench", "info"})
  void everyCommandHasHelp(String command) {
    var run = CommandLineRun.of(command, "--help").succeeds();
    assertThat(run.out()).startsWith("Usage: nibble " + command).contains("--debug");
    assertThat(run.err()).isEmpty();
    assertThat(run.out().lines().mapToInt(String::length).max().orElse(0)).isLessThan(100);
  }

  @Test
  void versionIsANumber() {
    assertThat(CommandLineRun.of("--version").succeeds().out())
        .matches("nibble \\d+\\.\\d+\\.\\d+.*\n");
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', textBlock = """
      ''                                    | no command given
      sing                                  | unknown command "sing"
      --sing                                | --sing
      generate --sing x                     | '--sing'
      generate a b                          | 'b'
      generate x -n many                    | 'many'
      generate x -n -1                      | -n: -1
      generate x --scheme w5                | "w5", expected one of f32, bf16, w4a8
      generate x --weights w5               | --weights: unknown format "w5"
      generate x --activations a4           | --activations
      generate x --kv kv2                   | --kv
      generate x --scale-type int           | --scale-type
      generate x --group-size 20            | group size: 20
      generate x --scheme w8a8 --weights w6 | w6 with activations a8i
      generate x --weights bf16 --group-size 32 | bf16
      generate x --threads -1               | threads: -1
      generate x --threads 5000             | threads: 5000
      generate x --device tpu               | "tpu"
      generate x --temperature -1           | temperature
      generate x --temperature NaN          | temperature
      generate x --top-p 0                  | top-p
      generate x --top-k -1                 | top-k
      generate x --min-p 2                  | min-p
      generate x --repeat-penalty 0         | repeat-penalty
      generate x --context 0                | --context: 0
      generate x --context 5000             | 1 to 1024
      generate x --context 1                | 2 tokens given, but the context holds 1
      generate x --model /nonexistent       | /nonexistent: no such model directory
      perplexity                            | --text
      perplexity --text /nonexistent        | /nonexistent: no such file
      perplexity --text /                   | not a regular file
      logits --tokens 1                     | --out
      logits --tokens 1,x --out /nonexistent/l | "x" at position 1
      logits --tokens 4096 --out /nonexistent/l | tokens[0] is 4096
      logits --tokens -1 --out /nonexistent/l | tokens[0] is -1
      logits --tokens 1 --out /nonexistent/l | /nonexistent/l: cannot be written
      bench --synthetic big                 | "big"
      bench --synthetic 0x1                 | hidden_size is 0
      bench --runs 0                        | --runs: 0
      bench --prefill 2000                  | 2000 tokens
      bench --synthetic 64x1 --model x      | expected one
      quantize /nonexistent out             | /nonexistent: no such model directory
      quantize in                           | OUT""")
  void whatTheUserCanPutRightIsOneLine(String args, String part) {
    var list = args.isEmpty() ? new String[0] : args.split(" ");
    CommandLineRun.of(list).isRefusedWith(part);
  }

  @Test
  void aPromptLongerThanTheContextIsRefused() throws IOException {
    // One token less than the file has: the line feed at its end is not part of the prompt.
    CommandLineRun.withInput(Files.readString(Path.of(TALES)), "generate")
        .isRefusedWith("1572 tokens", "1024");
  }

  @Test
  void debugAddsTheStackTrace() {
    var run = CommandLineRun.of("generate", "x", "--model", "/nonexistent", "--debug");
    assertThat(run.code()).isEqualTo(2);
    assertThat(run.err()).startsWith("nibble: ").contains("\tat dev.nibble.io");
  }

  @Test
  void theSameSeedGivesTheSameText() {
    var prompt = "Once upon a time";
    var first = CommandLineRun.of("generate", prompt, "-n", "24", "--seed", "7").succeeds();
    assertThat(first.out()).isNotBlank().endsWith("\n");
    assertThat(first.err()).isEmpty();
    for (var threads : new String[] {"1", "3"}) {
      assertThat(CommandLineRun.of("generate", prompt, "-n", "24", "--seed", "7", "--threads",
          threads).out()).isEqualTo(first.out());
    }
    assertThat(CommandLineRun.withInput(prompt + "\n", "generate", "-n", "24", "--seed", "7").out())
        .isEqualTo(first.out());
    assertThat(CommandLineRun.of("generate", prompt, "-n", "24", "--seed", "8").out())
        .isNotEqualTo(first.out());
  }

  @Test
  void theLikeliestWordFollowsTheReference() {
    var run = CommandLineRun.of("generate", "Once upon a time there was a king", "-n", "1",
        "--temperature", "0", "--scheme", "f32").succeeds();
    assertThat(run.out()).isEqualTo(" who\n");
  }

  @Test
  void statsAreOnStandardError() {
    var run = CommandLineRun.of("generate", "A fox", "-n", "3", "--seed", "1", "--stats");
    assertThat(run.succeeds().err()).contains("fable-4m, w4a8", "first token", "tokens/s",
        "seed          1");
    assertThat(CommandLineRun.of("generate", "A fox", "-n", "0").succeeds().out()).isEqualTo("\n");
  }

  @Test
  void aReaderThatGoesAwayEndsTheTextQuietly() {
    var refusals = new AtomicInteger();
    var broken = new OutputStream() {
      private int room = 10;

      @Override
      public void write(int b) throws IOException {
        if (room-- <= 0) {
          refusals.incrementAndGet();
          throw new IOException("Broken pipe");
        }
      }
    };
    var err = new ByteArrayOutputStream();
    int code = Main.run(new String[] {"generate", "Once", "-n", "1000000", "--seed", "1"},
        new ByteArrayInputStream(new byte[0]), new PrintStream(broken), new PrintStream(err));
    assertThat(code).isZero();
    assertThat(err.size()).isZero();
    // The piece of text that finds nobody reading, and the line feed at the end.
    assertThat(refusals.get()).isBetween(1, 2);
  }

  @ParameterizedTest
  @CsvSource({"256, 3.3951, 7", "512, 3.3699, 4", "1024, 3.3597, 2"})
  void perplexityIsTheReferences(int window, double expected, long windows) {
    var result = json(CommandLineRun.of("perplexity", "--text", TALES, "--context",
        String.valueOf(window), "--scheme", "f32", "--json"));
    assertThat((Double) result.get("mean_negative_log_likelihood"))
        .isCloseTo(expected, within(1e-3));
    assertThat((Double) result.get("perplexity")).isCloseTo(Math.exp(expected), within(0.05));
    assertThat(result).containsEntry("tokens", 1573L).containsEntry("windows", windows)
        .containsEntry("scored_tokens", 1573 - windows);
  }

  @Test
  void perplexityPrintsForPeople() {
    var run = CommandLineRun.of("perplexity", "--text", TALES).succeeds();
    assertThat(run.out()).contains("w4a8", "windows of 1024", "nats/token", "perplexity");
    assertThat(run.err()).isEmpty();
  }

  /** Largest absolute difference at most 2e-4: two implementations of the same F32 arithmetic. */
  @ParameterizedTest
  @ValueSource(strings = {"gqa-tied", "mha-untied"})
  void logitsOfADirectoryWithoutATokenizerAreTheReferences(String name) {
    try (var expected = TensorStore.open(resource("golden/" + name + "/expected.safetensors"))) {
      var ids = MemorySegment.ofArray(new int[(int) expected.info("input_ids").elements()]);
      expected.read("input_ids", ids);
      var tokens = Arrays.stream(ids.toArray(ValueLayout.JAVA_INT)).mapToObj(String::valueOf)
          .collect(Collectors.joining(","));
      var out = directory.resolve("logits.safetensors");
      CommandLineRun.of("logits", "--model", resource("golden/" + name).toString(), "--tokens",
          tokens, "--out", out.toString()).succeeds();
      try (var store = TensorStore.open(out)) {
        assertThat(store.info("logits").shape()).isEqualTo(expected.info("logits").shape());
        var a = floats(store);
        var b = floats(expected);
        for (int i = 0; i < a.length; i++) {
          assertThat(a[i]).isCloseTo(b[i], within(2e-4f));
        }
      }
    }
  }

  private static float[] floats(TensorStore store) {
    var values = new float[(int) store.info("logits").elements()];
    store.read("logits", MemorySegment.ofArray(values));
    return values;
  }

  @Test
  void aQuantizedDirectoryGivesTheTextOfQuantizingOnLoad() throws IOException {
    var original = resource("dev/nibble/models/fable-4m").toString();
    var copy = directory.resolve("quantized").toString();
    var parts = new String[] {"--weights", "w4", "--scale-type", "pow2", "--group-size", "32"};
    var quantize = concat(new String[] {"quantize", "--scheme", "w6a8", original, copy}, parts);
    var run = CommandLineRun.of(quantize).succeeds();
    assertThat(run.out()).isEmpty();
    assertThat(run.err()).contains(copy, "w4, pow2 scales for groups of 32");
    var prompt = new String[] {"generate", "The old king", "-n", "20", "--seed", "3", "--model"};
    var expected = CommandLineRun.of(concat(concat(prompt, original, "--scheme", "w6a8"), parts));
    assertThat(CommandLineRun.of(concat(prompt, copy)).succeeds().out())
        .isEqualTo(expected.succeeds().out());
    CommandLineRun.of(quantize).isRefusedWith(copy, "not empty");
    CommandLineRun.of(concat(prompt, copy, "--scheme", "w8a8"))
        .isRefusedWith("already quantized");
    CommandLineRun.of(concat(prompt, copy, "--kv", "kv16")).succeeds();
  }

  @Test
  void evalComparesSchemesWithTheOriginal() throws IOException {
    var text = Files.writeString(directory.resolve("text.txt"),
        Files.readString(Path.of(TALES)).substring(0, 1500)).toString();
    var run = CommandLineRun.of("eval", "--schemes", "f32,w6a16,w4a8", "--text", text, "--json");
    var rows = (List<?>) Json.parse(run.succeeds().out().getBytes(StandardCharsets.UTF_8), "out");
    assertThat(rows).hasSize(6);
    var names = new ArrayList<String>();
    for (var row : rows) {
      var map = (Map<?, ?>) row;
      names.add(map.get("model") + " " + map.get("scheme"));
      assertThat((Double) map.get("nll")).isBetween(2.0, 7.0);
      assertThat((Double) map.get("top1")).isBetween(0.1, 1.0);
      if (map.get("scheme").equals("f32")) {
        assertThat((Double) map.get("kl")).isLessThan(1e-9);
        assertThat((Double) map.get("bits_per_weight")).isEqualTo(32);
      } else {
        assertThat((Double) map.get("kl")).isGreaterThan(1e-4);
      }
    }
    assertThat(names).containsExactly("fable-4m f32", "fable-4m w6a16", "fable-4m w4a8",
        "fable-4m-outliers f32", "fable-4m-outliers w6a16", "fable-4m-outliers w4a8");
    CommandLineRun.of("eval", "--schemes", "w5", "--text", text).isRefusedWith("w5", "w4a8");
    CommandLineRun.of("eval", "--schemes", "mixed-x", "--text", text).isRefusedWith("mixed-x");
    CommandLineRun.of("eval", "--schemes", "f32", "--text", directory.resolve("no").toString())
        .isRefusedWith("no such file");
  }

  private static String[] concat(String[] first, String... second) {
    var all = Arrays.copyOf(first, first.length + second.length);
    System.arraycopy(second, 0, all, first.length, second.length);
    return all;
  }

  @Test
  void benchReportsMediansAsJson() {
    var result = json(CommandLineRun.of("bench", "--synthetic", "128x2x256x4x2x512", "--prefill",
        "32", "--decode", "8", "--context", "16", "--runs", "3", "--threads", "2", "--json"));
    for (var key : new String[] {"prefill_tokens_per_s", "decode_tokens_per_s",
        "read_bandwidth_gb_per_s", "decode_share_of_read_bandwidth"}) {
      assertThat((Double) result.get(key)).as(key).isPositive();
      assertThat(result).containsKey(key + "_range");
    }
    assertThat((Long) result.get("decode_bytes_per_token")).isBetween(100_000L, 1_000_000L);
    assertThat(result).containsEntry("scheme", "w4a8").containsEntry("threads", 2L)
        .containsEntry("runs", 3L);
    assertThat(CommandLineRun.of("bench", "--prefill", "16", "--decode", "4", "--runs", "1")
        .succeeds().out()).contains("fable-4m", "prefill", "decode", "GB/s", "share");
  }

  @Test
  void infoDescribesTheMachine() {
    var info = json(CommandLineRun.of("info", "--json"));
    assertThat(info).containsKeys("version", "abi_version", "cpu", "cpu_features", "simd_target",
        "simd_targets", "threads", "java_version", "library", "cuda");
    assertThat((Long) info.get("threads")).isPositive();
    assertThat(CommandLineRun.of("info").succeeds().out())
        .contains("SIMD target", "CUDA", String.valueOf(info.get("simd_target")));
  }
}
