// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cuda;

import java.io.IOException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The whole of Nibble on a GPU, emulated where there is none: see {@link CudaChecks}. */
class CudaTest {

  @ParameterizedTest
  @ValueSource(strings = {"f32", "bf16", "w4a8", "w4a8i", "w6a16", "w6a8", "w8a8"})
  void forwardPassOfEveryScheme(String scheme) throws IOException, InterruptedException {
    CudaProcess.run(89, "forward", scheme, "64");
  }

  @ParameterizedTest
  @CsvSource({"80, w4a8", "90, w4a8", "120, w4a8", "80, w6a8", "120, w6a8"})
  void forwardPassOfOtherGenerations(int generation, String scheme)
      throws IOException, InterruptedException {
    CudaProcess.run(generation, "forward", scheme, "24");
  }

  @Test
  void decodingByGraphsGivesTheLogitsOfTheWholeText() throws IOException, InterruptedException {
    CudaProcess.run(89, "decode", "f32");
  }

  @Test
  void theDeviceChoosesWhatTheSamplerChooses() throws IOException, InterruptedException {
    CudaProcess.run(89, "generate", "w4a8");
  }

  @Test
  void sessionsAreIndependent() throws IOException, InterruptedException {
    CudaProcess.run(89, "sessions", "bf16");
  }

  @Test
  void tensorsOnTheDevice() throws IOException, InterruptedException {
    CudaProcess.run(89, "tensors");
  }

  @Test
  void commandLine() throws IOException, InterruptedException {
    CudaProcess.run(89, "commands");
  }
}
