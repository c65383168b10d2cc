// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.InternalException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.Json;
import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** The benchmark program {@code llama-bench} of llama.cpp or of a project that descends from it. */
final class LlamaBench {
  private static final int TIMEOUT_MINUTES = 15;

  /** How this build is asked to decode behind a context. */
  private enum Depth { OPTION_D, OPTION_GP, NONE }

  private final Path program;
  private final List<String> more;
  private final Depth depth;

  /** A test to run: prompt tokens or generated tokens, one of them 0, behind so many others. */
  record Test(int prompt, int generate, int depth) {}

  /**
   * Finds the program and asks it for its options.
   *
   * @param name a path, or a name to look for on the PATH
   * @param more further arguments for every run
   * @throws InvalidArgumentException if there is no such program or it is another one
   */
  LlamaBench(String name, List<String> more) {
    this.program = find(name, System.getenv().getOrDefault("PATH", ""));
    this.more = more;
    var help = start(List.of("--help"));
    if (!help.out.contains("--n-prompt") || !help.out.contains("--output")) {
      throw new InvalidArgumentException("--against: " + program + " is not a llama-bench: its"
          + " --help (exit code " + help.code + ") names no --n-prompt or no --output");
    }
    this.depth = help.out.contains("--n-depth") ? Depth.OPTION_D
        : help.out.contains("-gp <") ? Depth.OPTION_GP : Depth.NONE;
  }

  static Path find(String name, String searchPath) {
    if (name.contains("/")) {
      var path = Path.of(name);
      if (!Files.isRegularFile(path)) {
        throw new InvalidArgumentException("--against: " + name + " is not a file");
      }
      if (!Files.isExecutable(path)) {
        throw new InvalidArgumentException("--against: " + name + " may not be executed");
      }
      return path.toAbsolutePath();
    }
    for (var folder : searchPath.split(File.pathSeparator)) {
      var path = Path.of(folder.isEmpty() ? "." : folder, name);
      if (Files.isRegularFile(path) && Files.isExecutable(path)) {
        return path.toAbsolutePath();
      }
    }
    throw new InvalidArgumentException("--against: no " + name + " on the PATH; build llama.cpp's"
        + " target llama-bench, then give its path: --against DIR/llama-bench");
  }

  Path program() {
    return program;
  }

  /** Whether this build can run the test. */
  boolean supports(Test test) {
    return test.depth == 0 || depth == Depth.OPTION_D
        || depth == Depth.OPTION_GP && test.generate > 0;
  }

  /** Runs a test once, after the program's own warm-up; tokens a second. */
  double run(Path model, int threads, Test test) {
    var arguments = new ArrayList<>(List.of("-m", model.toString(), "-t",
        Integer.toString(threads), "-r", "1", "-o", "json"));
    if (test.depth > 0 && depth == Depth.OPTION_GP) {
      arguments.addAll(List.of("-p", "0", "-n", "0", "-gp", test.depth + "," + test.generate));
    } else {
      arguments.addAll(List.of("-p", Integer.toString(test.prompt), "-n",
          Integer.toString(test.generate)));
      if (test.depth > 0) {
        arguments.addAll(List.of("-d", Integer.toString(test.depth)));
      }
    }
    arguments.addAll(more);
    var result = start(arguments);
    if (result.code != 0) {
      throw new UnsupportedException(program + " failed with exit code " + result.code + ": "
          + lastLine(result.err) + " (arguments: " + String.join(" ", arguments) + ")");
    }
    return rate(result.out, test);
  }

  /**
   * The rate of the one result that is the test, in what the program printed: a JSON array of
   * objects, perhaps with lines of other text before it.
   *
   * @throws ModelFormatException saying what is missing or unexpected
   */
  static double rate(String output, Test test) {
    var where = "llama-bench's output";
    int begin = output.startsWith("[") ? 0 : output.indexOf("\n[") + 1;
    int end = output.lastIndexOf(']');
    if (begin == 0 && !output.startsWith("[") || end < begin) {
      throw new ModelFormatException(where + ": no JSON array in \"" + shorten(output) + "\"");
    }
    var value = Json.parse(
        output.substring(begin, end + 1).getBytes(StandardCharsets.UTF_8), where);
    if (!(value instanceof List<?> results)) {
      throw new ModelFormatException(where + ": " + Json.typeName(value) + ", expected an array");
    }
    if (results.size() != 1) {
      throw new ModelFormatException(
          where + ": " + results.size() + " results, expected the one that was asked for");
    }
    var result = Fields.of(where + "[0]", results.getFirst());
    // Without the option for it, a depth is told as the prompt of a test that also generates.
    long depth = result.map().containsKey("n_depth") ? result.integer("n_depth") : 0;
    long prompt = result.integer("n_prompt");
    long generate = result.integer("n_gen");
    boolean plain = prompt == test.prompt && generate == test.generate && depth == test.depth;
    boolean behindPrompt = test.prompt == 0 && depth == 0 && prompt == test.depth
        && generate == test.generate;
    if (!plain && !behindPrompt) {
      throw new ModelFormatException(where + ": prompt " + prompt + ", generated " + generate
          + ", depth " + depth + "; asked for " + test.prompt + ", " + test.generate + ", "
          + test.depth);
    }
    return result.positive("avg_ts");
  }

  private record Ended(int code, String out, String err) {}

  private Ended start(List<String> arguments) {
    var command = new ArrayList<>(List.of(program.toString()));
    command.addAll(arguments);
    Path err = null;
    Path out = null;
    try {
      err = Files.createTempFile("nibble-against", ".err");
      out = Files.createTempFile("nibble-against", ".out");
      var process = new ProcessBuilder(command)
          .redirectOutput(out.toFile()).redirectError(err.toFile()).start();
      process.getOutputStream().close();
      if (!process.waitFor(TIMEOUT_MINUTES, TimeUnit.MINUTES)) {
        process.destroyForcibly().waitFor();
        throw new UnsupportedException(
            program + " did not end within " + TIMEOUT_MINUTES + " minutes");
      }
      return new Ended(process.exitValue(), read(out), read(err));
    } catch (IOException e) {
      throw new InvalidArgumentException(
          "--against: " + program + " cannot be run: " + e.getMessage(), e);
    } catch (InterruptedException e) {
      throw Interrupts.stop(e);
    } finally {
      delete(err);
      delete(out);
    }
  }

  private static String read(Path file) throws IOException {
    return new String(Files.readAllBytes(file), StandardCharsets.UTF_8);
  }

  private static void delete(Path file) {
    try {
      if (file != null) {
        Files.deleteIfExists(file);
      }
    } catch (IOException e) {
      throw new InternalException(file + ": " + e.getMessage(), e);
    }
  }

  private static String lastLine(String text) {
    var lines = text.strip().lines().toList();
    return lines.isEmpty() ? "no message" : shorten(lines.getLast());
  }

  private static String shorten(String text) {
    var line = text.strip().replace('\n', ' ');
    return line.length() <= 200 ? line : line.substring(0, 200) + "...";
  }

  /** For JSON. */
  Map<String, Object> toMap() {
    return Map.of("program", program.getFileName().toString(), "arguments", more);
  }
}
