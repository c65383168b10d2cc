// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import org.junit.jupiter.api.Test;

/** What the source tree's launcher does with bench/ is beyond the jar, which says so. */
class BenchModuleOptionsTest {

  @Test
  void theJarNamesTheLauncher() {
    CommandLineRun.of("bench", "--report")
        .isRefusedWith("--report: not in this jar", "./nibble");
    CommandLineRun.of("bench", "--against")
        .isRefusedWith("--against: not in this jar", "./nibble");
    CommandLineRun.of("bench", "--against", "DIR/llama-bench")
        .isRefusedWith("--against: not in this jar");
  }
}
