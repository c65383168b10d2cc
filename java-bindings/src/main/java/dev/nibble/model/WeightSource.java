// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.quantize.Scheme;
import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.PackedMatrix;

/** Where a model's weights come from: a checkpoint, or a random generator. */
interface WeightSource extends AutoCloseable {
  /**
   * The matrix of that name, packed in format, or, where it keeps another format that the
   * checkpoint has, in that; the caller closes it.
   */
  PackedMatrix matrix(String name, int rows, int cols, WeightFormat format);

  /** The vector of that name, in F32. */
  float[] vector(String name, int size);

  /** Called once, when everything was taken. */
  void finish();

  /** The scheme of what was taken, where asked is the one asked for. */
  default Scheme loaded(Scheme asked) {
    return asked;
  }

  @Override
  void close();
}
