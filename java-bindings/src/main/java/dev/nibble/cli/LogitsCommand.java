// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.InvalidArgumentException;
import dev.nibble.NativeMemoryException;
import dev.nibble.io.DataType;
import dev.nibble.io.SafetensorsWriter;
import dev.nibble.quantize.Scheme;
import dev.nibble.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code nibble logits}: the hook for comparing with other implementations. */
@Command(name = "logits", sortOptions = false,
    description = "Write the logits that follow each token of a sequence to a safetensors file.",
    footer = {
      "",
      "The file has one tensor, \"logits\", F32 [tokens, vocabulary], from one causal pass. No",
      "tokenizer is needed. Since this is for comparing with other implementations, the scheme",
      "is f32 unless one is asked for or the model is quantized already."
    })
final class LogitsCommand implements Callable<Integer> {

  private final Streams streams;

  @Option(names = "--tokens", paramLabel = "IDS", required = true, order = 1,
      description = "Token ids, separated by commas: 1,2,3.")
  private String tokens;

  @Option(names = "--out", paramLabel = "FILE", required = true, order = 2,
      description = "The safetensors file to write.")
  private Path out;

  @Mixin
  private ModelOptions model;

  @Option(names = "--quiet", order = 41, description = "Print errors only.")
  private boolean quiet;

  @Mixin
  private CommonOptions common;

  LogitsCommand(Streams streams) {
    this.streams = streams;
  }

  @Override
  public Integer call() {
    var ids = parse(tokens);
    try (var loaded = model.load(streams, Scheme.of("f32"), !quiet)) {
      int most = loaded.config().maxPositions();
      if (ids.length > most) {
        throw new InvalidArgumentException("--tokens: " + ids.length
            + " tokens given, but the model's context holds " + most);
      }
      int vocabulary = loaded.config().vocabSize();
      try (var session = loaded.newSession(ids.length);
          var logits = Tensor.allocate(DataType.F32, ids.length, vocabulary)) {
        long rowBytes = 4L * vocabulary;
        session.forwardAll(ids, (index, row) ->
            MemorySegment.copy(row, 0, logits.segment(), index * rowBytes, rowBytes));
        write(logits);
      }
      if (!quiet) {
        streams.err().println("Wrote " + out + ": logits F32 [" + ids.length + ", " + vocabulary
            + "], " + loaded.scheme().describe());
      }
    } catch (OutOfMemoryError e) {
      throw new NativeMemoryException("--tokens: " + ids.length + " rows of logits", e);
    }
    return Main.OK;
  }

  private void write(Tensor logits) {
    var entry = new SafetensorsWriter.Entry("logits", DataType.F32, logits.shape());
    try (var writer = SafetensorsWriter.create(out, List.of(entry), Map.of())) {
      writer.write("logits", logits.segment());
      writer.commit();
    }
  }

  private static int[] parse(String text) {
    var parts = text.split(",", -1);
    var ids = new int[parts.length];
    for (int i = 0; i < parts.length; i++) {
      try {
        ids[i] = Integer.parseInt(parts[i].strip());
      } catch (NumberFormatException e) {
        throw new InvalidArgumentException("--tokens: \"" + parts[i]
            + "\" at position " + i + ", expected token ids separated by commas");
      }
    }
    return ids;
  }
}
