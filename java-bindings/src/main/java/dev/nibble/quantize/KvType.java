// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import java.util.Locale;

/** How keys and values are kept: the {@code type} of {@code nb_kv_cache_options}. */
public enum KvType {
  /** 32-bit floats. */
  F32(1),
  /** bfloat16. */
  KV16(3),
  /** INT8 with an F32 scale per token and head. */
  KV8(9),
  /** INT4 with E4M3 scales per token, head and group (FireQ, arXiv 2505.20839). */
  KV4(8);

  private final int nativeId;

  KvType(int nativeId) {
    this.nativeId = nativeId;
  }

  /** The value of {@code nb_dtype}. */
  public int nativeId() {
    return nativeId;
  }

  /** The name in files and on the command line: {@code kv16}, {@code kv8}, ... */
  public String id() {
    return name().toLowerCase(Locale.ROOT);
  }

  /**
   * The type of a {@code --kv} value.
   *
   * @throws InvalidArgumentException naming the values that exist
   */
  public static KvType ofOption(String option) {
    for (var type : values()) {
      if (type.id().equals(option)) {
        return type;
      }
    }
    throw new InvalidArgumentException(
        "--kv: unknown type \"" + option + "\", expected one of f32, kv16, kv8, kv4");
  }
}
