// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import static org.assertj.core.api.Assertions.assertThat;

import dev.nibble.io.ModelSource;
import dev.nibble.quantize.Recipe;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/** {@code nibble quantize} with recipes that look at activations. */
class QuantizeCommandTest {

  @TempDir private Path directory;

  /** The built-in model as a directory. */
  private Path fable() throws IOException {
    var copy = Files.createDirectory(directory.resolve("fable"));
    try (var source = ModelSource.embedded()) {
      for (var file : List.of("config.json", "model.safetensors", "tokenizer.json")) {
        Files.write(copy.resolve(file), source.read(file));
      }
    }
    return copy;
  }

  private Path text(int words) throws IOException {
    return Files.writeString(directory.resolve("text.txt"),
        "Once upon a time there was a king who had three sons. ".repeat(words));
  }

  @Test
  void aModelCalibratedOnATextLoadsWithoutFurtherAdo() throws IOException {
    var in = fable().toString();
    var out = directory.resolve("out");
    var run = CommandLineRun.of("quantize", "--scheme", "fireq", "--calibration",
        text(200).toString(), "--calibration-tokens", "1024", "--threads", "2", in,
        out.toString()).succeeds();
    assertThat(run.out()).isEmpty();
    assertThat(run.err()).contains("Wrote " + out + ", fireq: w4a8");
    var generated = CommandLineRun.of("generate", "--model", out.toString(), "-n", "4",
        "--temperature", "0", "--threads", "2", "Once upon a time").succeeds();
    assertThat(generated.out()).isNotBlank();
    CommandLineRun.of("quantize", "--scheme", "fireq", in, out.toString())
        .isRefusedWith(out.toString(), "not empty");
  }

  @Test
  void mixedPrecisionStaysWithinItsBudgetAndLoads() throws IOException {
    var in = fable().toString();
    var out = directory.resolve("out").toString();
    var mixed = new String[] {"quantize", "--scheme", "mixed", "--bits", "4.6", "--calibration",
        text(60).toString(), "--calibration-tokens", "512", "--threads", "2", in, out};
    var run = CommandLineRun.of(mixed).succeeds();
    assertThat(run.err()).contains("layers.0.mlp.down_proj", "bits a weight", "mixed-4.6");
    assertThat(Files.readString(directory.resolve("out/config.json"))).contains("exceptions");
    CommandLineRun.of("generate", "--model", out, "-n", "2", "Once").succeeds();
    CommandLineRun.of("quantize", "--scheme", "w4a8", "--bits", "5", in, out + "2")
        .isRefusedWith("--bits", "mixed");
    mixed[4] = "3";
    mixed[mixed.length - 1] = out + "3";
    CommandLineRun.of(mixed).isRefusedWith("3.0", "at least 4.");
  }

  @Test
  void withoutATextTheModelWritesOne() throws IOException {
    var out = directory.resolve("out");
    CommandLineRun.of("quantize", "--scheme", "fireq+gptq", "--calibration-tokens", "512",
        "--kv", "kv4", "--threads", "2", "--quiet", fable().toString(), out.toString()).succeeds();
    assertThat(Files.readString(out.resolve("config.json"), StandardCharsets.UTF_8))
        .contains("quantization_config");
  }

  /**
   * A limit on the size of files stands for a full disk: the shell's unit is 512 or 1024 bytes, and
   * what a run keeps of its work (half a megabyte) fits within it where the result (2.7) does not.
   */
  @Test
  @EnabledOnOs(OS.LINUX)
  void aFullDiskIsOneLineAndLosesNothing() throws Exception {
    var in = fable();
    Files.delete(in.resolve("tokenizer.json")); // its library may unpack itself
    var library = directory.resolve("libnibble.so"); // unpacked here, where no limit is
    var architecture = System.getProperty("os.arch").replace("amd64", "x86_64");
    try (var resource = getClass().getResourceAsStream(
        "/META-INF/native/linux-" + architecture + "/libnibble.so")) {
      Files.write(library, resource.readAllBytes());
    }
    var out = directory.resolve("out");
    for (var scheme : List.of("w4a8", "fireq")) {
      var arguments = List.of("quantize", "--quiet", "--scheme", scheme, "--calibration-tokens",
          "512", "--threads", "2", in.toString(), out.toString());
      var builder = new ProcessBuilder("sh", "-c", "ulimit -f 1500; exec \"$@\"", "sh");
      builder.command().addAll(
          CommandLineRun.process(arguments.toArray(String[]::new)).command());
      int java = builder.command().indexOf("dev.nibble.cli.Main");
      builder.command().add(java, "-Dnibble.library.path=" + library);
      builder.command().add(java, "-XX:-UsePerfData");
      run(builder).isRefusedWith(
          out.resolve("model.safetensors") + ": cannot be written: File too large");
      assertThat(out).doesNotExist();
      assertThat(directory.resolve(".out.quantizing").toFile().exists())
          .isEqualTo(scheme.equals("fireq"));
      // With room it goes on from where it was.
      var again = new ArrayList<>(arguments);
      again.remove("--quiet");
      var run = CommandLineRun.of(again.toArray(String[]::new)).succeeds();
      assertThat(run.err().contains("Resuming an interrupted run: 4 of 4 layers are done"))
          .isEqualTo(scheme.equals("fireq"));
      try (var files = Files.list(directory)) {
        assertThat(files.map(file -> file.getFileName().toString()))
            .noneMatch(name -> name.startsWith("."));
      }
      try (var files = Files.list(out)) {
        for (var file : files.toList()) {
          Files.delete(file);
        }
      }
      Files.delete(out);
    }
  }

  private CommandLineRun run(ProcessBuilder builder) throws Exception {
    var stdout = directory.resolve("stdout").toFile();
    var stderr = directory.resolve("stderr").toFile();
    var process = builder.redirectOutput(stdout).redirectError(stderr).start();
    process.getOutputStream().close();
    int code = process.waitFor();
    return new CommandLineRun(
        code, Files.readString(stdout.toPath()), Files.readString(stderr.toPath()));
  }

  @Test
  void badInputIsOneLine() throws IOException {
    var in = fable().toString();
    var out = directory.resolve("out").toString();
    var shortText = text(3).toString();
    CommandLineRun.of("quantize", "--scheme", "fireq", "--calibration", shortText, in, out)
        .isRefusedWith(shortText, "at least one window of 512");
    CommandLineRun.of("quantize", "--scheme", "fireq", "--calibration", "/nonexistent", in, out)
        .isRefusedWith("/nonexistent: no such file");
    CommandLineRun.of("quantize", "--scheme", "fireq", "--calibration-tokens", "5", in, out)
        .isRefusedWith("5 given", "one window of 512");
    CommandLineRun.of("quantize", "--scheme", "fireq5", in, out)
        .isRefusedWith("\"fireq5\"", Recipe.names().getLast());
    CommandLineRun.of("quantize", "--scheme", "w8a8+gptq", in, out)
        .isRefusedWith("gptq is for 4-bit weights");
    CommandLineRun.of("quantize", "--scheme", "fireq", "--kv", "kv8", in, out)
        .isRefusedWith("4-bit cache");
    var config = Path.of(in, "config.json");
    Files.writeString(config, Files.readString(config).replace("\"silu\"", "\"gelu\""));
    CommandLineRun.of("quantize", "--scheme", "fireq", in, out)
        .isRefusedWith("hidden_act", "gelu");
    assertThat(Path.of(out)).doesNotExist();
  }
}
