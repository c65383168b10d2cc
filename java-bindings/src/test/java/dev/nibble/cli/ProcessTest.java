// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import static org.assertj.core.api.Assertions.assertThat;

import dev.nibble.io.ModelSource;
import dev.nibble.io.Tokenizer;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** What only a process of its own shows: exit codes, closed pipes, Ctrl-C, what reaches stderr. */
@Timeout(120)
class ProcessTest {

  @TempDir private Path directory;

  private CommandLineRun run(ProcessBuilder builder) throws IOException, InterruptedException {
    var out = directory.resolve("out").toFile();
    var err = directory.resolve("err").toFile();
    var process = builder.redirectOutput(out).redirectError(err).start();
    process.getOutputStream().close();
    int code = process.waitFor();
    return new CommandLineRun(code, Files.readString(out.toPath()), Files.readString(err.toPath()));
  }

  @Test
  void aTextHasNothingButItsWordsOnBothStreams() throws Exception {
    var run = run(CommandLineRun.process("generate", "Once upon a time", "-n", "8", "--seed", "1"));
    assertThat(run.err()).isEmpty();
    assertThat(run.out()).isNotBlank();
    assertThat(run.code()).isZero();
  }

  @Test
  void anErrorIsOneLineAndCodeTwo() throws Exception {
    run(CommandLineRun.process("generate", "x", "--model", "/nonexistent"))
        .isRefusedWith("/nonexistent");
    run(CommandLineRun.process("generate", "--sing")).isRefusedWith("--sing");
  }

  @Test
  void textIsUtf8WhateverTheLocale() throws Exception {
    var builder = CommandLineRun.process("generate", "-n", "1", "--quiet", "--stats");
    builder.environment().put("LC_ALL", "C");
    var prompt = directory.resolve("prompt");
    Files.writeString(prompt, "naïve 🐲");
    var err = directory.resolve("err").toFile();
    var process = builder.redirectInput(prompt.toFile()).redirectError(err).start();
    process.getInputStream().readAllBytes();
    assertThat(process.waitFor()).isZero();
    int tokens;
    try (var tokenizer = Tokenizer.load(ModelSource.embedded())) {
      tokens = tokenizer.encode("naïve 🐲").length;
    }
    assertThat(Files.readString(err.toPath())).contains("prompt        " + tokens + " tokens");
  }

  @Test
  void argumentsAreUtf8WhateverTheLocale() throws Exception {
    var builder = new ProcessBuilder();
    // The JVM of this test passes arguments on in its own encoding, so the shell does it here.
    builder.command("sh", "-c", "exec \"$@\" generate \"$(printf 'na\\303\\257ve')\" -n 1 --stats",
        "sh");
    builder.command().addAll(CommandLineRun.process().command());
    builder.environment().put("LC_ALL", "C");
    int tokens;
    try (var tokenizer = Tokenizer.load(ModelSource.embedded())) {
      tokens = tokenizer.encode("naïve").length;
    }
    assertThat(run(builder).err()).contains("prompt        " + tokens + " tokens");
  }

  @Test
  void aClosedPipeEndsQuietly() throws Exception {
    var err = directory.resolve("err");
    var process = CommandLineRun.process("generate", "Once", "-n", "1000", "--seed", "1")
        .redirectError(err.toFile()).start();
    process.getOutputStream().close();
    assertThat(process.getInputStream().read()).isPositive();
    process.getInputStream().close();
    assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
    assertThat(process.exitValue()).isZero();
    assertThat(err).content().isEmpty();
  }

  @Test
  void ctrlCEndsTheLine() throws Exception {
    var err = directory.resolve("err");
    // Enough work that it cannot end by itself before the signal.
    var process = CommandLineRun.process("bench", "--runs", "1000", "--prefill", "1000")
        .redirectError(err.toFile()).start();
    Thread.sleep(1500);
    interrupt(process);
    assertThat(process.waitFor(30, TimeUnit.SECONDS)).isTrue();
    assertThat(process.exitValue()).isEqualTo(130);
    assertThat(err).content().isEmpty();

    var text = CommandLineRun.process("generate", "Once", "-n", "1000", "--seed", "1", "--threads",
        "1", "--scheme", "f32").redirectError(err.toFile()).start();
    text.getOutputStream().close();
    int first = text.getInputStream().read();
    assertThat(first).isPositive();
    interrupt(text);
    var rest = new String(text.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(rest).endsWith("\n");
    assertThat(text.waitFor(30, TimeUnit.SECONDS)).isTrue();
    assertThat(err).content().isEmpty();
  }

  private static void interrupt(Process process) throws Exception {
    new ProcessBuilder("kill", "-INT", String.valueOf(process.pid())).start().waitFor();
  }
}
