// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import dev.nibble.generate.Sampler;
import dev.nibble.model.Generation;
import dev.nibble.model.LlamaModel;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code nibble generate}. */
@Command(name = "generate", sortOptions = false,
    description = "Continue a text. The continuation streams to standard output.",
    footer = {
      "",
      "The same prompt, options and --seed give the same text on the same machine. Standard",
      "output is the generated text alone; on a terminal the prompt stands before it."
    })
final class GenerateCommand implements Callable<Integer> {

  /** Longest prompt read from standard input. */
  private static final int MAX_PROMPT_BYTES = 16 << 20;

  private final Streams streams;

  @Parameters(index = "0", arity = "0..1", paramLabel = "PROMPT",
      description = "The text to continue (default: standard input, UTF-8).")
  private String prompt;

  @Option(names = {"-n", "--max-tokens"}, paramLabel = "N", defaultValue = "200", order = 1,
      description = "Write at most N tokens (default: ${DEFAULT-VALUE}).")
  private int maxTokens;

  @Option(names = "--temperature", paramLabel = "T", defaultValue = "0.8", order = 2,
      description = "0 always takes the likeliest token, 1 is the model's own distribution"
          + " (default: ${DEFAULT-VALUE}).")
  private float temperature;

  @Option(names = "--top-k", paramLabel = "K", defaultValue = "0", order = 3,
      description = "Choose among the K likeliest tokens; 0 for all (default: ${DEFAULT-VALUE}).")
  private int topK;

  @Option(names = "--top-p", paramLabel = "P", defaultValue = "0.9", order = 4,
      description = "Choose among the likeliest tokens that together have probability P"
          + " (default: ${DEFAULT-VALUE}).")
  private float topP;

  @Option(names = "--min-p", paramLabel = "P", defaultValue = "0", order = 5,
      description = "Drop tokens less likely than P times the likeliest"
          + " (default: ${DEFAULT-VALUE}).")
  private float minP;

  @Option(names = "--repeat-penalty", paramLabel = "R", defaultValue = "1", order = 6,
      description = "Make recent tokens less likely; 1 for no change"
          + " (default: ${DEFAULT-VALUE}).")
  private float repeatPenalty;

  @Option(names = "--seed", paramLabel = "N", order = 7,
      description = "Seed of the random choices (default: another one each time).")
  private Long seed;

  @Option(names = "--context", paramLabel = "N", order = 8,
      description = "Tokens the context holds (default: what prompt and -n need, at most the"
          + " model's limit).")
  private Integer context;

  @Mixin
  private ModelOptions model;

  @Option(names = "--stats", order = 40,
      description = "Print time to first token and tokens/s to standard error.")
  private boolean stats;

  @Option(names = "--quiet", order = 41,
      description = "Print the generated text and errors only, on a terminal too.")
  private boolean quiet;

  @Mixin
  private CommonOptions common;

  GenerateCommand(Streams streams) {
    this.streams = streams;
  }

  @Override
  public Integer call() throws IOException {
    if (maxTokens < 0) {
      throw new InvalidArgumentException("-n: " + maxTokens + " given, expected 0 or more");
    }
    long chosenSeed = seed != null ? seed : System.nanoTime();
    var sampler = Sampler.builder().temperature(temperature).topK(topK).topP(topP).minP(minP)
        .repeatPenalty(repeatPenalty).seed(chosenSeed).build();
    var text = prompt != null ? prompt : readPrompt();
    try (var loaded = model.load(streams, null, !quiet); var interrupt = new Interrupt()) {
      var tokenizer = loaded.tokenizer().orElseThrow(() -> new UnsupportedException(
          loaded.name() + ": has no tokenizer.json, so there is no text to generate"));
      var tokens = tokenizer.encode(text);
      if (!quiet && Terminal.isOutput()) {
        streams.out().print(text);
        streams.out().flush();
      }
      var output = new Output(interrupt);
      Generation generation;
      try (var session = loaded.newSession(capacity(loaded, tokens.length))) {
        generation = session.generate(tokens, sampler, output::accept, maxTokens);
      }
      output.end();
      if (stats) {
        printStats(loaded, generation, output, chosenSeed);
      }
    }
    return Main.OK;
  }

