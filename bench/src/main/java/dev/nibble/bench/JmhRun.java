// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.InternalException;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.openjdk.jmh.profile.GCProfiler;
import org.openjdk.jmh.results.RunResult;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.format.OutputFormatFactory;
import org.openjdk.jmh.runner.options.ChainedOptionsBuilder;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;
import org.openjdk.jmh.runner.options.VerboseMode;

/** Runs the JMH benchmarks of this package. */
final class JmhRun {

  private JmhRun() {}

  /**
   * One benchmark with one choice of parameters.
   *
   * @param parameters by name
   * @param score time of a call, in {@code unit}
   * @param error half of the 99.9 % confidence interval; NaN with too few samples
   * @param allocated bytes a call, all threads, by JMH's gc profiler: near 0, not exactly, because
   *     the harness itself allocates between iterations
   */
  record Result(String name, Map<String, String> parameters, double score, double error,
      String unit, double allocated) {

    Map<String, Object> toMap() {
      var map = new LinkedHashMap<String, Object>();
      map.put("benchmark", name);
      map.put("parameters", parameters);
      map.put("score", score);
      map.put("error", Double.isFinite(error) ? error : null);
      map.put("unit", unit);
      map.put("allocated_bytes_per_call", Double.isFinite(allocated) ? allocated : null);
      return map;
    }
  }

  /**
   * How long to measure.
   *
   * @param forks 1, or 0 to stay in this JVM, for tests
   */
  record Effort(int forks, int warmups, int iterations, TimeValue time) {
    static final Effort REPORT = new Effort(1, 2, 3, TimeValue.milliseconds(700));
    static final Effort SMOKE = new Effort(0, 0, 1, TimeValue.milliseconds(1));
  }

  /**
   * Runs a class's benchmarks.
   *
   * @param parameters values that replace those of the class, by name
   */
  static List<Result> run(Class<?> benchmarks, Map<String, List<String>> parameters,
      Path shapes, Effort effort) {
    ChainedOptionsBuilder options = new OptionsBuilder()
        .include("^" + benchmarks.getName().replace(".", "\\.") + "\\.")
        .forks(effort.forks())
        .warmupIterations(effort.warmups())
        .warmupTime(effort.time())
        .measurementIterations(effort.iterations())
        .measurementTime(effort.time())
        .shouldFailOnError(true)
        .addProfiler(GCProfiler.class)
        .jvmArgsAppend("--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow", "-Dnibble.bench.shapes=" + shapes,
            "-Dnibble.library.path=" + System.getProperty("nibble.library.path", ""));
    parameters.forEach((name, values) -> options.param(name, values.toArray(String[]::new)));
    var log = new ByteArrayOutputStream();
    var format = OutputFormatFactory.createFormatInstance(
        new PrintStream(log, true, StandardCharsets.UTF_8), VerboseMode.NORMAL);
    try {
      var results = new ArrayList<Result>();
      for (var result : new Runner(options.build(), format).run()) {
        results.add(result(result));
      }
      return results;
    } catch (RunnerException e) {
      throw new InternalException("JMH: " + e.getMessage() + "; its log:\n"
          + log.toString(StandardCharsets.UTF_8), e);
    }
  }

  private static Result result(RunResult run) {
    var primary = run.getPrimaryResult();
    var benchmark = run.getParams().getBenchmark();
    var parameters = new TreeMap<String, String>();
    for (var key : run.getParams().getParamsKeys()) {
      parameters.put(key, run.getParams().getParam(key));
    }
    var allocated = run.getSecondaryResults().get("gc.alloc.rate.norm");
    return new Result(benchmark.substring(benchmark.lastIndexOf('.', benchmark.lastIndexOf('.') - 1)
        + 1), parameters, primary.getScore(), primary.getScoreError(), primary.getScoreUnit(),
        allocated == null ? Double.NaN : allocated.getScore());
  }
}
