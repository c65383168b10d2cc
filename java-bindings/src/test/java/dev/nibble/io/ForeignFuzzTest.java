// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import com.code_intelligence.jazzer.junit.FuzzTest;

/**
 * Jazzer against the readers of other projects' files ({@link ForeignTargets}). As a plain test it
 * goes through the corpus in the test resources, which {@link ForeignSeeds} made; {@code mvn test
 * -Dnibble.fuzz -Dtest='ForeignFuzzTest#gguf'} looks for new inputs, for a minute a test.
 */
class ForeignFuzzTest {
  private static final ForeignTargets TARGETS = new ForeignTargets();

  @FuzzTest(maxDuration = "1m")
  void gguf(byte[] bytes) {
    TARGETS.gguf(bytes);
  }

  @FuzzTest(maxDuration = "1m")
  void packed(byte[] bytes) {
    TARGETS.packed(bytes);
  }
}
