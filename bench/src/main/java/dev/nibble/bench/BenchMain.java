// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.InternalException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.NibbleException;
import dev.nibble.quantize.KvType;
import dev.nibble.quantize.Scheme;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * {@code ./nibble bench --report} and {@code ./nibble bench --against}: what the launcher starts
 * for them. Exit codes are those of the command line.
 */
@Command(name = "nibble bench", sortOptions = false,
    description = "Measures everything and writes a report, or compares with llama-bench.")
public final class BenchMain implements Callable<Integer> {
  private static final int MAX_THREADS = 1024;
  private static final int MAX_ROUNDS = 100;
  private static final int MAX_DEPTH = 100_000;

  private final PrintStream out;
  private final PrintStream err;

  @Option(names = "--report",
      description = "Native benchmark, Java, JMH and plots into one HTML page; 15 minutes on two"
          + " cores.")
  private boolean report;

  @Option(names = "--full", description = "With --report: every shape, for hours.")
  private boolean full;

  @Option(names = "--smoke", hidden = true)
  private boolean smoke;

  @Option(names = "--out", paramLabel = "DIR",
      description = "With --report: where to (default: build/bench-report/results/NAME).")
  private Path directory;

  @Option(names = "--against", paramLabel = "LLAMA-BENCH", arity = "0..1",
      fallbackValue = "llama-bench",
      description = "Nibble and this program in turn (default: llama-bench on the PATH).")
  private String against;

  @Option(names = "--type", paramLabel = "TYPE", defaultValue = "q4_0",
      description = "With --against: their weights: q4_0, q8_0 or f16 (default: q4_0).")
  private String type;

  @Option(names = "--scheme", paramLabel = "NAME",
      description = "With --against: ours (default: w4a8i, w8a8 or bf16 for their type).")
  private String scheme;

  @Option(names = "--kv", paramLabel = "TYPE",
      description = "With --against: our key/value cache: f32, kv16, kv8 or kv4.")
  private String cache;

  @Option(names = "--shape", paramLabel = "SHAPE", defaultValue = "llama-3.2-1b",
      description = "With --against: as bench --synthetic (default: llama-3.2-1b).")
  private String shape;

  @Option(names = "--rounds", paramLabel = "N", defaultValue = "5",
      description = "With --against: turns of each (default: 5).")
  private int rounds;

  @Option(names = "--depth", paramLabel = "N", defaultValue = "4096",
      description = "With --against: also decode behind N tokens; 0 for not (default: 4096).")
  private int depth;

  @Option(names = "--peer-args", paramLabel = "ARGS", defaultValue = "",
      description = "With --against: further arguments for the other program, in one word.")
  private String peerArguments;

  @Option(names = "--threads", paramLabel = "N", defaultValue = "0",
      description = "Threads (default: all this process may use).")
  private int threads;

  @Option(names = "--json", description = "With --against: print JSON.")
  private boolean json;

  @Option(names = {"-h", "--help"}, usageHelp = true, description = "Show this help and exit.")
  private boolean help;

  private BenchMain(PrintStream out, PrintStream err) {
    this.out = out;
    this.err = err;
  }

  /** Runs, and ends the JVM. */
  public static void main(String[] args) {
    System.exit(run(args, System.out, System.err));
  }

  /** Runs in this JVM; returns the exit code: 0, 2 for bad input, 1 for Nibble's own failure. */
  static int run(String[] args, PrintStream out, PrintStream err) {
    var line = new CommandLine(new BenchMain(out, err));
    line.setOut(new java.io.PrintWriter(out, true, StandardCharsets.UTF_8));
    line.setParameterExceptionHandler((e, given) -> fail(err, e, 2));
    line.setExecutionExceptionHandler((e, command, result) -> fail(err, e,
        e instanceof NibbleException && !(e instanceof InternalException) ? 2 : 1));
    // The launcher passes the word "bench" on.
    boolean named = args.length > 0 && args[0].equals("bench");
    int code = line.execute(named ? Arrays.copyOfRange(args, 1, args.length) : args);
    out.flush();
    return code;
  }

  private static int fail(PrintStream err, Exception e, int code) {
    var message = String.valueOf(e.getMessage()).strip();
    err.println("nibble: " + (code == 1 && !(e instanceof NibbleException)
        ? "internal error: " + e : message));
    return code;
  }

  @Override
  public Integer call() {
    if (report == (against != null)) {
      throw new InvalidArgumentException("expected one of --report and --against");
    }
    require("--threads", threads, 0, MAX_THREADS);
    if (report) {
      runReport();
    } else {
      runAgainst();
    }
    return 0;
  }

  private void runReport() {
    var shapes = Path.of(System.getProperty("nibble.bench.shapes", "bench/shapes.txt"));
    var target = directory != null ? directory
        : workspace().resolve("results").resolve(Environment.resultName());
    var page = new Report(NativeBench.find(), shapes, target, err)
        .run(new Report.Options(threads, full, smoke));
    out.println(page);
  }

  private void runAgainst() {
    require("--rounds", rounds, 1, MAX_ROUNDS);
    require("--depth", depth, 0, MAX_DEPTH);
    var theirs = Arrays.stream(Gguf.FileType.values())
        .filter(t -> t.name().equalsIgnoreCase(type)).findFirst()
        .orElseThrow(() -> new InvalidArgumentException(
            "--type: \"" + type + "\" given, expected q4_0, q8_0 or f16"));
    var ours = Scheme.of(scheme != null ? scheme.toLowerCase(Locale.ROOT)
        : Against.Options.schemeFor(theirs));
    if (cache != null) {
      ours = ours.withCache(KvType.ofOption(cache));
    }
    var more = peerArguments.isBlank()
        ? List.<String>of() : List.of(peerArguments.strip().split("\\s+"));
    var peer = new LlamaBench(against, more);
    var result = new Against(peer,
        new Against.Options(shape, theirs, ours, threads, rounds, depth), err).run(workspace());
    if (json) {
      out.print(result.text());
    } else {
      result.print(out);
    }
  }

  /** Where results and temporary files go. */
  private static Path workspace() {
    return Path.of(System.getProperty("nibble.bench.dir",
        Path.of(System.getProperty("java.io.tmpdir"), "nibble-bench").toString()));
  }

  private static void require(String option, int value, int min, int max) {
    if (value < min || value > max) {
      throw new InvalidArgumentException(
          option + ": " + value + " given, expected " + min + " to " + max);
    }
  }
}
