// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import dev.nibble.model.Models;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** A GGUF file's tokenizer reads and writes what the one that it was made from does. */
class GgufTokenizerTest {

  private static Tokenizer load(GgufBytes file) {
    return Tokenizer.load(json(file), "x.gguf");
  }

  private static byte[] json(GgufBytes file) {
    var source = new ByteSource.Memory("x.gguf", MemorySegment.ofArray(file.bytes()));
    return GgufTokenizer.json(GgufHeader.read(source).metadata(), "x.gguf");
  }

  @Test
  void byteLevelAgreesWithTheOriginal() {
    var texts = new ArrayList<>(List.of(Models.tales().split("(?<=\n)")));
    texts.add(Models.tales());
    texts.addAll(List.of("", " ", "  two  spaces ", "Straße 1234567, größe\r\n\r\n\ttab",
        "日本語 😀 it's I'LL we've", "<|begin_of_text|>a<|end_of_text|> b", "\u0000\u00A0x"));
    try (var source = ModelSource.embedded(); var original = Tokenizer.load(source);
        var made = load(FableGguf.tokenizer(new GgufBytes()))) {
      assertThat(texts).hasSizeGreaterThan(10);
      for (var text : texts) {
        var tokens = original.encode(text);
        assertThat(made.encode(text)).as(text).containsExactly(tokens);
        assertThat(made.decode(tokens)).isEqualTo(original.decode(tokens));
      }
    }
  }

  @Test
  void whatBeginsAndEndsAText() {
    var file = FableGguf.tokenizer(new GgufBytes());
    var plain = encode(file.bool("tokenizer.ggml.add_bos_token", false), "the king");
    assertThat(plain).doesNotContain(0, 1);
    assertThat(encode(file.bool("tokenizer.ggml.add_eos_token", true), "the king"))
        .startsWith(plain).hasSize(plain.length + 1).endsWith(1);
    // GPT-2's kind does not begin a text by itself, LLaMA 3's does.
    file.remove("tokenizer.ggml.add_bos_token").remove("tokenizer.ggml.add_eos_token");
    assertThat(encode(file, "the king")).startsWith(0).hasSize(plain.length + 1);
    assertThat(encode(file.string("tokenizer.ggml.pre", "gpt-2"), "the king"))
        .containsExactly(plain);
  }

  private static int[] encode(GgufBytes file, String text) {
    try (var tokenizer = load(file)) {
      return tokenizer.encode(text);
    }
  }

