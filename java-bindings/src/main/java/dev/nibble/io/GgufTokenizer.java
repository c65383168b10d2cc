// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.UnsupportedException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The tokenizer in a GGUF file's metadata, as the {@code tokenizer.json} of Hugging Face's
 * tokenizers library. Two kinds:
 *
 * <ul>
 *   <li>{@code gpt2}: byte-level BPE with its merges, text cut beforehand as {@code
 *       tokenizer.ggml.pre} says ({@link PreTokenizer});
 *   <li>{@code llama}: SentencePiece's BPE, with scores in place of merges ({@link PieceMerges}),
 *       spaces as U+2581, and bytes for what has no piece.
 * </ul>
 *
 * <p>Heap memory of at most {@value #MAX_EXPANSION} times the file's bytes and a fixed 16 MiB.
 */
final class GgufTokenizer {
  static final int MAX_TOKENS = 1 << 22;
  static final int MAX_EXPANSION = 256;

  private static final String KEY = "tokenizer.ggml.";
  private static final String SPACE = "\u2581";

  // tokenizer.ggml.token_type
  private static final int NORMAL = 1;
  private static final int UNKNOWN = 2;
  private static final int CONTROL = 3;
  private static final int USER_DEFINED = 4;
  private static final int UNUSED = 5;
  private static final int BYTE = 6;

  private final GgufMetadata metadata;
  private final String file;
  private final Map<String, Integer> vocabulary = new LinkedHashMap<>();
  private final List<String> tokens = new ArrayList<>();
  private final int[] types;

  private GgufTokenizer(GgufMetadata metadata, String file) {
    this.metadata = metadata;
    this.file = file;
    metadata.texts(KEY + "tokens", (id, token) -> {
      var before = vocabulary.put(token, id);
      if (before != null) {
        throw Problem.in(file, KEY + "tokens: " + Problem.quote(token) + " is both token " + before
            + " and token " + id);
      }
      tokens.add(token);
    });
    types = metadata.integers(KEY + "token_type");
    if (types != null && types.length != tokens.size()) {
      throw Problem.in(file, KEY + "token_type has " + types.length + " elements, but "
          + KEY + "tokens " + tokens.size());
    }
  }

  /** Whether there is one. */
  static boolean isIn(GgufMetadata metadata) {
    var model = metadata.text(KEY + "model", "none");
    return !model.equals("none") && !model.equals("no_vocab");
  }

  /**
   * The bytes of {@code tokenizer.json}.
   *
   * @throws dev.nibble.ModelFormatException naming the file, the key and the value
   * @throws UnsupportedException for another kind of tokenizer
   */
  static byte[] json(GgufMetadata metadata, String file) {
    var model = metadata.text(KEY + "model", null);
    if (!"gpt2".equals(model) && !"llama".equals(model)) {
      throw new UnsupportedException(file + ": " + KEY + "model is "
          + Problem.show(model) + ", expected \"llama\" or \"gpt2\"");
    }
    // Before the tokens are read, which may be many.
    var pre = model.equals("gpt2")
        ? PreTokenizer.of(metadata.text(KEY + "pre", "default"), file) : null;
    var tokenizer = new GgufTokenizer(metadata, file);
    return Json.write(pre != null ? tokenizer.byteLevel(pre) : tokenizer.pieces(), false);
  }

  private Map<String, Object> byteLevel(PreTokenizer pre) {
    var byteLevel = byteLevel("ByteLevel", false, false);
    return whole(null, pre.json(), byteLevel, bpe(null, merges(), pre.ignoreMerges(), false),
        pre.addBos());
  }

  /** The component of that type. */
  static Map<String, Object> byteLevel(String type, boolean addPrefixSpace, boolean useRegex) {
    return ordered("type", type, "add_prefix_space", addPrefixSpace, "trim_offsets", true,
        "use_regex", useRegex);
  }

  private Map<String, Object> pieces() {
    boolean prefix = metadata.flag(KEY + "add_space_prefix", true);
    var normalizers = new ArrayList<Object>();
    var decoders = new ArrayList<Object>();
    if (prefix) {
      normalizers.add(ordered("type", "Prepend", "prepend", SPACE));
    }
    normalizers.add(ordered("type", "Replace", "pattern", Map.of("String", " "), "content", SPACE));
    decoders.add(ordered("type", "Replace", "pattern", Map.of("String", SPACE), "content", " "));
    decoders.add(Map.of("type", "ByteFallback"));
    decoders.add(Map.of("type", "Fuse"));
    if (prefix) {
      decoders.add(ordered("type", "Strip", "content", " ", "start", 1, "stop", 0));
    }
    var scores = metadata.floats(KEY + "scores");
    if (scores == null || scores.length != tokens.size()) {
      throw Problem.in(file, KEY + "scores: " + (scores == null ? "missing" : scores.length
          + " elements") + ", expected one for each of the " + tokens.size() + " tokens");
    }
    var mergeable = new HashMap<String, Integer>();
    for (int id = 0; id < tokens.size(); id++) {
      int type = type(id);
      if (type == NORMAL || type == USER_DEFINED || type == UNUSED) {
        mergeable.put(tokens.get(id), id);
      }
    }
    int unknown = metadata.integer(KEY + "unknown_token_id", 0);
    return whole(ordered("type", "Sequence", "normalizers", normalizers), null,
        ordered("type", "Sequence", "decoders", decoders),
        bpe(unknown < tokens.size() && type(unknown) == UNKNOWN ? tokens.get(unknown) : null,
            PieceMerges.of(mergeable, scores, file), false, true), true);
  }

  private Map<String, Object> bpe(
      String unknown, List<List<String>> merges, boolean ignoreMerges, boolean pieces) {
    return ordered("type", "BPE", "dropout", null, "unk_token", unknown,
        "continuing_subword_prefix", null, "end_of_word_suffix", null, "fuse_unk", pieces,
        "byte_fallback", pieces, "ignore_merges", ignoreMerges, "vocab", vocabulary,
        "merges", merges);
  }

  private Map<String, Object> whole(Object normalizer, Object preTokenizer, Object decoder,
      Object model, boolean addBos) {
    var added = new ArrayList<Object>();
    for (int id = 0; id < tokens.size(); id++) {
      int type = type(id);
      if (type == CONTROL || type == UNKNOWN || type == USER_DEFINED) {
        if (tokens.get(id).isEmpty()) {
          throw Problem.in(file, KEY + "tokens: token " + id + " is special, but empty");
        }
        added.add(ordered("id", id, "content", tokens.get(id), "single_word", false,
            "lstrip", false, "rstrip", false, "normalized", false,
            "special", type != USER_DEFINED));
      }
    }
    return ordered("version", "1.0", "truncation", null, "padding", null, "added_tokens", added,
        "normalizer", normalizer, "pre_tokenizer", preTokenizer,
        "post_processor", template(addBos), "decoder", decoder, "model", model);
  }

  /** Adds what begins and ends a text, where the file or its kind asks for that. */
  private Map<String, Object> template(boolean addBos) {
    boolean bos = metadata.flag(KEY + "add_bos_token", addBos)
        && metadata.has(KEY + "bos_token_id");
    boolean eos = metadata.flag(KEY + "add_eos_token", false)
        && metadata.has(KEY + "eos_token_id");
    var single = new ArrayList<Object>();
    var pair = new ArrayList<Object>();
    var special = new LinkedHashMap<String, Object>();
    if (bos) {
      single.add(special("bos_token_id", special));
      pair.add(single.getFirst());
    }
    var first = Map.of("Sequence", ordered("id", "A", "type_id", 0));
    single.add(first);
    pair.add(first);
    pair.add(Map.of("Sequence", ordered("id", "B", "type_id", 1)));
    if (eos) {
      single.add(special("eos_token_id", special));
      pair.add(single.getLast());
    }
    return ordered("type", "TemplateProcessing", "single", single, "pair", pair,
        "special_tokens", special);
  }

  private Map<String, Object> special(String name, Map<String, Object> special) {
    int id = metadata.integer(KEY + name, null);
    if (id >= tokens.size()) {
      throw Problem.in(file, KEY + name + " is " + id + ", expected a token below "
          + tokens.size());
    }
    var token = tokens.get(id);
    special.put(token, ordered("id", token, "ids", List.of(id), "tokens", List.of(token)));
    return Map.of("SpecialToken", ordered("id", token, "type_id", 0));
  }

  private int type(int id) {
    int type = types == null ? NORMAL : types[id];
    if (type < NORMAL || type > BYTE) {
      throw Problem.in(file, KEY + "token_type[" + id + "] is " + type + ", expected 1 to 6");
    }
    return type;
  }

  /** Merges as the file lists them, best first: two tokens with a space between. */
  private List<List<String>> merges() {
    var merges = new ArrayList<List<String>>();
    metadata.texts(KEY + "merges", (i, merge) -> {
      int space = merge.indexOf(' ', 1);
      var left = space < 0 ? merge : merge.substring(0, space);
      var right = space < 0 ? "" : merge.substring(space + 1);
      for (var part : List.of(left, right, left + right)) {
        if (!vocabulary.containsKey(part)) {
          throw Problem.in(file, KEY + "merges[" + i + "] is " + Problem.quote(merge)
              + ", but " + Problem.quote(part) + " is no token");
        }
      }
      merges.add(List.of(left, right));
    });
    return merges;
  }

  /** A JSON object of names and values in turn. */
  static Map<String, Object> ordered(Object... namesAndValues) {
    var map = new LinkedHashMap<String, Object>();
    for (int i = 0; i < namesAndValues.length; i += 2) {
      map.put((String) namesAndValues[i], namesAndValues[i + 1]);
    }
    return map;
  }
}
