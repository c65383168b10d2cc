// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * Runs one check of {@link CudaChecks} in a JVM of its own, whose CUDA driver is the emulator: a
 * process chooses its driver once, and the other tests want to see this machine's.
 *
 * <p>The system property {@value #DRIVER} names the emulator, or is {@code device} for this
 * machine's own GPU; without it the checks are skipped.
 */
final class CudaProcess {
  private static final String DRIVER = "nibble.test.cuda.driver";
  private static final String REAL = "device";

  /** Whose PTX the plug-in carries as it ships; the emulator runs no machine code. */
  private static final int SHIPPED_PTX = 89;

  /** Of the emulator: a library beside a plug-in with the PTX of every generation. */
  private static final String LIBRARY_WITH_PTX = "with_ptx/libnibble.so";

  private static final int MINUTES = 8;

  private CudaProcess() {}

  /** The properties that a child needs too. */
  private static final List<String> INHERITED = List.of("nibble.library.path", DRIVER);

  /**
   * Runs the check and expects it to succeed.
   *
   * @param generation of the emulated GPU: 80, 89, 90 or 120
   */
  static void run(int generation, String... check) throws IOException, InterruptedException {
    var driver = System.getProperty(DRIVER, "");
    assumeTrue(!driver.isEmpty(), "the CUDA half is not built here (" + DRIVER + " is not set)");
    var command = new ArrayList<>(List.of(
        Path.of(System.getProperty("java.home"), "bin", "java").toString(), "-Xmx1g", "-esa",
        "-XX:+UseSerialGC", "--enable-native-access=ALL-UNNAMED", "-Dai.djl.offline=true",
        "-cp", System.getProperty("java.class.path")));
    boolean emulated = !driver.equals(REAL);
    var properties = new LinkedHashMap<String, String>();
    for (var name : INHERITED) {
      properties.computeIfAbsent(name, System::getProperty);
    }
    if (emulated && generation != SHIPPED_PTX) {
      properties.put("nibble.library.path",
          Path.of(driver).resolveSibling(LIBRARY_WITH_PTX).toString());
    }
    properties.forEach((name, value) -> command.add("-D" + name + "=" + value));
    command.add(CudaChecks.class.getName());
    command.addAll(List.of(check));
    var builder = new ProcessBuilder(command).redirectErrorStream(true);
    builder.environment().put("RUST_FLAVOR", "cpu"); // the tokenizer's library
    if (emulated) {
      builder.environment().put("NIBBLE_CUDA_DRIVER", driver);
      builder.environment().put("NIBBLE_EMULATED_SM", String.valueOf(generation));
    }
    var process = builder.start();
    var output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor(MINUTES, TimeUnit.MINUTES)).as(output).isTrue();
    assertThat(process.exitValue()).as(output).isZero();
    System.out.print(output);
  }
}
