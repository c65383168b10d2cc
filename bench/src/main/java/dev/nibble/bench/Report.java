// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.Json;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * {@code ./nibble bench --report}: the native benchmark, Java against it, JMH, pictures and a page.
 *
 * <p>The folder then holds {@code report.html} (self-contained), {@code results.json} (everything)
 * and {@code plots/}.
 */
final class Report {
  private static final int JAVA_ROUNDS = 5;
  private static final int JAVA_TOKENS = 64;

  private final NativeBench bench;
  private final Path shapes;
  private final Path directory;
  private final PrintStream messages;
  private final long begin = System.nanoTime();

  /**
   * What to do.
   *
   * @param threads 0 for all that this process may use
   * @param full everything in the list
   * @param smoke hardly any effort, a tiny model: for tests
   */
  record Options(int threads, boolean full, boolean smoke) {}

  Report(NativeBench bench, Path shapes, Path directory, PrintStream messages) {
    this.bench = bench;
    this.shapes = shapes;
    this.directory = directory;
    this.messages = messages;
  }

  /** Runs everything; returns the page's path. */
  Path run(Options options) {
    try {
      Files.createDirectories(directory);
      var environment = Environment.describe();
      say("the native benchmark");
      var raw = directory.resolve("native.json");
      var results = bench.run(nativeArguments(options), raw);
      Files.delete(raw);
      say("Java against the native loop");
      var java = javaCost(options, results.threads());
      say("JMH");
      var jmh = jmh(options);
      say("pictures");
      var plots = Plots.draw(results, directory.resolve("plots"));
      var page = write(environment, results, java, jmh, plots);
      say("done");
      return page;
    } catch (IOException e) {
      throw new InvalidArgumentException(directory + ": cannot be written: " + e.getMessage(), e);
    }
  }

  private static List<String> nativeArguments(Options options) {
    var arguments = new ArrayList<String>();
    if (options.threads() > 0) {
      arguments.addAll(List.of("--threads", Integer.toString(options.threads())));
    }
    if (options.full()) {
      arguments.add("--full");
    }
    if (options.smoke()) {
      arguments.add("--smoke");
    }
    return arguments;
  }

  private List<JavaAgainstNative> javaCost(Options options, int threads) {
    if (options.smoke()) {
      return List.of(); // the list's models are too large; JavaAgainstNative has a test of its own
    }
    var all = new ArrayList<JavaAgainstNative>();
    for (var scheme : List.of("w4a8", "w4a8i")) {
      all.add(JavaAgainstNative.run(
          bench, "llama-3.2-1b", scheme, threads, JAVA_TOKENS, JAVA_ROUNDS));
    }
    return all;
  }

  private List<JmhRun.Result> jmh(Options options) {
    var effort = options.smoke() ? JmhRun.Effort.SMOKE : JmhRun.Effort.REPORT;
    var results = new ArrayList<JmhRun.Result>();
    results.addAll(JmhRun.run(CallBenchmark.class, Map.of(), shapes, effort));
    if (options.smoke()) {
      return results;
    }
    results.addAll(JmhRun.run(GemmBenchmark.class, Map.of(), shapes, effort));
    results.addAll(JmhRun.run(AttentionBenchmark.class, Map.of(), shapes, effort));
    results.addAll(JmhRun.run(DecodeBenchmark.class, Map.of(), shapes, effort));
    return results;
  }

  private Path write(Map<String, Object> environment, NativeResults results,
      List<JavaAgainstNative> java, List<JmhRun.Result> jmh, Map<String, String> plots)
      throws IOException {
    var all = new LinkedHashMap<String, Object>();
    all.put("schema", "nibble-bench-report-1");
    all.put("environment", environment);
    all.put("native", results.json());
    all.put("java_against_native", java.stream().map(JavaAgainstNative::toMap).toList());
    all.put("jmh", jmh.stream().map(JmhRun.Result::toMap).toList());
    all.put("seconds", (System.nanoTime() - begin) / 1e9);
    var json = Json.write(all);
    Files.write(directory.resolve("results.json"), json);

    var svg = new LinkedHashMap<String, String>();
    for (var plot : plots.entrySet()) {
      svg.put(plot.getValue(),
          Files.readString(directory.resolve("plots").resolve(plot.getKey() + ".svg")));
    }
    var page = directory.resolve("report.html");
    Files.writeString(page, HtmlReport.page(environment, results, java, jmh, svg,
        new String(json, StandardCharsets.UTF_8)));
    return page;
  }

  private void say(String what) {
    messages.printf("[%d s] %s%n", (System.nanoTime() - begin) / 1_000_000_000, what);
    messages.flush();
  }
}
