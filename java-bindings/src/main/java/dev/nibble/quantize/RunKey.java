// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.io.CheckpointNames;
import dev.nibble.io.ModelSource;
import dev.nibble.io.TensorStore;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/** What a run depends on, as a digest: the same key, the same result. */
final class RunKey {
  /** To be raised when the same recipe comes to give other bits. */
  private static final String VERSION = "2";

  private RunKey() {}

  static String of(
      ModelSource in, TensorStore store, Recipe recipe, Calibration calibration) {
    try {
      var digest = MessageDigest.getInstance("SHA-256");
      digest.update((VERSION + '\n' + recipe + '\n').getBytes(StandardCharsets.UTF_8));
      digest.update(calibration.fingerprint());
      digest.update(in.read(CheckpointNames.CONFIG));
      // Tensors that are in no file are in memory, and few.
      digest.update(store.fingerprint().orElseGet(() -> in.read(CheckpointNames.WEIGHTS)));
      return HexFormat.of().formatHex(digest.digest());
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError("every Java platform has SHA-256", e);
    }
  }
}
