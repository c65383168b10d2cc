// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.InternalException;
import dev.nibble.InvalidArgumentException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** The native benchmark: a program built by CMake's target {@code nibble_bench}. */
final class NativeBench {
  private final Path program;
  private final Path shapes;

  /** The program and the list that the launcher names. */
  static NativeBench find() {
    return new NativeBench(property("nibble.bench.native"), property("nibble.bench.shapes"));
  }

  NativeBench(Path program, Path shapes) {
    this.program = program;
    this.shapes = shapes;
    if (!Files.isExecutable(program)) {
      throw new InvalidArgumentException(program + ": not a program; build CMake's target"
          + " nibble_bench, or call ./nibble bench --report, which does");
    }
  }

  private static Path property(String name) {
    var value = System.getProperty(name, "");
    if (value.isEmpty()) {
      throw new InvalidArgumentException(
          name + ": this system property is not set; call ./nibble bench --report, which does");
    }
    return Path.of(value);
  }

  /** Runs it to its end; its messages go to this process's standard error. */
  NativeResults run(List<String> arguments, Path out) {
    var command = command(arguments);
    command.addAll(List.of("--out", out.toString()));
    try {
      int code = new ProcessBuilder(command).inheritIO()
          .redirectOutput(ProcessBuilder.Redirect.DISCARD).start().waitFor();
      if (code != 0) {
        throw new InternalException(program.getFileName() + " failed with exit code " + code);
      }
      return NativeResults.parse(Files.readAllBytes(out), out.toString());
    } catch (IOException e) {
      throw new InternalException(program + ": " + e.getMessage(), e);
    } catch (InterruptedException e) {
      throw Interrupts.stop(e);
    }
  }

  /** Starts a process that decodes on request. */
  Decoder decoder(String model, String scheme, int threads) {
    return new Decoder(command(List.of(
        "--models", model, "--serve", scheme, "--threads", Integer.toString(threads))));
  }

  private ArrayList<String> command(List<String> arguments) {
    var command = new ArrayList<>(List.of(program.toString(), "--shapes", shapes.toString()));
    command.addAll(arguments);
    return command;
  }

  /** A native process with a model in memory; it waits without using the processor. */
  static final class Decoder implements AutoCloseable {
    private final Process process;
    private final BufferedReader out;
    private final Writer in;

    private Decoder(List<String> command) {
      try {
        process = new ProcessBuilder(command)
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        out = process.inputReader(StandardCharsets.UTF_8);
        in = process.outputWriter(StandardCharsets.UTF_8);
        answer().flag("ready");
      } catch (IOException e) {
        throw new InternalException(command.getFirst() + ": " + e.getMessage(), e);
      }
    }

    /** Tokens a second of decoding that many from an empty cache. */
    double decode(int tokens) {
      try {
        in.write("decode " + tokens + "\n");
        in.flush();
        var answer = answer();
        return answer.integer("tokens") / answer.positive("seconds");
      } catch (IOException e) {
        throw new InternalException("nibble_bench --serve: " + e.getMessage(), e);
      }
    }

    private Fields answer() throws IOException {
      var line = out.readLine();
      if (line == null) {
        throw new InternalException("nibble_bench --serve ended before its answer");
      }
      return Fields.parse(line.getBytes(StandardCharsets.UTF_8), "nibble_bench --serve");
    }

    @Override
    public void close() {
      process.destroy();
      try {
        process.waitFor();
      } catch (InterruptedException e) {
        throw Interrupts.stop(e);
      }
    }
  }
}