  private String readPrompt() throws IOException {
    if (Terminal.isInput() && !quiet) {
      streams.err().println("Reading the prompt from the terminal, up to Ctrl-D.");
    }
    var bytes = streams.in().readNBytes(MAX_PROMPT_BYTES + 1);
    if (bytes.length > MAX_PROMPT_BYTES) {
      throw new InvalidArgumentException(
          "standard input: longer than " + MAX_PROMPT_BYTES + " bytes, expected a prompt");
    }
    try {
      var text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
      // The line feed that echo and editors put at the end is not part of the prompt.
      return text.endsWith("\n") ? text.substring(0, text.length() - 1) : text;
    } catch (CharacterCodingException e) {
      throw new InvalidArgumentException("standard input: not UTF-8 text", e);
    }
  }

  private int capacity(LlamaModel loaded, int promptTokens) {
    if (context != null) {
      if (context < 1 || context > loaded.config().maxPositions()) {
        throw new InvalidArgumentException("--context: " + context + " given, expected 1 to "
            + loaded.config().maxPositions() + ", the model's max_position_embeddings");
      }
      return context;
    }
    long wanted = Math.max(1L, promptTokens) + maxTokens;
    return (int) Math.min(wanted, loaded.config().maxPositions());
  }

  private void printStats(
      LlamaModel loaded, Generation generation, Output output, long chosenSeed) {
    var err = streams.err();
    err.printf(Locale.ROOT, "%s, %s%n", loaded.name(), loaded.scheme().describe());
    err.printf(Locale.ROOT, "prompt        %d tokens, %.1f tokens/s%n", generation.promptTokens(),
        generation.prefillTokensPerSecond());
    err.printf(Locale.ROOT, "first token   %.3f s after the prompt was read%s%n",
        generation.firstTokenSeconds(),
        sinceStart(output));
    err.printf(Locale.ROOT, "generated     %d tokens, %.1f tokens/s (%s)%n",
        generation.generatedTokens(), generation.decodeTokensPerSecond(),
        generation.reason().name().toLowerCase(Locale.ROOT).replace('_', ' '));
    err.printf(Locale.ROOT, "threads       %d%n", loaded.context().threads());
    err.printf(Locale.ROOT, "seed          %d%n", chosenSeed);
  }

  /** When the first text came out, counted from the start of the process; Linux only. */
  private static String sinceStart(Output output) {
    try {
      long now = System.nanoTime();
      var uptime = Files.readString(Path.of("/proc/uptime"));
      var stat = Files.readString(Path.of("/proc/self/stat"));
      // The name in field 2 may hold blanks; field 22 is the start in hundredths since boot.
      var fields = stat.substring(stat.lastIndexOf(')') + 2).split(" ");
      double alive = Double.parseDouble(uptime.substring(0, uptime.indexOf(' ')))
          - Long.parseLong(fields[22 - 3]) / 100.0;
      return output.firstNanos == 0 ? "" : String.format(Locale.ROOT,
          ", %.2f s after the start of the process", alive - (now - output.firstNanos) / 1e9);
    } catch (IOException | RuntimeException e) {
      return "";
    }
  }

  /** Writes each piece of text at once; ends the generation when nobody reads it any more. */
  private final class Output {
    private final Interrupt interrupt;
    private long firstNanos;
    private boolean endsLine = true;

    Output(Interrupt interrupt) {
      this.interrupt = interrupt;
    }

    boolean accept(String text) {
      if (firstNanos == 0) {
        firstNanos = System.nanoTime();
      }
      endsLine = text.endsWith("\n");
      streams.out().print(text);
      streams.out().flush();
      return !streams.out().checkError() && !interrupt.requested();
    }

    void end() {
      if (!endsLine || firstNanos == 0) {
        streams.out().println();
      }
      streams.out().flush();
    }
  }
}
