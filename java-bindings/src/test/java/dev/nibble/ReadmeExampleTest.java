// SPDX-License-Identifier: Apache-2.0
package dev.nibble;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.File;
import java.io.IOException;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/**
 * Compiles and runs the README's first Java example, as it stands there, in a directory that also
 * holds the model as {@code fable-4m}.
 */
@Timeout(180)
class ReadmeExampleTest {

  private static final Pattern CLASS = Pattern.compile("public (?:final )?class (\\w+)");

  @TempDir private Path directory;

  @Test
  void theFirstExampleRuns() throws Exception {
    var example = firstJavaBlock(readme());
    assertThat(example.lines().count()).as("lines").isLessThanOrEqualTo(15);
    var matcher = CLASS.matcher(example);
    var name = matcher.find() ? matcher.group(1) : "Example";
    var source = Files.writeString(directory.resolve(name + ".java"), example);
    copyModel();

    var messages = new StringWriter();
    var compiler = ToolProvider.getSystemJavaCompiler();
    var files = compiler.getStandardFileManager(null, null, null);
    boolean compiled = compiler.getTask(messages, files, null,
        List.of("-proc:none", "-Xlint:all", "-d", directory.toString(), "-cp", classPath()), null,
        files.getJavaFileObjects(source)).call();
    assertThat(compiled).as("%s", messages).isTrue();
    assertThat(messages.toString()).as("warnings").isEmpty();

    var out = directory.resolve("stdout").toFile();
    var err = directory.resolve("stderr").toFile();
    var process = new ProcessBuilder(command(name)).directory(directory.toFile())
        .redirectOutput(out).redirectError(err).start();
    process.getOutputStream().close();
    assertThat(process.waitFor()).as("%s", Files.readString(err.toPath())).isZero();
    assertThat(err).isEmpty();
    assertThat(Files.readString(out.toPath()).split("\\s+")).hasSizeGreaterThan(20);
  }

  private List<String> command(String name) {
    var command = new ArrayList<>(List.of(
        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
        "--enable-native-access=ALL-UNNAMED", "-cp", directory + File.pathSeparator + classPath()));
    var library = System.getProperty("nibble.library.path");
    if (library != null) {
      command.add("-Dnibble.library.path=" + library);
    }
    command.add(name);
    return command;
  }

  private static String classPath() {
    return System.getProperty("java.class.path");
  }

  /** In the working directory (a module's, or the repository's) or above it. */
  private static String readme() throws IOException {
    for (var folder = Path.of("").toAbsolutePath(); folder != null; folder = folder.getParent()) {
      if (Files.exists(folder.resolve("README.md"))
          && Files.exists(folder.resolve("java-bindings"))) {
        return Files.readString(folder.resolve("README.md"));
      }
    }
    throw new AssertionError("no README.md beside java-bindings, in or above the working directory");
  }

  private static String firstJavaBlock(String readme) {
    int start = readme.indexOf("```java\n");
    assertThat(start).as("a ```java block in README.md").isNotNegative();
    start += "```java\n".length();
    return readme.substring(start, readme.indexOf("```", start));
  }

  private void copyModel() throws Exception {
    var model = Files.createDirectory(directory.resolve("fable-4m"));
    for (var file : List.of("config.json", "model.safetensors", "tokenizer.json")) {
      try (var stream = getClass().getResourceAsStream("/dev/nibble/models/fable-4m/" + file)) {
        Files.copy(stream, model.resolve(file));
      }
    }
  }
}
