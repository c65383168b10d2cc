// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.Json;
import dev.nibble.io.ModelSource;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Reads {@code config.json} as Hugging Face writes it for {@code LlamaForCausalLM}: the old form
 * ({@code rope_theta}, {@code rope_scaling}) and the new one ({@code rope_parameters}).
 */
final class ConfigReader {
  private static final String GENERATION_CONFIG = "generation_config.json";
  private static final String ARCHITECTURE = "LlamaForCausalLM";
  private static final double DEFAULT_THETA = 10_000;
  private static final double DEFAULT_EPSILON = 1e-6;
  private static final int MAX_EOS_TOKENS = 1000;

  private final String file;
  private final Map<String, Object> config;

  ConfigReader(String file, Map<String, Object> config) {
    this.file = file;
    this.config = config;
  }

  LlamaConfig read(ModelSource source) {
    checkKind();
    int hidden = integer("hidden_size", null);
    int heads = integer("num_attention_heads", null);
    if (config.get("head_dim") == null && (heads < 1 || hidden % heads != 0)) {
      throw unexpected("num_attention_heads", heads,
          "a divisor of hidden_size, " + hidden + ", or head_dim beside it");
    }
    int vocabulary = integer("vocab_size", null);
    if (vocabulary < 1) { // before token ids are compared with it
      throw unexpected("vocab_size", vocabulary, "at least 1");
    }
    var bos = tokens(file, config, "bos_token_id", vocabulary);
    try {
      return new LlamaConfig(
          hidden,
          integer("intermediate_size", null),
          integer("num_hidden_layers", null),
          heads,
          integer("num_key_value_heads", heads),
          integer("head_dim", hidden / Math.max(1, heads)),
          vocabulary,
          integer("max_position_embeddings", 2048),
          (float) number(config, "", "rms_norm_eps", DEFAULT_EPSILON),
          theta(),
          scaling(integer("head_dim", hidden / Math.max(1, heads))),
          flag("tie_word_embeddings", false),
          flag("attention_bias", false),
          flag("mlp_bias", false),
          bos.isEmpty() ? -1 : bos.getFirst(),
          eosTokens(source, vocabulary));
    } catch (InvalidArgumentException e) {
      throw new ModelFormatException(file + ": " + e.getMessage(), e);
    }
  }

  /** Refuses other architectures, which would load and talk nonsense. */
  private void checkKind() {
    var architectures = config.get("architectures");
    if (!(architectures instanceof List<?> list && list.contains(ARCHITECTURE))) {
      throw unsupported("architectures", architectures, "[\"" + ARCHITECTURE + "\"]");
    }
    expect("model_type", "llama");
    if (config.get("hidden_act") != null) { // silu is what its absence means
      expect("hidden_act", "silu");
    }
    var partial = config.get("partial_rotary_factor");
    if (partial instanceof Number factor && factor.doubleValue() != 1) {
      throw unsupported("partial_rotary_factor", partial, "1");
    }
  }

  private void expect(String field, String expected) {
    if (!expected.equals(config.get(field))) {
      throw unsupported(field, config.get(field), '"' + expected + '"');
    }
  }

  private double theta() {
    var rope = object("rope_parameters");
    return rope != null && rope.get("rope_theta") != null
        ? number(rope, "rope_parameters.", "rope_theta", null)
        : number(config, "", "rope_theta", DEFAULT_THETA);
  }

  private RopeScaling scaling(int headDim) {
    String field = config.get("rope_parameters") != null ? "rope_parameters" : "rope_scaling";
    var rope = object(field);
    if (rope == null) {
      return new RopeScaling.None();
    }
    String key = rope.get("rope_type") != null || rope.get("type") == null ? "rope_type" : "type";
    var type = rope.get(key);
    var prefix = field + ".";
    return switch (String.valueOf(type)) {
      case "default" -> new RopeScaling.None();
      case "linear" -> new RopeScaling.Linear(positive(rope, prefix, "factor"));
      case "llama3" -> llama3(rope, prefix);
      case "factors" -> factors(rope, prefix, headDim);
      default ->
          throw unsupported(prefix + key, type, "\"default\", \"linear\" or \"llama3\"");
    };
  }

  private RopeScaling llama3(Map<String, Object> rope, String prefix) {
    float low = positive(rope, prefix, "low_freq_factor");
    float high = positive(rope, prefix, "high_freq_factor");
    if (high <= low) {
      throw unexpected(prefix + "high_freq_factor", high, "above low_freq_factor, " + low);
    }
    int context = integer(rope, prefix, "original_max_position_embeddings", null);
    if (context < 1 || context > LlamaConfig.MAX_POSITIONS) {
      throw unexpected(prefix + "original_max_position_embeddings", context,
          "1 to " + LlamaConfig.MAX_POSITIONS);
    }
    return new RopeScaling.Llama3(positive(rope, prefix, "factor"), low, high, context);
  }

