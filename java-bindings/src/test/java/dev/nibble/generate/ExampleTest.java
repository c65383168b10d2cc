// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import static org.assertj.core.api.Assertions.assertThat;

import dev.nibble.io.ModelSource;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The example that the documentation shows, as it stands there. */
class ExampleTest {
  @TempDir static java.nio.file.Path directory;

  /** Stands for {@code java.nio.file.Path} in the example: the same name, in a test's directory. */
  private static final class Path {
    static java.nio.file.Path of(String name) {
      return directory.resolve(name);
    }
  }

  private static void example() {
    try (var model = LlamaModel.load(Path.of("fable-4m"), LoadOptions.defaults());
         var session = model.newSession()) {
      session.generate("Once upon a time", Sampler.topP(0.9f, 0.8f, 42),
                       text -> { System.out.print(text); return true; }, 200);
    }
  }

  @Test
  void streamsText() throws Exception {
    try (var source = ModelSource.embedded()) {
      var model = Files.createDirectory(directory.resolve("fable-4m"));
      for (var file : new String[] {"config.json", "tokenizer.json", "model.safetensors"}) {
        Files.write(model.resolve(file), source.read(file));
      }
    }
    var bytes = new ByteArrayOutputStream();
    var console = System.out;
    System.setOut(new PrintStream(bytes, true, StandardCharsets.UTF_8));
    try {
      example();
    } finally {
      System.setOut(console);
    }
    assertThat(bytes.toString(StandardCharsets.UTF_8).split(" ")).hasSizeGreaterThan(20);
  }
}
