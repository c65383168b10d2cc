// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import java.util.Locale;

/** What the input of a projection is rounded to, on the fly, inside the library. */
public enum ActivationType {
  /** Nothing: F32. */
  F32(1),
  /** bfloat16. */
  A16(3),
  /** OCP FP8 E4M3 with one F32 scale a token. */
  A8F(4),
  /** INT8 with one F32 scale a token. */
  A8I(9);

  private final int nativeId;

  ActivationType(int nativeId) {
    this.nativeId = nativeId;
  }

  /** The {@code activation} argument of {@code nb_matmul}. */
  public int nativeId() {
    return nativeId;
  }

  /** The name in files and on the command line: {@code a16}, {@code a8f}, ... */
  public String id() {
    return name().toLowerCase(Locale.ROOT);
  }

  /** Whether a kernel multiplies these activations with weights of {@code code}. */
  public boolean hasKernelFor(CodeType code) {
    return this != A8I || code == CodeType.I4 || code == CodeType.I8 || code == CodeType.E2M3;
  }

  /**
   * The type of an {@code --activations} value.
   *
   * @throws InvalidArgumentException naming the values that exist
   */
  public static ActivationType ofOption(String option) {
    for (var type : values()) {
      if (type.id().equals(option)) {
        return type;
      }
    }
    throw new InvalidArgumentException("--activations: unknown type \"" + option
        + "\", expected one of f32, a16, a8f, a8i");
  }
}
