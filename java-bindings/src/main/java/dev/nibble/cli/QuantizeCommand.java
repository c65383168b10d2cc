// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.ModelSource;
import dev.nibble.io.Tokenizer;
import dev.nibble.model.LlamaConfig;
import dev.nibble.quantize.Calibration;
import dev.nibble.quantize.MixedPrecision;
import dev.nibble.quantize.PostTrainingQuantizer;
import dev.nibble.quantize.Recipe;
import dev.nibble.quantize.Scheme;
import dev.nibble.tensor.Context;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code nibble quantize}. */
@Command(name = "quantize", sortOptions = false,
    description = "Write a quantized copy of a model directory.",
    footer = {
      "",
      "--scheme also takes recipes that look at a model's activations: fireq, fireq-pow2,",
      "zeroquant-fp6, zeroquant-fp6-e2m3, llm-qat, llm-qat-kv8; +gptq or +awq behind a name",
      "with 4-bit weights (fireq+gptq) adds error compensation. They calibrate on a text, or on",
      "one that the model writes itself; an interrupted run goes on where it was.",
      "",
      "--scheme mixed measures what 4, 6 and 8 bits cost each projection, prints the table, and",
      "gives each the format with which all together lose least within --bits a weight; those",
      "of 4 bits are fireq+gptq's. Activations are A16 and the cache KV8, as in zeroquant-fp6;",
      "--activations a8f and --kv kv4 are smaller and faster, and cost more.",
      "",
      "Loading the copy of a plain scheme gives bit for bit what it gives on the original."
    })
final class QuantizeCommand implements Callable<Integer> {

  private static final String MIXED = "mixed";
  private static final double DEFAULT_BITS = 4.5;

  private final Streams streams;

  @Parameters(index = "0", paramLabel = "IN",
      description = "The model directory to read: F32, F16 or BF16 weights.")
  private Path in;

  @Parameters(index = "1", paramLabel = "OUT",
      description = "The directory to make; it must not exist, or be empty.")
  private Path out;

  @Mixin
  private SchemeOptions scheme;

  @Option(names = "--calibration", paramLabel = "FILE", order = 26,
      description = "A text, UTF-8, to calibrate on (default: one that the model writes itself).")
  private Path calibration;

  @Option(names = "--calibration-tokens", paramLabel = "N", order = 27,
      description = "Tokens to calibrate on, at most (default: 16384).")
  private int calibrationTokens = Calibration.DEFAULT_TOKENS;

  @Option(names = "--bits", paramLabel = "B", order = 28,
      description = "With --scheme mixed: bits a weight to spend, codes and scales of the"
          + " projections (default: 4.5).")
  private Double bits;

  @Option(names = "--threads", paramLabel = "N", order = 30,
      description = "Threads to use (default: all this process may use).")
  private int threads;

  @Option(names = "--quiet", order = 31, description = "Print errors only.")
  private boolean quiet;

  @Mixin
  private CommonOptions common;

  QuantizeCommand(Streams streams) {
    this.streams = streams;
  }

  @Override
  public Integer call() {
    var recipe = recipe();
    try (var source = ModelSource.directory(in)) {
      // Refuses what is not a LLaMA before anything is written.
      var config = LlamaConfig.read(source);
      PostTrainingQuantizer.requireFree(out);
      var tokens = recipe.needsCalibration() ? calibrate(source, config) : null;
      if (isMixed()) {
        recipe = mixed(recipe, source, tokens);
      }
      try (var context = Context.create("cpu", threads);
          var progress = new Progress(streams, !quiet, "Quantizing", "%", 10)) {
        PostTrainingQuantizer.quantize(source, out, recipe, tokens, context, listener(progress));
      }
    }
    if (!quiet) {
      streams.err().println("Wrote " + out + ", " + recipe.describe());
    }
    return Main.OK;
  }

  private boolean isMixed() {
    return MIXED.equals(scheme.scheme);
  }

  /** The recipe with a format for each projection, chosen by what the formats cost. */
  private Recipe mixed(Recipe recipe, ModelSource source, Calibration tokens) {
    List<MixedPrecision.Item> items;
    try (var progress = new Progress(streams, !quiet, "Measuring", "%", 10)) {
      items = MixedPrecision.measure(source, tokens, MixedPrecision.DEFAULT_TOKENS, threads,
          (what, done, total) -> progress.show(Math.round(1000.0 * done / total), 1000));
    }
    double budget = bits == null ? DEFAULT_BITS : bits;
    var plan = MixedPrecision.choose(items, budget);
    if (!quiet) {
      streams.err().print(plan.table());
    }
    return recipe.withScheme(recipe.scheme().withExceptions(plan.formats()))
        .withName(MIXED + "-" + budget);
  }

  private Recipe recipe() {
    if (bits != null && !isMixed()) {
      throw new InvalidArgumentException("--bits: goes with --scheme " + MIXED + " only");
    }
    if (isMixed()) {
      return MixedPrecision.recipe(scheme.overrides(MixedPrecision.recipe().scheme()));
    }
    if (scheme.scheme == null || Scheme.names().contains(scheme.scheme)) {
      return Recipe.of(scheme.over(Scheme.defaultScheme()));
    }
    var recipe = Recipe.of(scheme.scheme);
    return recipe.withScheme(scheme.overrides(recipe.scheme()));
  }

  private Calibration calibrate(ModelSource source, LlamaConfig config) {
    int window = Math.min(Calibration.DEFAULT_WINDOW, config.maxPositions());
    if (calibration != null) {
      var text = TextFile.read(calibration);
      try (var tokenizer = Tokenizer.load(source)) {
        return Calibration.ofText(
            calibration.toString(), text, tokenizer, calibrationTokens, window);
      }
    }
    try (var progress = new Progress(streams, !quiet, "Writing a text", " tokens", 1)) {
      return Calibration.sampled(source, calibrationTokens, window, Calibration.DEFAULT_SEED,
          threads, (what, done, total) -> progress.show(done, total));
    }
  }

  private PostTrainingQuantizer.Listener listener(Progress progress) {
    return new PostTrainingQuantizer.Listener() {
      @Override
      public void progress(String what, long done, long total) {
        progress.show(Math.round(1000.0 * done / Math.max(1, total)), 1000);
      }

      @Override
      public void resumed(int layers, int total) {
        tell("Resuming an interrupted run: " + layers + " of " + total + " layers are done");
      }

      @Override
      public void restarted() {
        tell("Starting again: the interrupted run beside " + out
            + " was of another model, scheme or calibration");
      }

      private void tell(String text) {
        if (!quiet) {
          streams.err().println(text);
        }
      }
    };
  }
}
