// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.ModelFormatException;
import dev.nibble.NibbleException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.CheckpointNames;
import dev.nibble.io.Json;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/**
 * A {@link Scheme} as it stands in a model's {@code config.json}:
 *
 * <pre>
 * "quantization_config": {
 *   "quant_method": "nibble",
 *   "version": 1,
 *   "scheme": "w4a8",
 *   "weights": {"code": "i4", "scale": "e4m3", "group_size": 128},
 *   "activations": "a8f",
 *   "kv_cache": "kv4",
 *   "embedding": {"code": "i8", "scale": "f32", "group_size": 0},
 *   "exceptions": {
 *     "model.layers.0.mlp.down_proj.weight": {"code": "i8", "scale": "f32", "group_size": 0}
 *   }
 * }
 * </pre>
 *
 * <p>{@code weights} and {@code embedding} say how the tensors of the file are stored; {@code
 * scheme} is for people and is not read back; a {@code group_size} of 0 is the whole row. {@code
 * exceptions} is there for mixed precision only.
 */
public final class QuantizationConfig {

  private static final String KEY = CheckpointNames.QUANTIZATION_CONFIG;
  private static final String METHOD = "nibble";
  private static final long VERSION = 1;

  private QuantizationConfig() {}

  /** The value of {@code quantization_config}, for {@link Json#write}. */
  public static Map<String, Object> toMap(Scheme scheme) {
    var map = new LinkedHashMap<String, Object>();
    map.put("quant_method", METHOD);
    map.put("version", VERSION);
    map.put("scheme", scheme.name());
    map.put("weights", toMap(scheme.projections()));
    map.put("activations", scheme.activations().id());
    map.put("kv_cache", scheme.cache().id());
    map.put("embedding", toMap(scheme.embedding()));
    if (!scheme.exceptions().isEmpty()) {
      var exceptions = new LinkedHashMap<String, Object>();
      scheme.exceptions().forEach((tensor, format) -> exceptions.put(tensor, toMap(format)));
      map.put("exceptions", exceptions);
    }
    return map;
  }

  private static Map<String, Object> toMap(WeightFormat format) {
    var map = new LinkedHashMap<String, Object>();
    map.put("code", format.code().id());
    map.put("scale", format.scale().id());
    map.put("group_size", format.groupSize());
    return map;
  }

  /**
   * The scheme of a model's configuration.
   *
   * @param config the whole {@code config.json}, parsed
   * @param file its name, for messages
   * @return the scheme, or null where the configuration has none: the weights are not quantized
   * @throws ModelFormatException naming the field, its value and what was expected
   * @throws UnsupportedException if another library's method made the weights
   */
  public static Scheme parse(Map<String, Object> config, String file) {
    var value = config.get(KEY);
    if (value == null) {
      return null;
    }
    var reader = new Reader(file);
    var map = reader.object(KEY, value);
    var method = reader.text(KEY + ".quant_method", map.get("quant_method"));
    if (!method.equals(METHOD)) {
      throw new UnsupportedException(file + ": " + KEY + ".quant_method is "
          + Json.show(method) + ", expected \"" + METHOD + "\" or unquantized weights");
    }
    if (!(map.get("version") instanceof Long version && version == VERSION)) {
      throw reader.unexpected(KEY + ".version", map.get("version"), String.valueOf(VERSION));
    }
    try {
      return Scheme.of(
          reader.format(KEY + ".weights", map.get("weights")),
          reader.constant(KEY + ".activations", map.get("activations"), ActivationType.values()),
          reader.constant(KEY + ".kv_cache", map.get("kv_cache"), KvType.values()),
          reader.format(KEY + ".embedding", map.get("embedding")))
          .withExceptions(reader.exceptions(KEY + ".exceptions", map.get("exceptions")));
    } catch (UnsupportedException e) {
      throw new ModelFormatException(file + ": " + KEY + ": " + e.getMessage(), e);
    }
  }

  /** Typed access with messages. */
  private record Reader(String file) {

    Map<?, ?> object(String field, Object value) {
      if (value instanceof Map<?, ?> map) {
        return map;
      }
      throw unexpected(field, value, "an object");
    }

    String text(String field, Object value) {
      if (value instanceof String text) {
        return text;
      }
      throw unexpected(field, value, "a string");
    }

    <E extends Enum<E>> E constant(String field, Object value, E[] constants) {
      var names = new ArrayList<String>();
      for (var constant : constants) {
        var name = constant.name().toLowerCase(Locale.ROOT);
        if (name.equals(value)) {
          return constant;
        }
        names.add(name);
      }
      throw unexpected(field, value, "one of " + String.join(", ", names));
    }

    WeightFormat format(String field, Object value) {
      var map = object(field, value);
      var code = constant(field + ".code", map.get("code"), CodeType.values());
      var scale = constant(field + ".scale", map.get("scale"), ScaleType.values());
      if (!(map.get("group_size") instanceof Long size && size >= 0 && size <= 1 << 30)) {
        throw unexpected(field + ".group_size", map.get("group_size"), "a multiple of 16 or 0");
      }
      try {
        return new WeightFormat(code, scale, size.intValue());
      } catch (NibbleException e) {
        throw new ModelFormatException(file + ": " + field + ": " + e.getMessage(), e);
      }
    }

    Map<String, WeightFormat> exceptions(String field, Object value) {
      var exceptions = new LinkedHashMap<String, WeightFormat>();
      if (value == null) {
        return exceptions;
      }
      for (var entry : object(field, value).entrySet()) {
        var tensor = String.valueOf(entry.getKey());
        if (!CheckpointNames.isProjection(tensor)) {
          throw new ModelFormatException(file + ": " + field + " names " + Json.show(tensor)
              + ", expected the weight of a projection");
        }
        exceptions.put(tensor, format(field + "." + tensor, entry.getValue()));
      }
      return exceptions;
    }

    ModelFormatException unexpected(String field, Object value, String expected) {
      return new ModelFormatException(file + ": " + field + " is "
          + (value == null ? "missing" : Json.show(value)) + ", expected " + expected);
    }
  }
}
