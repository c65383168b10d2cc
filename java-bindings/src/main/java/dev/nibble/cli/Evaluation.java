// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.InvalidArgumentException;
import dev.nibble.NibbleException;
import dev.nibble.UnsupportedException;
import dev.nibble.generate.Comparison;
import dev.nibble.io.CheckpointNames;
import dev.nibble.io.ModelSource;
import dev.nibble.io.Tokenizer;
import dev.nibble.model.LlamaConfig;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.model.PackedCache;
import dev.nibble.model.SelfText;
import dev.nibble.quantize.Calibration;
import dev.nibble.quantize.MixedPrecision;
import dev.nibble.quantize.OutlierModel;
import dev.nibble.quantize.PostTrainingQuantizer;
import dev.nibble.quantize.Recipe;
import dev.nibble.quantize.Scheme;
import dev.nibble.tensor.Context;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/**
 * The accuracy of quantized copies of a model: each is written to a temporary directory, loaded
 * from there as a user would, compared with the original in F32, and deleted.
 */
final class Evaluation implements AutoCloseable {
  private static final String MIXED = "mixed-";
  private static final String TALES = "/dev/nibble/texts/tales.txt";
  /** Seeds of the text that is measured and of the one that calibrates: never the same text. */
  private static final long TEXT_SEED = 2;
  private static final long CALIBRATION_SEED = 1;
  private static final int TEXT_TOKENS = 16_384;

  /** What every model is measured with. Paths may be null. */
  record Settings(
      Path text, int window, Path calibration, int calibrationTokens, int threads) {}

  /** One way of quantizing: a recipe, with a budget of bits a weight for mixed precision or 0. */
  record Candidate(String name, Recipe recipe, double bits) {

    static Candidate of(Recipe recipe) {
      return new Candidate(recipe.name(), recipe, 0);
    }

    /** The recipe of that name, or {@link MixedPrecision}'s with a budget, {@code mixed-BITS}. */
    static Candidate parse(String name) {
      if (!name.startsWith(MIXED)) {
        return of(Recipe.of(name));
      }
      try {
        double bits = Double.parseDouble(name.substring(MIXED.length()));
        return new Candidate(name, MixedPrecision.recipe(), bits);
      } catch (NumberFormatException e) {
        throw new InvalidArgumentException("scheme: \"" + name + "\" given, expected " + MIXED
            + "BITS with a number of bits a weight, such as " + MIXED + "4.5", e);
      }
    }
  }

  /** One line of the table. */
  record Row(String model, String scheme, Comparison result, double rise, double bitsPerWeight,
      double embeddingBits, long fileBytes) {}

  private final ModelSource source;
  private final String name;
  private final Settings settings;
  private final LlamaConfig config;
  private final LlamaModel original;
  private final Path directory;
  private Calibration calibration;
  private List<MixedPrecision.Item> items;

  private Evaluation(ModelSource source, String name, Settings settings) {
    this.source = source;
    this.name = name;
    this.settings = settings;
    config = LlamaConfig.read(source);
    original = LlamaModel.load(source, options().withScheme("f32"));
    directory = temporary();
  }

  /** Measures a model. */
  static List<Row> of(ModelSource source, String name, Settings settings,
      List<Candidate> candidates, Progress progress) {
    try (var evaluation = new Evaluation(source, name, settings)) {
      return evaluation.run(candidates, progress);
    }
  }

  /** Measures the same model with outliers. */
  static List<Row> withOutliers(ModelSource source, Settings settings, List<Candidate> candidates,
      Progress progress) {
    var directory = temporary();
    try {
      OutlierModel.write(source, directory);
      try (var outliers = ModelSource.directory(directory)) {
        return of(outliers, source.name() + "-outliers", settings, candidates, progress);
      }
    } finally {
      delete(directory);
    }
  }

  private LoadOptions options() {
    return LoadOptions.defaults().withThreads(settings.threads())
        .withPackedCache(PackedCache.off());
  }

