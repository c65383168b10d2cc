// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.model.LlamaConfig;

/** Whether a calibration fits a model. */
final class CalibrationCheck {

  private CalibrationCheck() {}

  /**
   * Checks lengths and token ids.
   *
   * @throws InvalidArgumentException naming the window and the token
   */
  static void check(Calibration calibration, LlamaConfig config) {
    if (calibration.windowTokens() > config.maxPositions()) {
      throw new InvalidArgumentException("calibration: windows of " + calibration.windowTokens()
          + " tokens given, expected at most " + config.maxPositions()
          + ", the model's max_position_embeddings");
    }
    for (int i = 0; i < calibration.windows(); i++) {
      for (int token : calibration.window(i)) {
        if (token < 0 || token >= config.vocabSize()) {
          throw new InvalidArgumentException("calibration: window " + i + " has token " + token
              + ", expected 0 to " + (config.vocabSize() - 1));
        }
      }
    }
  }
}
