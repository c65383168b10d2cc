// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.Json;
import dev.nibble.io.ModelSource;
import dev.nibble.quantize.Recipe;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code nibble eval}. */
@Command(name = "eval", sortOptions = false,
    description = "Measure what each way of quantizing costs in accuracy.",
    footer = {
      "",
      "Without --model the built-in model is measured, and beside it the same model with",
      "outliers in its activations and keys, as large models have them: its logits in F32 are",
      "the same. KL is the divergence of the quantized model's predictions from those in F32,",
      "top-1 how often both find the same token likeliest; bits count codes and scales of the",
      "projections. Calibration texts are sampled from the model itself unless one is given."
    })
final class EvalCommand implements Callable<Integer> {

  private static final String ALL = "all";
  /** Every way, from the exact one to those with fewest bits. */
  private static final List<String> RECIPES = List.of("f32", "bf16", "w8a8", "w6a8", "w6a16",
      "zeroquant-fp6", "zeroquant-fp6-e2m3", "w4a8i", "w4a8", "llm-qat", "llm-qat-kv8",
      "fireq-pow2", "fireq", "fireq+awq", "fireq+gptq", "mixed-4.5", "mixed-5");

  private final Streams streams;

  @Option(names = "--schemes", paramLabel = "NAME[,NAME]...", split = ",", order = 1,
      defaultValue = ALL, description = "Schemes and recipes, such as w4a8, fireq, fireq+gptq or"
          + " mixed-4.5, or all (default: ${DEFAULT-VALUE}).")
  private List<String> schemes;

  @Option(names = "--ablation", order = 2,
      description = "Measure fireq, and fireq without each of its parts, instead.")
  private boolean ablation;

  @Option(names = "--text", paramLabel = "FILE", order = 3,
      description = "The text, UTF-8 (default: a tale, and a longer text that the model writes).")
  private Path text;

  @Option(names = "--context", paramLabel = "N", order = 4, defaultValue = "512",
      description = "Tokens of a window (default: ${DEFAULT-VALUE}, or the model's context).")
  private int window;

  @Option(names = "--calibration", paramLabel = "FILE", order = 5,
      description = "Calibration text, UTF-8 (default: sampled from the model).")
  private Path calibration;

  @Option(names = "--calibration-tokens", paramLabel = "N", order = 6, defaultValue = "16384",
      description = "Calibration tokens to use (default: ${DEFAULT-VALUE}).")
  private int calibrationTokens;

  @Option(names = "--json", order = 7, description = "Print JSON.")
  private boolean json;

  @Option(names = "--model", paramLabel = "DIR", order = 10,
      description = "Model directory in the Hugging Face layout, unquantized (default: the"
          + " built-in model, and the same with outliers).")
  private Path model;

  @Option(names = "--threads", paramLabel = "N", order = 30,
      description = "Threads to use (default: all this process may use).")
  private int threads;

  @Option(names = "--quiet", order = 31, description = "Show no progress.")
  private boolean quiet;

  @Mixin
  private CommonOptions common;

  EvalCommand(Streams streams) {
    this.streams = streams;
  }

  @Override
  public Integer call() {
    var settings = new Evaluation.Settings(text, window, calibration, calibrationTokens, threads);
    var candidates = candidates();
    var rows = new ArrayList<Evaluation.Row>();
    try (var progress = new Progress(streams, !quiet, "Evaluating", " schemes", 1000)) {
      if (model != null) {
        try (var source = ModelSource.directory(model)) {
          rows.addAll(Evaluation.of(source, source.name(), settings, candidates, progress));
        }
      } else {
        try (var source = ModelSource.embedded()) {
          rows.addAll(Evaluation.of(source, source.name(), settings, candidates, progress));
          rows.addAll(Evaluation.withOutliers(source, settings, candidates, progress));
        }
      }
    }
    if (json) {
      var list = rows.stream().map(EvalCommand::toMap).toList();
      streams.out().print(new String(Json.write(list), StandardCharsets.UTF_8));
    } else {
      print(rows);
    }
    return Main.OK;
  }

  /** What to measure; unknown names are refused before any work. */
  private List<Evaluation.Candidate> candidates() {
    var candidates = new ArrayList<Evaluation.Candidate>();
    if (ablation) {
      var fireq = Recipe.of("fireq");
      for (var recipe : List.of(Recipe.of("w4a8"), fireq,
          fireq.withClipping(false).withName("fireq, no clipping"),
          fireq.withTensorScale(false).withName("fireq, no per-tensor scale"),
          fireq.withChannelScaling(false).withName("fireq, no channel-wise scaling"),
          fireq.withPreRopeScaling(false).withName("fireq, no pre-RoPE scaling"),
          fireq.withPostRopeChannels(0).withName("fireq, no post-RoPE scaling"),
          // Either of the two does most of what both do.
          fireq.withPreRopeScaling(false).withPostRopeChannels(0)
              .withName("fireq, no pre-RoPE, no post-RoPE scaling"),
          fireq.withCacheFactors(false).withName("fireq, no cache factors"))) {
        candidates.add(Evaluation.Candidate.of(recipe));
      }
      return candidates;
    }
    for (var name : schemes.equals(List.of(ALL)) ? RECIPES : schemes) {
      candidates.add(Evaluation.Candidate.parse(name));
    }
    if (candidates.isEmpty()) {
      throw new InvalidArgumentException("--schemes: none given, expected names or " + ALL);
    }
    return candidates;
  }

  private static LinkedHashMap<String, Object> toMap(Evaluation.Row row) {
    var map = new LinkedHashMap<String, Object>();
    map.put("model", row.model());
    map.put("scheme", row.scheme());
    map.put("nll", row.result().meanNegativeLogLikelihood());
    map.put("perplexity", row.result().perplexity());
    map.put("nll_rise", row.rise());
    map.put("kl", row.result().meanKlDivergence());
    map.put("top1", row.result().topOneAgreement());
    map.put("tokens", row.result().scoredTokens());
    map.put("bits_per_weight", row.bitsPerWeight());
    map.put("embedding_bits_per_weight", row.embeddingBits());
    map.put("file_bytes", row.fileBytes());
    return map;
  }

  private void print(List<Evaluation.Row> rows) {
    var out = streams.out();
    String shown = null;
    for (var row : rows) {
      if (!row.model().equals(shown)) {
        out.printf(Locale.ROOT, "%s%s, %d scored tokens%n%n", shown == null ? "" : "\n",
            row.model(), row.result().scoredTokens());
        out.println(
            "| scheme | loss | rise | perplexity | KL | top-1 | bits a weight | file, MB |");
        out.println("|---|---|---|---|---|---|---|---|");
        shown = row.model();
      }
      out.printf(Locale.ROOT, "| %s | %.4f | %+.4f | %.3f | %.5f | %.2f %% | %.3f | %.2f |%n",
          row.scheme(), row.result().meanNegativeLogLikelihood(), row.rise(),
          row.result().perplexity(), row.result().meanKlDivergence(),
          100 * row.result().topOneAgreement(), row.bitsPerWeight(), row.fileBytes() / 1e6);
    }
  }
}
