// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.Json;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.model.Session;
import dev.nibble.model.SyntheticConfigs;
import dev.nibble.quantize.Scheme;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.SplittableRandom;

/**
 * {@code ./nibble bench --against}: Nibble and a {@code llama-bench} on models of one shape, of
 * random weights and of the same bits, in turn.
 */
final class Against {
  private static final int PREFILL = 512;
  private static final int DECODE = 64;

  private final LlamaBench peer;
  private final Options options;
  private final PrintStream messages;

  /**
   * What to compare.
   *
   * @param shape of {@link SyntheticConfigs}
   * @param type theirs
   * @param scheme ours
   * @param threads of both; 0 for all this process may use
   * @param rounds how often both take a turn
   * @param depth tokens in the cache for one more decode test, 0 for none
   */
  record Options(String shape, Gguf.FileType type, Scheme scheme, int threads, int rounds,
      int depth) {

    /** The scheme that has about the bits of a type and the same arithmetic. */
    static String schemeFor(Gguf.FileType type) {
      return switch (type) {
        case Q4_0 -> "w4a8i";
        case Q8_0 -> "w8a8";
        case F16 -> "bf16";
      };
    }
  }

  /** One test's rates, tokens a second; the ratio is of each round. */
  record Comparison(LlamaBench.Test test, Spread ours, Spread theirs, Spread ratio) {

    String name() {
      return (test.prompt() > 0 ? "prefill " + test.prompt() : "decode " + test.generate())
          + (test.depth() > 0 ? " behind " + test.depth() : "");
    }

    Map<String, Object> toMap() {
      var map = new LinkedHashMap<String, Object>();
      map.put("test", name());
      map.put("ours_tokens_per_s", ours.values());
      map.put("theirs_tokens_per_s", theirs.values());
      map.put("ours_median", ours.median());
      map.put("theirs_median", theirs.median());
      map.put("ratio_median", ratio.median());
      return map;
    }
  }

  /** What came out, and on what. */
  record Result(Options options, LlamaBench peer, int threads, long ourBytes, long theirBytes,
      List<Comparison> comparisons) {

    void print(PrintStream out) {
      out.printf(Locale.ROOT, "%s, %d threads, %s%n", options.shape(), threads,
          Environment.cpu());
      out.printf(Locale.ROOT, "ours    %s, %.0f MB of weights a token%n",
          options.scheme().describe(), ourBytes / 1e6);
      out.printf(Locale.ROOT, "theirs  %s, %s, %.0f MB of weights a token%n%n",
          peer.program(), options.type(), theirBytes / 1e6);
      out.printf(Locale.ROOT, "%-24s %26s %26s %8s%n", "tokens/s, median (range)", "ours",
          "theirs", "ratio");
      for (var c : comparisons) {
        out.printf(Locale.ROOT, "%-24s %26s %26s %8.2f%n", c.name(), c.ours(), c.theirs(),
            c.ratio().median());
      }
    }

    byte[] json() {
      var map = new LinkedHashMap<String, Object>();
      map.put("schema", "nibble-bench-against-1");
      map.put("environment", Environment.describe());
      map.put("shape", options.shape());
      map.put("threads", threads);
      map.put("scheme", options.scheme().name());
      map.put("peer", peer.toMap());
      map.put("peer_type", options.type().name());
      map.put("our_weight_bytes", ourBytes);
      map.put("their_weight_bytes", theirBytes);
      map.put("results", comparisons.stream().map(Comparison::toMap).toList());
      return Json.write(map);
    }

    String text() {
      return new String(json(), StandardCharsets.UTF_8);
    }
  }

  Against(LlamaBench peer, Options options, PrintStream messages) {
    this.peer = peer;
    this.options = options;
    this.messages = messages;
  }

  /**
   * Writes their model to a temporary file in {@code directory}, measures, removes the file.
   *
   * @throws dev.nibble.NibbleException if the peer fails or prints something else than results
   */
  Result run(Path directory) {
    var config = SyntheticConfigs.of(options.shape());
    Path file = null;
    try {
      Files.createDirectories(directory);
      file = Files.createTempFile(directory, "random-" + options.shape() + "-", ".gguf");
      say("writing " + file);
      long theirBytes = Gguf.write(file, config, options.type());
      say("making the same shape for Nibble");
      try (var model = LlamaModel.synthetic(config, LoadOptions.defaults()
              .withScheme(options.scheme()).withThreads(options.threads()), 1);
          var session = model.newSession(options.depth() + Math.max(PREFILL, DECODE))) {
        return new Result(options, peer, model.context().threads(), model.weightBytesPerToken(),
            theirBytes, measure(session, file));
      }
    } catch (IOException e) {
      throw new InvalidArgumentException("--against: their model cannot be written to " + directory
          + ": " + e.getMessage(), e);
    } finally {
      delete(file);
    }
  }

  private List<Comparison> measure(Session session, Path file) {
    var tests = new java.util.ArrayList<LlamaBench.Test>(List.of(
        new LlamaBench.Test(PREFILL, 0, 0), new LlamaBench.Test(0, DECODE, 0)));
    if (options.depth() > 0) {
      var deep = new LlamaBench.Test(0, DECODE, options.depth());
      if (peer.supports(deep)) {
        tests.add(deep);
      } else {
        say(peer.program() + " cannot decode behind a context; that test is left out");
      }
    }
    var comparisons = tests.stream().map(test ->
        new Comparison(test, new Spread(), new Spread(), new Spread())).toList();
    int threads = session.model().context().threads();
    for (var each : comparisons) {
      ours(session, each.test()); // warms up, and fills the cache up to the depth
      for (int round = 1; round <= options.rounds(); round++) {
        say(each.name() + ", round " + round + " of " + options.rounds());
        double ours = ours(session, each.test());
        double theirs = peer.run(file, threads, each.test());
        each.ours().add(ours);
        each.theirs().add(theirs);
        each.ratio().add(ours / theirs);
      }
    }
    return comparisons;
  }

  private static double ours(Session session, LlamaBench.Test test) {
    var random = new SplittableRandom(1);
    int vocabulary = session.model().config().vocabSize();
    session.rewind(Math.min(session.position(), test.depth()));
    if (session.position() < test.depth()) {
      session.reset();
      session.forward(random.ints(test.depth(), 0, vocabulary).toArray());
    }
    var tokens = random.ints(test.prompt() + test.generate(), 0, vocabulary).toArray();
    long begin = System.nanoTime();
    if (test.prompt() > 0) {
      session.forward(tokens);
    } else {
      for (int token : tokens) {
        session.forward(token);
      }
    }
    return tokens.length / ((System.nanoTime() - begin) / 1e9);
  }

  private void say(String what) {
    messages.println(what);
    messages.flush();
  }

  private static void delete(Path file) {
    try {
      if (file != null) {
        Files.deleteIfExists(file);
      }
    } catch (IOException e) {
      throw new InvalidArgumentException(file + ": cannot be removed: " + e.getMessage(), e);
    }
  }
}
