// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.io.ModelSource;
import dev.nibble.model.LlamaConfig;
import dev.nibble.quantize.Quantizer;
import dev.nibble.quantize.Scheme;
import dev.nibble.tensor.Context;
import java.nio.file.Path;
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
      "Loading the copy gives bit for bit what the same --scheme gives on the original."
    })
final class QuantizeCommand implements Callable<Integer> {

  private final Streams streams;

  @Parameters(index = "0", paramLabel = "IN",
      description = "The model directory to read: F32, F16 or BF16 weights.")
  private Path in;

  @Parameters(index = "1", paramLabel = "OUT",
      description = "The directory to make; it must not exist, or be empty.")
  private Path out;

  @Mixin
  private SchemeOptions scheme;

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
    var target = scheme.over(Scheme.defaultScheme());
    try (var source = ModelSource.directory(in)) {
      // Refuses what is not a LLaMA before anything is written.
      LlamaConfig.read(source);
      try (var context = Context.create("cpu", threads);
          var progress = new Progress(streams, !quiet, "Quantizing", " MB", 1_000_000)) {
        Quantizer.quantize(source, out, target, context,
            (tensor, done, total) -> progress.show(done, total));
      }
    }
    if (!quiet) {
      streams.err().println("Wrote " + out + ", " + target.describe());
    }
    return Main.OK;
  }
}
