// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * What {@code quantization_config} says of a checkpoint that compressed-tensors, AWQ or GPTQ made.
 *
 * @param method who made it
 * @param groupSize columns of a group; 0 where only the scales' shape tells
 * @param zeroOffset what is added to a stored zero: 1 in the first version of GPTQ's format
 */
record ForeignConfig(Method method, int groupSize, int zeroOffset) {

  /** The methods, and the names of a weight's parts in place of {@code .weight}. */
  enum Method {
    COMPRESSED_TENSORS("compressed-tensors", ZeroPointMatrix.Layout.ROWS, ".weight_packed",
        ".weight_zero_point", ".weight_scale", ".weight_g_idx"),
    AWQ("awq", ZeroPointMatrix.Layout.AWQ, ".qweight", ".qzeros", ".scales", ".g_idx"),
    GPTQ("gptq", ZeroPointMatrix.Layout.GPTQ, ".qweight", ".qzeros", ".scales", ".g_idx");

    private final String id;
    private final ZeroPointMatrix.Layout layout;
    private final List<String> parts;

    Method(String id, ZeroPointMatrix.Layout layout, String... parts) {
      this.id = id;
      this.layout = layout;
      this.parts = List.of(parts);
    }

    /** For people. */
    String title() {
      return this == COMPRESSED_TENSORS ? id : id.toUpperCase(Locale.ROOT);
    }

    ZeroPointMatrix.Layout layout() {
      return layout;
    }

    List<String> parts() {
      return parts;
    }

    String codes() {
      return parts.get(0);
    }

    String zeros() {
      return parts.get(1);
    }

    String scales() {
      return parts.get(2);
    }

    /** The group of each column. */
    String order() {
      return parts.get(3);
    }
  }

  private static final String KEY = CheckpointNames.QUANTIZATION_CONFIG;
  private static final int BITS = 4;

  /**
   * Reads it.
   *
   * @param config the whole {@code config.json}, parsed
   * @return null where there is none, or of another method
   * @throws ModelFormatException for a value that is not valid
   * @throws UnsupportedException for a kind that Nibble does not read
   */
  static ForeignConfig of(Map<String, Object> config, String file) {
    if (!(config.get(KEY) instanceof Map<?, ?> map)) {
      return null;
    }
    for (var method : Method.values()) {
      if (method.id.equals(map.get("quant_method"))) {
        return new Reader(file, method, map).read();
      }
    }
    return null;
  }

  private record Reader(String file, Method method, Map<?, ?> map) {

    ForeignConfig read() {
      return switch (method) {
        case COMPRESSED_TENSORS -> compressed();
        case AWQ -> {
          expect("bits", map.get("bits"), (long) BITS, null);
          expectText("version", map.get("version"), "gemm");
          yield new ForeignConfig(method, groupSize("group_size", map.get("group_size")), 0);
        }
        case GPTQ -> {
          expect("bits", map.get("bits"), (long) BITS, null);
          if (Boolean.TRUE.equals(map.get("is_marlin_format"))) {
            throw unsupported("is_marlin_format", true, "false");
          }
          var version = map.get("checkpoint_format");
          boolean second = "gptq_v2".equals(version);
          if (!second) {
            expectText("checkpoint_format", version, "gptq");
          }
          yield new ForeignConfig(
              method, groupSize("group_size", map.get("group_size")), second ? 0 : 1);
        }
      };
    }

    private ForeignConfig compressed() {
      expect("format", map.get("format"), "pack-quantized", null);
      if (!(map.get("config_groups") instanceof Map<?, ?> groups) || groups.isEmpty()) {
        throw unexpected("config_groups", map.get("config_groups"), "an object of groups");
      }
      int size = -1;
      for (var entry : groups.entrySet()) {
        var at = "config_groups." + entry.getKey() + ".weights";
        if (!(entry.getValue() instanceof Map<?, ?> group)
            || !(group.get("weights") instanceof Map<?, ?> weights)) {
          throw unexpected(at, entry.getValue(), "an object with num_bits and strategy");
        }
        expect(at + ".num_bits", weights.get("num_bits"), (long) BITS, null);
        expect(at + ".type", weights.get("type"), "int", "int");
        var strategy = weights.get("strategy");
        int found = 0;
        if ("group".equals(strategy)) {
          found = groupSize(at + ".group_size", weights.get("group_size"));
        } else {
          expect(at + ".strategy", strategy, "channel", null);
        }
        size = size == -1 || size == found ? found : 0; // several: the shapes tell
      }
      return new ForeignConfig(method, size, 0);
    }

    /** 0 for -1, the whole row. */
    private int groupSize(String field, Object value) {
      if (value instanceof Long size && (size == -1 || size > 0 && size <= Integer.MAX_VALUE)) {
        return size == -1 ? 0 : size.intValue();
      }
      throw unexpected(field, value, "a positive integer, or -1 for the whole row");
    }

    private void expect(String field, Object value, Object expected, Object fallback) {
      var found = value == null ? fallback : value;
      if (!expected.equals(found)) {
        throw unsupported(field, found, Problem.show(expected));
      }
    }

    /** A text that is expected where it is there, in any case. */
    private void expectText(String field, Object value, String expected) {
      if (value != null && !(value instanceof String text && text.equalsIgnoreCase(expected))) {
        throw unsupported(field, value, Problem.show(expected));
      }
    }

    private ModelFormatException unexpected(String field, Object value, String expected) {
      return new ModelFormatException(file + ": " + KEY + "." + field + " is "
          + (value == null ? "missing" : Problem.show(value)) + ", expected " + expected);
    }

    private UnsupportedException unsupported(String field, Object value, String expected) {
      return new UnsupportedException(file + ": " + KEY + "." + field + " is "
          + (value == null ? "missing" : Problem.show(value)) + ", expected " + expected
          + " with quant_method " + Problem.quote(method.id));
    }
  }
}
