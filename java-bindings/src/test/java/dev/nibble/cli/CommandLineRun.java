// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.net.URISyntaxException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** One run of the command line, in this JVM or in one of its own. */
record CommandLineRun(int code, String out, String err) {

  /** In this JVM, with nothing on standard input. */
  static CommandLineRun of(String... args) {
    return withInput("", args);
  }

  /** In this JVM. */
  static CommandLineRun withInput(String input, String... args) {
    var out = new ByteArrayOutputStream();
    var err = new ByteArrayOutputStream();
    int code = Main.run(args, new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)),
        new PrintStream(out, false, StandardCharsets.UTF_8),
        new PrintStream(err, true, StandardCharsets.UTF_8));
    return new CommandLineRun(code, out.toString(StandardCharsets.UTF_8),
        err.toString(StandardCharsets.UTF_8));
  }

  /** A process of the JVM that runs the tests, with its class path and native library. */
  static ProcessBuilder process(String... args) {
    var command = new ArrayList<>(List.of(
        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
        "--enable-native-access=ALL-UNNAMED", "-cp", System.getProperty("java.class.path")));
    var library = System.getProperty("nibble.library.path");
    if (library != null) {
      command.add("-Dnibble.library.path=" + library);
    }
    command.add("dev.nibble.cli.Main");
    command.addAll(List.of(args));
    return new ProcessBuilder(command);
  }

  /** Exit code 2 and exactly one line on stderr with all the parts; nothing on stdout. */
  CommandLineRun isRefusedWith(String... parts) {
    assertThat(err).startsWith("nibble: ").endsWith("\n").contains(parts);
    assertThat(err.strip()).doesNotContain("\n").doesNotContain("Exception");
    assertThat(out).isEmpty();
    assertThat(code).isEqualTo(2);
    return this;
  }

  CommandLineRun succeeds() {
    assertThat(code).as("%s", err).isZero();
    return this;
  }

  /** A directory or file of the test resources. */
  static Path resource(String name) {
    try {
      return Path.of(CommandLineRun.class.getResource("/" + name).toURI());
    } catch (URISyntaxException e) {
      throw new AssertionError(e);
    }
  }

  /** A copy of a golden model, to be spoilt. */
  static Path copyOfGolden(Path parent) throws IOException {
    var copy = Files.createDirectory(parent.resolve("model"));
    for (var file : List.of("config.json", "model.safetensors")) {
      Files.copy(resource("golden/gqa-tied").resolve(file), copy.resolve(file));
    }
    return copy;
  }
}
