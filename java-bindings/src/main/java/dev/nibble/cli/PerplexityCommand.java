// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import dev.nibble.generate.Perplexity;
import dev.nibble.io.Json;
import dev.nibble.model.LlamaModel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code nibble perplexity}. */
@Command(name = "perplexity", sortOptions = false,
    description = "Measure how well a model predicts a text.",
    footer = {
      "",
      "The tokens of the text, the one that begins a text first, are cut into windows of",
      "--context tokens without overlap; the first token of each window is not scored and the",
      "last window may be shorter. The loss is the mean negative log-likelihood of the scored",
      "tokens in nats, the perplexity its exponential."
    })
final class PerplexityCommand implements Callable<Integer> {

  private final Streams streams;

  @Option(names = "--text", paramLabel = "FILE", required = true, order = 1,
      description = "The text, UTF-8.")
  private Path text;

  @Option(names = "--context", paramLabel = "N", order = 2,
      description = "Tokens of a window (default: the model's context, at most 2048).")
  private Integer window;

  @Option(names = "--json", order = 3, description = "Print JSON.")
  private boolean json;

  @Mixin
  private ModelOptions model;

  @Option(names = "--quiet", order = 41, description = "Show no progress.")
  private boolean quiet;

  @Mixin
  private CommonOptions common;

  PerplexityCommand(Streams streams) {
    this.streams = streams;
  }

  @Override
  public Integer call() {
    var content = TextFile.read(text);
    try (var loaded = model.load(streams, null, !quiet)) {
      var tokenizer = loaded.tokenizer().orElseThrow(() -> new UnsupportedException(
          loaded.name() + ": has no tokenizer.json, so text cannot become tokens"));
      var tokens = tokenizer.encode(content);
      if (tokens.length < 2) {
        throw new InvalidArgumentException(
            text + ": " + tokens.length + " tokens, expected at least 2");
      }
      int most = loaded.config().maxPositions();
      if (window != null && (window < 2 || window > most)) {
        throw new InvalidArgumentException("--context: " + window + " given, expected 2 to " + most
            + ", the model's max_position_embeddings");
      }
      int size = window != null ? window : Math.min(most, 2048);
      print(loaded, tokens.length, size, measure(loaded, tokens, size));
    }
    return Main.OK;
  }

  private Perplexity measure(LlamaModel loaded, int[] tokens, int size) {
    try (var progress = new Progress(streams, !quiet, "Measuring", " tokens", 1)) {
      return Perplexity.measure(loaded, tokens, size,
          (what, done, total) -> progress.show(done, total));
    }
  }

  private void print(LlamaModel loaded, int tokens, int size, Perplexity result) {
    if (json) {
      var map = new LinkedHashMap<String, Object>();
      map.put("model", loaded.name());
      map.put("scheme", loaded.scheme().name());
      map.put("text", text.toString());
      map.put("tokens", tokens);
      map.put("context", size);
      map.put("windows", Math.ceilDiv(tokens, size));
      map.put("scored_tokens", result.scoredTokens());
      map.put("mean_negative_log_likelihood", result.meanNegativeLogLikelihood());
      map.put("perplexity", result.perplexity());
      streams.out().print(new String(Json.write(map), StandardCharsets.UTF_8));
    } else {
      streams.out().printf(Locale.ROOT,
          "%s, %s%n%d tokens in windows of %d, %d scored%n"
              + "mean negative log-likelihood  %.4f nats/token%nperplexity  %.4f%n",
          loaded.name(), loaded.scheme().describe(), tokens, size, result.scoredTokens(),
          result.meanNegativeLogLikelihood(), result.perplexity());
    }
  }
}
