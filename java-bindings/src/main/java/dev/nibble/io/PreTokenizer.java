// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.UnsupportedException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * How a byte-level BPE tokenizer cuts a text before it merges: what a GGUF file gives by a name,
 * {@code tokenizer.ggml.pre}, and a {@code tokenizer.json} by regular expressions.
 *
 * @param splits expressions, each applied to the parts that the ones before left
 * @param digits whether every digit is a part of its own, before all else
 * @param gpt2 whether GPT-2's expression comes last
 * @param ignoreMerges whether a part that is a token becomes that token at once
 * @param addBos whether a text begins with the token for that when the file does not say
 */
record PreTokenizer(
    List<String> splits, boolean digits, boolean gpt2, boolean ignoreMerges, boolean addBos) {

  /** LLaMA 3's expression; %s is how many digits stay together. */
  private static final String LLAMA_3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
      + "|\\p{N}%s| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  /** Mistral's Tekken: words by case. */
  private static final String TEKKEN =
      "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
      + "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
      + "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  private static final String PUNCTUATION = "[\\p{P}$+<=>^~|]+";
  private static final String THREE_DIGITS = "[0-9][0-9][0-9]";

  private static final Map<String, PreTokenizer> BY_NAME = table();

  private static Map<String, PreTokenizer> table() {
    var table = new LinkedHashMap<String, PreTokenizer>();
    var llama3 = new PreTokenizer(List.of(LLAMA_3.formatted("{1,3}")), false, false, true, true);
    for (var name : List.of("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral")) {
      table.put(name, llama3);
    }
    var smaug = new PreTokenizer(llama3.splits, false, false, false, false);
    for (var name : List.of("smaug-bpe", "dbrx")) {
      table.put(name, smaug);
    }
    var qwen2 = new PreTokenizer(List.of(LLAMA_3.formatted("")), false, false, false, false);
    for (var name : List.of("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez")) {
      table.put(name, qwen2);
    }
    var gpt2 = new PreTokenizer(List.of(), false, true, false, false);
    for (var name : List.of("gpt-2", "phi-2", "mpt", "olmo", "jais")) {
      table.put(name, gpt2);
    }
    var digits = new PreTokenizer(List.of(), true, true, false, false);
    for (var name : List.of("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone",
        "minerva-7b")) {
      table.put(name, digits);
    }
    table.put("tekken", new PreTokenizer(List.of(TEKKEN), false, false, true, true));
    table.put("default",
        new PreTokenizer(List.of(PUNCTUATION, THREE_DIGITS), false, true, false, false));
    return table;
  }

  /**
   * The one of that name.
   *
   * @throws UnsupportedException naming those that there are
   */
  static PreTokenizer of(String name, String file) {
    var found = BY_NAME.get(name);
    if (found == null) {
      throw new UnsupportedException(file + ": tokenizer.ggml.pre is " + Problem.quote(name)
          + ", which Nibble does not read; expected one of " + String.join(", ", BY_NAME.keySet()));
    }
    return found;
  }

  /** The {@code pre_tokenizer} of a {@code tokenizer.json}. */
  Map<String, Object> json() {
    var parts = new ArrayList<Object>();
    if (digits) {
      parts.add(GgufTokenizer.ordered("type", "Digits", "individual_digits", true));
    }
    for (var split : splits) {
      parts.add(GgufTokenizer.ordered("type", "Split", "pattern", Map.of("Regex", split),
          "behavior", "Isolated", "invert", false));
    }
    parts.add(GgufTokenizer.byteLevel("ByteLevel", false, gpt2));
    return GgufTokenizer.ordered("type", "Sequence", "pretokenizers", parts);
  }
}
