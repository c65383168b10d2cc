// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

/** Element types of tensors in safetensors files. */
public enum DataType {
  /** IEEE 754 binary32. */
  F32("F32", 4, 1),
  /** IEEE 754 binary16. */
  F16("F16", 2, 2),
  /** bfloat16, the upper half of binary32. */
  BF16("BF16", 2, 3),
  /** OCP FP8 E4M3 (FN). */
  E4M3("F8_E4M3", 1, 4),
  /** OCP FP8 E5M2. */
  E5M2("F8_E5M2", 1, 5),
  /** Signed bytes. */
  I8("I8", 1, 9),
  /** Signed 32-bit integers. */
  I32("I32", 4, 10),
  /** Unsigned bytes; packed codes. */
  U8("U8", 1, 11),
  /** Booleans, one byte each. */
  BOOL("BOOL", 1, 0),
  /** Signed 16-bit integers. */
  I16("I16", 2, 0),
  /** Unsigned 16-bit integers. */
  U16("U16", 2, 0),
  /** Unsigned 32-bit integers. */
  U32("U32", 4, 0),
  /** Signed 64-bit integers. */
  I64("I64", 8, 0),
  /** Unsigned 64-bit integers. */
  U64("U64", 8, 0),
  /** IEEE 754 binary64. */
  F64("F64", 8, 13);

  private static final DataType[] VALUES = values();

  private final String safetensorsName;
  private final int bytes;
  private final int nativeId;

  DataType(String safetensorsName, int bytes, int nativeId) {
    this.safetensorsName = safetensorsName;
    this.bytes = bytes;
    this.nativeId = nativeId;
  }

  /** The {@code dtype} of a safetensors header. */
  public String safetensorsName() {
    return safetensorsName;
  }

  /** Bytes of one element. */
  public int bytes() {
    return bytes;
  }

  /** The value of {@code nb_dtype}, or 0 where the native library has no such type. */
  public int nativeId() {
    return nativeId;
  }

  /** Whether this is F32, F16 or BF16: what a checkpoint's weights may be. */
  public boolean isFloat() {
    return this == F32 || this == F16 || this == BF16;
  }

  /** The type with that name in a safetensors header, or null if there is none. */
  static DataType ofSafetensorsName(String name) {
    for (var type : VALUES) {
      if (type.safetensorsName.equals(name)) {
        return type;
      }
    }
    return null;
  }

  /** All names, for messages. */
  static String names() {
    var names = new StringBuilder();
    for (var type : VALUES) {
      names.append(names.isEmpty() ? "" : ", ").append(type.safetensorsName);
    }
    return names.toString();
  }
}