  private List<Row> run(List<Candidate> candidates, Progress progress) {
    var windows = windows();
    double exact = Comparison.measure(original, original, windows, (what, done, total) -> { })
        .meanNegativeLogLikelihood();
    var rows = new ArrayList<Row>();
    for (int i = 0; i < candidates.size(); i++) {
      int behind = i;
      var candidate = candidates.get(i);
      var out = directory.resolve(String.valueOf(i));
      progress.show(1000L * i, 1000L * candidates.size());
      var scheme = quantize(candidate, out);
      try (var model = LlamaModel.load(out, options())) {
        var result = Comparison.measure(original, model, windows, (what, done, total) ->
            progress.show(1000L * behind + 500 + 500 * done / total, 1000L * candidates.size()));
        rows.add(new Row(name, candidate.name(), result,
            result.meanNegativeLogLikelihood() - exact,
            MixedPrecision.bitsPerWeight(config, scheme),
            8.0 * scheme.embedding().bytes(config.vocabSize(), config.hiddenSize())
                / ((double) config.vocabSize() * config.hiddenSize()),
            Files.size(out.resolve(CheckpointNames.WEIGHTS))));
      } catch (IOException e) {
        throw new NibbleException(out + ": cannot be read: " + e, e);
      }
      delete(out);
    }
    return rows;
  }

  /** Writes the quantized copy to out, and returns its scheme. */
  private Scheme quantize(Candidate candidate, Path out) {
    var recipe = candidate.recipe();
    if (candidate.bits() > 0) {
      if (items == null) {
        items = MixedPrecision.measure(source, calibration(), MixedPrecision.DEFAULT_TOKENS,
            settings.threads(), (what, done, total) -> { });
      }
      var plan = MixedPrecision.choose(items, candidate.bits());
      recipe = recipe.withScheme(recipe.scheme().withExceptions(plan.formats()))
          .withName(candidate.name());
    }
    try (var context = Context.create("cpu", settings.threads())) {
      PostTrainingQuantizer.quantize(source, out, recipe,
          recipe.needsCalibration() ? calibration() : null, context, null);
    }
    return recipe.scheme();
  }

  private Tokenizer tokenizer() {
    return original.tokenizer().orElseThrow(() -> new UnsupportedException(
        source.name() + ": has no tokenizer.json, so text cannot become tokens"));
  }

  private int window() {
    return Math.min(settings.window(), config.maxPositions());
  }

  private List<int[]> windows() {
    if (settings.text() != null) {
      var tokens = tokenizer().encode(TextFile.read(settings.text()));
      if (tokens.length < 2) {
        throw new InvalidArgumentException(
            settings.text() + ": " + tokens.length + " tokens, expected at least 2");
      }
      return Comparison.windows(tokens, window());
    }
    var windows = new ArrayList<int[]>();
    if (original.tokenizer().isPresent()) {
      windows.addAll(Comparison.windows(tokenizer().encode(TextFile.resource(TALES)), window()));
    }
    windows.addAll(List.of(SelfText.sample(original, Math.max(1, TEXT_TOKENS / window()),
        window(), TEXT_SEED, (what, done, total) -> { })));
    return windows;
  }

  private Calibration calibration() {
    if (calibration == null) {
      int window = Math.min(Calibration.DEFAULT_WINDOW, config.maxPositions());
      calibration = settings.calibration() != null
          ? Calibration.ofText(settings.calibration().toString(),
              TextFile.read(settings.calibration()), tokenizer(), settings.calibrationTokens(),
              window)
          : Calibration.sampled(original, settings.calibrationTokens(), window, CALIBRATION_SEED,
              (what, done, total) -> { });
    }
    return calibration;
  }

  private static Path temporary() {
    try {
      return Files.createTempDirectory("nibble-eval-");
    } catch (IOException e) {
      throw new NibbleException("temporary directory: cannot be made: " + e, e);
    }
  }

  private static void delete(Path directory) {
    try (var files = Files.walk(directory)) {
      for (var file : files.sorted(Comparator.reverseOrder()).toList()) {
        Files.deleteIfExists(file);
      }
    } catch (IOException e) {
      throw new NibbleException(directory + ": cannot be deleted: " + e, e);
    }
  }

  @Override
  public void close() {
    original.close();
    delete(directory);
  }
}
