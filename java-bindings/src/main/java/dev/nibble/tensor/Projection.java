// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

/**
 * One product of {@link MatMul}: output = norm(x) * matrix^T + bias + residual.
 *
 * @param matrix [N, K]
 * @param bias F32 [N], or null
 * @param residual F32 [M, N], or null; may be the same memory as output
 * @param output F32 [M, N]; must not overlap x
 */
public record Projection(PackedMatrix matrix, Tensor bias, Tensor residual, Tensor output) {
  /** A product alone. */
  public Projection(PackedMatrix matrix, Tensor output) {
    this(matrix, null, null, output);
  }
}