  private RopeScaling factors(Map<String, Object> rope, String prefix, int headDim) {
    if (!(rope.get("factors") instanceof List<?> list) || list.size() != headDim / 2) {
      throw unexpected(prefix + "factors", rope.get("factors"),
          "an array of " + headDim / 2 + " numbers, half of head_dim");
    }
    var factors = new ArrayList<Float>();
    for (int i = 0; i < list.size(); i++) {
      var field = "factors[" + i + "]";
      var element = new HashMap<String, Object>();
      element.put(field, list.get(i));
      factors.add(positive(element, prefix, field));
    }
    return new RopeScaling.Factors(factors);
  }

  private float positive(Map<String, Object> map, String prefix, String field) {
    float value = (float) number(map, prefix, field, null);
    if (!(value > 0 && value <= 1e6f)) {
      throw unexpected(prefix + field, value, "above 0, at most 1e6");
    }
    return value;
  }

  /** generation_config.json knows more than config.json: chat models have several end tokens. */
  private List<Integer> eosTokens(ModelSource source, int vocabulary) {
    if (source.has(GENERATION_CONFIG)) {
      var name = source.describe(GENERATION_CONFIG);
      var generation = Json.parseObject(source.read(GENERATION_CONFIG), name);
      if (generation.get("eos_token_id") != null) {
        return tokens(name, generation, "eos_token_id", vocabulary);
      }
    }
    return tokens(file, config, "eos_token_id", vocabulary);
  }

  /** A token id, a list of them, or none. */
  private List<Integer> tokens(
      String name, Map<String, Object> map, String field, int vocabulary) {
    var value = map.get(field);
    var values = value == null ? List.of() : value instanceof List<?> list ? list : List.of(value);
    var tokens = new ArrayList<Integer>();
    for (var token : values) {
      // Some published LLaMA 1 conversions have -1 for "none".
      if (token instanceof Long id && id == -1) {
        continue;
      }
      if (!(token instanceof Long id && id >= 0 && id < vocabulary)
          || tokens.size() >= MAX_EOS_TOKENS) {
        throw new ModelFormatException(name + ": " + field + " is " + show(value)
            + ", expected token ids below vocab_size, " + vocabulary);
      }
      tokens.add(id.intValue());
    }
    return tokens;
  }

  private Map<String, Object> object(String field) {
    var value = config.get(field);
    if (value == null) {
      return null;
    }
    if (value instanceof Map<?, ?>) {
      @SuppressWarnings("unchecked") // JSON objects have string keys
      var map = (Map<String, Object>) value;
      return map;
    }
    throw unexpected(field, value, "an object");
  }

  private int integer(String field, Integer fallback) {
    return integer(config, "", field, fallback);
  }

  private int integer(Map<String, Object> map, String prefix, String field, Integer fallback) {
    var value = map.get(field);
    if (value == null && fallback != null) {
      return fallback;
    }
    if (value instanceof Long number && number == number.intValue()) {
      return number.intValue();
    }
    throw unexpected(prefix + field, value, "an integer");
  }

  private double number(Map<String, Object> map, String prefix, String field, Double fallback) {
    var value = map.get(field);
    if (value == null && fallback != null) {
      return fallback;
    }
    if (value instanceof Number number) {
      return number.doubleValue();
    }
    throw unexpected(prefix + field, value, "a number");
  }

  private boolean flag(String field, boolean fallback) {
    var value = config.get(field);
    if (value == null) {
      return fallback;
    }
    if (value instanceof Boolean flag) {
      return flag;
    }
    throw unexpected(field, value, "true or false");
  }

  private ModelFormatException unexpected(String field, Object value, String expected) {
    return new ModelFormatException(file + ": " + field + " is " + show(value)
        + ", expected " + expected);
  }

  private UnsupportedException unsupported(String field, Object value, String expected) {
    return new UnsupportedException(file + ": " + field + " is " + show(value)
        + ", which Nibble does not run; expected " + expected);
  }

  /** The value, shortened and without control characters: it comes from a hostile file. */
  private static String show(Object value) {
    if (value == null) {
      return "missing";
    }
    String text = value instanceof String ? "\"" + value + '"' : String.valueOf(value);
    String shown = text.length() > 80 ? text.substring(0, 80) + "..." : text;
    return shown.replaceAll("\\p{C}", "?");
  }
}
