// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.io.ModelSource;
import dev.nibble.model.LlamaConfig;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.model.PackedCache;
import dev.nibble.quantize.Scheme;
import java.nio.file.Path;
import java.util.function.Consumer;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** Which model, in which formats, on what. */
final class ModelOptions {

  @Option(names = "--model", paramLabel = "PATH", order = 10,
      description = "Model directory in the Hugging Face layout, or a GGUF file (default: the"
          + " built-in model).")
  Path model;

  @Mixin
  SchemeOptions scheme;

  @Option(names = "--threads", paramLabel = "N", order = 30,
      description = "Threads to use (default: all this process may use); with a GPU, to load.")
  int threads;

  @Option(names = "--device", paramLabel = "NAME", order = 31, defaultValue = "cpu",
      description = "Where to compute: cpu, or cuda:0 and so on for an NVIDIA GPU (default:"
          + " ${DEFAULT-VALUE}).")
  String device;

  @Option(names = "--packed-cache", paramLabel = "DIR|off", order = 32,
      description = "Where packed weights are kept, so that a model loads fast the next time, or"
          + " off (default: nibble/packed in the user's cache directory, for large models that are"
          + " quantized on load).")
  String packedCache;

  /** The directory or file asked for, or the built-in model. */
  ModelSource source() {
    return model == null ? ModelSource.embedded() : ModelSource.directory(model);
  }

  /**
   * Loads the model.
   *
   * @param fallback the scheme of unquantized weights for which none is asked; null for Nibble's
   *     default
   * @param progress whether to show a progress bar
   */
  LlamaModel load(Streams streams, Scheme fallback, boolean progress) {
    try (var source = source();
        var bar = new Progress(streams, progress, "Loading", " MB", 1_000_000)) {
      var cache = packedCache == null ? PackedCache.automatic() : PackedCache.parse(packedCache);
      Consumer<String> warnings = text -> streams.err().println("nibble: warning: " + text);
      return LlamaModel.load(source, options(scheme(source, fallback), bar)
          .withPackedCache(cache.withWarnings(warnings)).withWarnings(warnings));
    }
  }

  /** A random model of that configuration. */
  LlamaModel synthesize(Streams streams, LlamaConfig config, boolean progress) {
    try (var bar = new Progress(streams, progress, "Making weights", " M", 1_000_000)) {
      return LlamaModel.synthetic(config, options(scheme.over(Scheme.defaultScheme()), bar), 1);
    }
  }

  private LoadOptions options(Scheme chosen, Progress bar) {
    return LoadOptions.defaults().withScheme(chosen).withThreads(threads).withDevice(device)
        .withProgress((what, done, total) -> bar.show(done, total));
  }

  /** Null leaves the choice to the model: its own scheme where it is quantized already. */
  private Scheme scheme(ModelSource source, Scheme fallback) {
    if (scheme.scheme != null) {
      return scheme.over(null);
    }
    if (!scheme.given() && fallback == null) {
      return null;
    }
    var stored = LlamaModel.storedScheme(source);
    var base = stored != null ? stored : fallback != null ? fallback : Scheme.defaultScheme();
    return scheme.over(base);
  }
}
