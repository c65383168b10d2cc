// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.Json;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.SyntheticConfigs;
import dev.nibble.quantize.QuantizationConfig;
import dev.nibble.tensor.NativeLibrary;
import java.nio.charset.StandardCharsets;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code nibble bench}. */
@Command(name = "bench", sortOptions = false,
    description = "Measure the speed of prefill and decode, beside the machine's memory bandwidth.",
    footer = {
      "",
      "After one run to warm up, each run times one pass over --prefill tokens, then --decode",
      "tokens one by one, both behind --context tokens in the cache, then the rate at which the",
      "same threads read memory. Medians are reported, with the least and the largest. The bytes",
      "of a decoded token are its weights and the keys and values it attends to; their rate over",
      "the memory's is the share of the machine's limit that decoding reaches (above 100 %% where",
      "the model stays in the CPU's cache)."
    })
final class BenchCommand implements Callable<Integer> {

  private static final int MAX_RUNS = 1000;

  private final Streams streams;

  @Option(names = "--synthetic", paramLabel = "SHAPE", order = 1,
      description = "A model of random weights made in memory: llama-3.2-1b, llama-3-8b,"
          + " llama-2-7b or HIDDENxLAYERS[xINTERMEDIATE[xHEADS[xKVHEADS[xVOCABULARY]]]].")
  private String synthetic;

  @Option(names = "--prefill", paramLabel = "N", defaultValue = "512", order = 2,
      description = "Tokens of the prefill (default: ${DEFAULT-VALUE}).")
  private int prefill;

  @Option(names = "--decode", paramLabel = "N", defaultValue = "64", order = 3,
      description = "Tokens to decode (default: ${DEFAULT-VALUE}).")
  private int decode;

  @Option(names = "--context", paramLabel = "N", defaultValue = "0", order = 4,
      description = "Tokens in the cache before either (default: ${DEFAULT-VALUE}).")
  private int context;

  @Option(names = "--runs", paramLabel = "N", defaultValue = "5", order = 5,
      description = "Timed runs (default: ${DEFAULT-VALUE}).")
  private int runs;

  @Option(names = "--json", order = 6, description = "Print JSON.")
  private boolean json;

  @Mixin
  private ModelOptions model;

  // In the source tree the launcher takes these two, and options of their own, to bench/.
  @Option(names = "--report", order = 50, description = "In the source tree: measure everything"
      + " and write an HTML page (./nibble bench --report --help).")
  private boolean report;

  @Option(names = "--against", paramLabel = "LLAMA-BENCH", arity = "0..1", order = 51,
      fallbackValue = "llama-bench", description = "In the source tree: Nibble and this program of"
      + " llama.cpp in turn (./nibble bench --against --help).")
  private String against;

  @Option(names = "--quiet", order = 41, description = "Show no progress.")
  private boolean quiet;

  @Mixin
  private CommonOptions common;

  BenchCommand(Streams streams) {
    this.streams = streams;
  }

  @Override
  public Integer call() {
    if (report || against != null) {
      throw new UnsupportedException((report ? "--report" : "--against")
          + ": not in this jar, expected a call of ./nibble in Nibble's source tree");
    }
    require("--prefill", prefill, 1, 1 << 24);
    require("--decode", decode, 1, 1 << 24);
    require("--context", context, 0, 1 << 28);
    require("--runs", runs, 1, MAX_RUNS);
    if (synthetic != null && model.model != null) {
      throw new InvalidArgumentException("--model and --synthetic: both given, expected one");
    }
    try (var loaded = open()) {
      int most = loaded.config().maxPositions();
      long needed = (long) context + Math.max(prefill, decode);
      if (needed > most) {
        throw new InvalidArgumentException("--context plus --prefill or --decode: " + needed
            + " tokens, but the model's context holds " + most);
      }
      print(loaded, measure(loaded));
    }
    return Main.OK;
  }

  private Benchmark measure(LlamaModel loaded) {
    try (var progress = new Progress(streams, !quiet, "Measuring", " runs", 1)) {
      return Benchmark.run(loaded, prefill, decode, context, runs,
          done -> progress.show(done, runs + 1));
    }
  }

  private LlamaModel open() {
    if (synthetic == null) {
      return model.load(streams, null, !quiet);
    }
    return model.synthesize(streams, SyntheticConfigs.of(synthetic), !quiet);
  }

  private void print(LlamaModel loaded, Benchmark result) {
    var name = synthetic != null ? "synthetic " + synthetic : loaded.name();
    var machine = Machine.detect();
    if (json) {
      var map = result.toMap();
      map.put("model", name);
      map.put("parameters", loaded.config().parameters());
      map.put("scheme", loaded.scheme().name());
      map.put("scheme_parts", QuantizationConfig.toMap(loaded.scheme()));
      map.put("threads", loaded.context().threads());
      map.put("cpu", machine.cpu());
      map.put("simd_target", NativeLibrary.simdTarget());
      map.put("version", InfoCommand.version());
      map.put("java_version", Runtime.version().toString());
      streams.out().print(new String(Json.write(map), StandardCharsets.UTF_8));
      return;
    }
    var out = streams.out();
    out.printf(Locale.ROOT, "%s, %.1f M parameters, %s%n", name,
        loaded.config().parameters() / 1e6, loaded.scheme().describe());
    out.printf(Locale.ROOT, "%s, %s, %d threads%n", machine.cpu(),
        NativeLibrary.simdTarget(), loaded.context().threads());
    out.printf(Locale.ROOT, "prefill    %10.1f tokens/s  (%s; %d tokens behind %d)%n",
        result.prefill().median(), result.prefill().range(), prefill, context);
    out.printf(Locale.ROOT, "decode     %10.1f tokens/s  (%s; %d tokens behind %d)%n",
        result.decode().median(), result.decode().range(), decode, context);
    out.printf(Locale.ROOT, "read       %10.2f MB/token%n", result.bytesPerToken() / 1e6);
    out.printf(Locale.ROOT, "bandwidth  %10.2f GB/s      (%s; reading memory)%n",
        result.bandwidth().median(), result.bandwidth().range());
    out.printf(Locale.ROOT, "share      %10.1f %%         (decode of read bandwidth)%n",
        100 * result.share().median());
  }

  private static void require(String option, int value, int min, int max) {
    if (value < min || value > max) {
      throw new InvalidArgumentException(
          option + ": " + value + " given, expected " + min + " to " + max);
    }
  }
}
