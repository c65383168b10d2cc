// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.PackedMatrix;

/** Where a model's weights come from: a checkpoint, or a random generator. */
interface WeightSource extends AutoCloseable {
  /** The matrix of that name, packed in format; the caller closes it. */
  PackedMatrix matrix(String name, int rows, int cols, WeightFormat format);

  /** The vector of that name, in F32. */
  float[] vector(String name, int size);

  /** Called once, when everything was taken. */
  void finish();

  @Override
  void close();
}