  /** Each kind of cutting, by where it cuts: one token a part, since there are no merges. */
  @ParameterizedTest
  @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
    "llama-bpe | `a12345 b!!`  | `a,123,45,\u0120b,!!`",
    "llama-bpe | `We'LL go\n\n`| `We,'LL,\u0120go,\u010a\u010a`",
    "qwen2     | `a12 b`       | `a,1,2,\u0120b`",
    "gpt-2     | `a12345 b's`  | `a,12345,\u0120b,'s`",
    "smollm    | `a12 b`       | `a,1,2,\u0120b`",
    "default   | `a, 12345b`   | `a,`,`,\u0120,123,45,b`",
    "tekken    | `aBc Def 12`  | `a,Bc,\u0120Def,\u0120,1,2`"
  })
  void preTokenizersCut(String pre, String text, String parts) {
    var expected = List.of(parts.replace("`,`", "\uE000").split(",")).stream()
        .map(part -> part.replace("\uE000", ",")).toList();
    if (parts.contains("`,`")) {
      expected = List.of("a", ",", "\u0120", "123", "45", "b");
    }
    // Whole parts are tokens and each pair inside them merges, so that nothing stays split.
    var tokens = new ArrayList<String>();
    for (int b = 0; b < 256; b++) {
      tokens.add(byteLetter(b));
    }
    var merges = new ArrayList<String>();
    for (var part : expected) {
      for (int end = 2; end <= part.length(); end++) {
        if (!tokens.contains(part.substring(0, end))) {
          tokens.add(part.substring(0, end));
          merges.add(part.substring(0, end - 1) + " " + part.charAt(end - 1));
        }
      }
    }
    // Would join across a cut, were there none.
    var joined = expected.get(0) + expected.get(1);
    if (!tokens.contains(joined)) {
      tokens.add(joined);
      merges.addFirst(expected.get(0) + " " + expected.get(1));
    }
    var file = new GgufBytes().string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", pre).strings("tokenizer.ggml.tokens", tokens)
        .strings("tokenizer.ggml.merges", merges).bool("tokenizer.ggml.add_bos_token", false);
    var encoded = new ArrayList<String>();
    for (int id : encode(file, text.replace("\\n", "\n"))) {
      encoded.add(tokens.get(id));
    }
    assertThat(encoded).containsExactlyElementsOf(expected);
  }

  /** GPT-2's letter for a byte. */
  private static String byteLetter(int b) {
    boolean printable = b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE;
    if (printable) {
      return String.valueOf((char) b);
    }
    int before = b <= 0x20 ? b : b <= 0xA0 ? b - 0x7F + 33 : 67;
    return String.valueOf((char) (256 + before));
  }

  /** A SentencePiece vocabulary: unknown, begin, end, 256 bytes, then pieces by falling score. */
  private static List<String> pieces() {
    var tokens = new ArrayList<>(List.of("<unk>", "<s>", "</s>"));
    for (int b = 0; b < 256; b++) {
      tokens.add("<0x%02X>".formatted(b));
    }
    tokens.addAll(List.of("\u2581t", "he", "in", "er", "\u2581a", "\u2581the", "\u2581w",
        "\u2581king", "ki", "ng", "\u2581ki", "nd", "\u2581and", "\u2581s", "ing", "\u2581\u2581",
        "an", "the", "ere", "th", "kin", "gs", "\u2581q", "ue", "en", "\u2581queen"));
    for (char c = 'a'; c <= 'z'; c++) {
      tokens.add(String.valueOf(c));
    }
    tokens.addAll(List.of("\u2581", ".", ",", "T", "A", "é", "qu", "een"));
    return tokens;
  }

  private static GgufBytes pieceFile() {
    var tokens = pieces();
    var scores = new float[tokens.size()];
    var types = new int[tokens.size()];
    for (int i = 0; i < scores.length; i++) {
      scores[i] = i < 259 ? 0 : 259 - i;
      types[i] = i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1;
    }
    return new GgufBytes().string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", tokens).floats("tokenizer.ggml.scores", scores)
        .ints("tokenizer.ggml.token_type", types).u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2).u32("tokenizer.ggml.unknown_token_id", 0);
  }

  /** SentencePiece's BPE as it is defined: join the best neighbours, the first of equals. */
  private static List<Integer> sentencePiece(String text, List<String> tokens) {
    var ids = new HashMap<String, Integer>();
    for (int i = 259; i < tokens.size(); i++) {
      ids.put(tokens.get(i), i);
    }
    var parts = new ArrayList<String>();
    ("\u2581" + text.replace(' ', '\u2581')).codePoints()
        .forEach(c -> parts.add(Character.toString(c)));
    while (true) {
      int best = -1;
      for (int i = 0; i + 1 < parts.size(); i++) {
        var id = ids.get(parts.get(i) + parts.get(i + 1));
        if (id != null && (best < 0 || id < ids.get(parts.get(best) + parts.get(best + 1)))) {
          best = i;
        }
      }
      if (best < 0) {
        break;
      }
      parts.set(best, parts.get(best) + parts.remove(best + 1));
    }
    var result = new ArrayList<>(List.of(1));
    for (var part : parts) {
      if (ids.containsKey(part)) {
        result.add(ids.get(part));
      } else {
        for (byte b : part.getBytes(StandardCharsets.UTF_8)) {
          result.add(3 + (b & 0xFF));
        }
      }
    }
    return result;
  }

  @Test
  void piecesAgreeWithSentencePiece() {
    var tokens = pieces();
    var texts = new ArrayList<>(List.of(Models.tales().split("(?<=\n)")));
    texts.addAll(List.of("The kings and the queen were in there.", " a  b   ", "日本 😀 é", "x"));
    try (var tokenizer = load(pieceFile())) {
      for (var text : texts) {
        var ids = tokenizer.encode(text);
        assertThat(ids).as(text).containsExactly(
            sentencePiece(text, tokens).stream().mapToInt(Integer::intValue).toArray());
        assertThat(tokenizer.decode(ids)).isEqualTo(text);
      }
      assertThat(tokenizer.encode("</s>")).containsExactly(1, 2);
    }
  }

  @Test
  void withoutTheSpaceInFront() {
    var file = pieceFile().bool("tokenizer.ggml.add_space_prefix", false);
    try (var tokenizer = load(file)) {
      var tokens = pieces();
      assertThat(tokenizer.encode("the")).containsExactly(1, tokens.indexOf("the"));
      assertThat(tokenizer.decode(tokenizer.encode(" the"))).isEqualTo(" the");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"bert", "t5", "rwkv"})
  void otherKindsAreNamed(String model) {
    assertThatThrownBy(() -> json(pieceFile().string("tokenizer.ggml.model", model)))
        .isInstanceOf(UnsupportedException.class)
        .hasMessageContainingAll("x.gguf", "tokenizer.ggml.model", model);
    assertThatThrownBy(() -> json(FableGguf.tokenizer(new GgufBytes())
        .string("tokenizer.ggml.pre", "chatglm-bpe"))).isInstanceOf(UnsupportedException.class)
        .hasMessageContainingAll("tokenizer.ggml.pre", "chatglm-bpe", "llama-bpe");
  }

  @Test
  void whatDoesNotFitIsNamed() {
    var fable = FableGguf.tokenizer(new GgufBytes());
    refused(pieceFile().floats("tokenizer.ggml.scores", 1, 2), "tokenizer.ggml.scores", "2");
    refused(pieceFile().remove("tokenizer.ggml.scores"), "tokenizer.ggml.scores", "missing");
    refused(pieceFile().ints("tokenizer.ggml.token_type", 1), "token_type has 1");
    refused(pieceFile().u32("tokenizer.ggml.bos_token_id", 999), "bos_token_id is 999");
    refused(new GgufBytes().string("tokenizer.ggml.model", "gpt2"), "tokens is missing");
    refused(fable.strings("tokenizer.ggml.merges", List.of("a zzzzzz")), "merges[0]", "zzzzzz");
    refused(fable.strings("tokenizer.ggml.tokens", List.of("a", "b", "a")), "token 0", "token 2");
    refused(fable.string("tokenizer.ggml.tokens", "a"), "tokenizer.ggml.tokens", "an array");
  }

  private static void refused(GgufBytes file, String... parts) {
    assertThatThrownBy(() -> json(file)).isInstanceOf(ModelFormatException.class)
        .hasMessageContainingAll(parts).hasMessageContaining("x.gguf")
        .hasMessageNotContaining("\n");
  }
}
