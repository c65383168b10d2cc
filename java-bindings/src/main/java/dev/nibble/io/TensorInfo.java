// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ModelFormatException;
import java.util.Arrays;

/**
 * One tensor of a {@link TensorStore}, as its file's header describes it, checked.
 *
 * @param name the tensor's name
 * @param dataType the type of its elements
 * @param shape its dimensions, outermost first, each at least 0; empty for a scalar
 * @param file the file that holds it, for messages
 * @param offset where its bytes begin in that file
 * @param byteLength their number: the product of the shape times the size of an element
 */
public record TensorInfo(
    String name, DataType dataType, long[] shape, String file, long offset, long byteLength) {

  /** Copies the shape. */
  public TensorInfo {
    shape = shape.clone();
  }

  /** A copy of the dimensions. */
  @Override
  public long[] shape() {
    return shape.clone();
  }

  /** Number of dimensions. */
  public int rank() {
    return shape.length;
  }

  /** Size of dimension {@code axis}, from 0 for the outermost. */
  public long dim(int axis) {
    return shape[axis];
  }

  /** Number of elements. */
  public long elements() {
    return byteLength / dataType.bytes();
  }

  /** The shape for messages: {@code [4096, 256]}. */
  public String shapeText() {
    return Arrays.toString(shape);
  }

  /** An exception that names the file and this tensor: {@code FILE: tensor "NAME": MESSAGE}. */
  public ModelFormatException problem(String message) {
    return Problem.inTensor(file, name, message);
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof TensorInfo that
        && name.equals(that.name) && dataType == that.dataType && Arrays.equals(shape, that.shape)
        && file.equals(that.file) && offset == that.offset && byteLength == that.byteLength;
  }

  @Override
  public int hashCode() {
    return name.hashCode() * 31 + Arrays.hashCode(shape);
  }

  @Override
  public String toString() {
    return name + " " + dataType.safetensorsName() + " " + shapeText();
  }
}
