// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.UnsupportedException;
import java.io.File;
import java.io.IOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Loading the library: from the jar, from a path, and what is said when there is none. */
class NativeLibraryTest {
  @TempDir Path directory;

  /** Run in a JVM of its own, since a process loads the library once. */
  public static final class Probe {
    public static void main(String[] arguments) {
      try {
        System.out.println("version " + NativeLibrary.version() + " from "
            + NativeLibrary.origin());
      } catch (UnsupportedException e) {
        System.out.println("refused: " + e.getMessage());
        try {
          NativeLibrary.load();
        } catch (UnsupportedException again) {
          System.out.println("again: " + again.getMessage());
        }
      }
    }
  }

  private List<String> probe(String... jvmArguments) throws IOException, InterruptedException {
    var command = new ArrayList<>(List.of(
        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
        "--enable-native-access=ALL-UNNAMED", "-Djava.io.tmpdir=" + directory,
        "-cp", placeOf(Probe.class) + File.pathSeparator + placeOf(NativeLibrary.class)));
    command.addAll(List.of(jvmArguments));
    command.add(Probe.class.getName());
    var builder = new ProcessBuilder(command).redirectErrorStream(true);
    builder.environment().remove(NativeLibrary.PATH_VARIABLE);
    var process = builder.start();
    var output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
    return output.lines().toList();
  }

  /** The folder or jar that a class was loaded from. */
  private static Path placeOf(Class<?> type) {
    return Path.of(URI.create(
        type.getProtectionDomain().getCodeSource().getLocation().toString()));
  }

  @Test
  void tellsAboutItself() {
    assertThat(NativeLibrary.version()).matches("\\d+\\.\\d+\\.\\d+");
    assertThat(NativeLibrary.abiVersion()).isEqualTo(1);
    assertThat(NativeLibrary.simdTargets()).contains(NativeLibrary.simdTarget());
    assertThat(NativeLibrary.availableThreads()).isBetween(1, 100_000);
    assertThat(NativeLibrary.deviceProblem("cpu")).isEmpty();
    assertThat(NativeLibrary.deviceProblem("cuda:99")).isPresent();
  }

  @Test
  void jarsLibraryIsUnpackedAndNothingIsLeft() throws Exception {
    var lines = probe();
    var entry = "META-INF/native/" + BundledLibrary.platform() + "/libnibble.so";
    if (NativeLibrary.class.getResource("/" + entry) == null) {
      assertThat(lines.getFirst()).startsWith("refused: no native library for")
          .contains(NativeLibrary.PATH_PROPERTY, NativeLibrary.PATH_VARIABLE);
      return;
    }
    assertThat(lines).hasSize(1);
    assertThat(lines.getFirst()).startsWith("version ").endsWith("from " + entry);
    try (var left = Files.list(directory)) {
      assertThat(left.map(Path::getFileName).map(Path::toString)
          .filter(name -> name.startsWith("nibble-"))).isEmpty();
    }
  }

  @Test
  void wrongPathNamesThePropertyAndIsRememberedAsWrong() throws Exception {
    var lines = probe("-D" + NativeLibrary.PATH_PROPERTY + "=/nowhere/libnibble.so");
    assertThat(lines).hasSize(2);
    assertThat(lines.get(0)).isEqualTo("refused: system property nibble.library.path:"
        + " /nowhere/libnibble.so is not a file, expected the path of libnibble.so itself");
    assertThat(lines.get(1)).startsWith("again: system property nibble.library.path");
  }

  @Test
  void fileThatIsNoLibraryIsRefused() throws Exception {
    var file = Files.writeString(directory.resolve("libnibble.so"), "not a library");
    var lines = probe("-D" + NativeLibrary.PATH_PROPERTY + "=" + file);
    // The JVM may add a warning of its own.
    assertThat(lines).anyMatch(
        line -> line.startsWith("refused: system property nibble.library.path"));
  }

  @Test
  void checksumIsVerified() {
    var bytes = "abc".getBytes(StandardCharsets.US_ASCII);
    var sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assertThatCode(() -> BundledLibrary.checkSum("x.so", bytes, sum + "  x.so\n"))
        .doesNotThrowAnyException();
    assertThatThrownBy(() -> BundledLibrary.checkSum("x.so", bytes, "00" + sum.substring(2)))
        .isInstanceOf(UnsupportedException.class).hasMessageContaining("SHA-256")
        .hasMessageContaining(NativeLibrary.PATH_PROPERTY);
  }
}
