// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ClosedException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import net.jqwik.api.Arbitraries;
import net.jqwik.api.Arbitrary;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.Provide;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The tokenizer of the embedded model: byte-level BPE of 4,096 tokens. */
class TokenizerTest {

  private static final Tokenizer TOKENIZER = load();

  private static Tokenizer load() {
    try (var source = ModelSource.embedded()) {
      return Tokenizer.load(source);
    }
  }

  private static byte[] resource(String name) throws IOException {
    try (var stream = TokenizerTest.class.getResourceAsStream(name)) {
      return stream.readAllBytes();
    }
  }

  private static String stream(int[] ids) {
    var decoder = TOKENIZER.newDecoder();
    var text = new StringBuilder();
    for (int id : ids) {
      var piece = decoder.accept(id);
      if (!piece.isEmpty()) {
        assertThat(Character.isHighSurrogate(piece.charAt(piece.length() - 1))).isFalse();
      }
      text.append(piece);
    }
    return text.append(decoder.finish()).toString();
  }

  @Test
  void talesHaveTheTokensOfTheReference() throws IOException {
    var tales = new String(resource("/dev/nibble/texts/tales.txt"), StandardCharsets.UTF_8);
    var ids = TOKENIZER.encode(tales);
    assertThat(ids).hasSize(1573).startsWith(0);
    try (var store = TensorStore.of("expected", resource("/fable-4m/expected.safetensors"))) {
      var expected = MemorySegment.ofArray(new int[256]);
      store.read("input_ids", expected);
      assertThat(Arrays.copyOf(ids, 256)).isEqualTo(expected.toArray(ValueLayout.JAVA_INT));
    }
    assertThat(TOKENIZER.decode(ids)).isEqualTo(tales);
    assertThat(stream(ids)).isEqualTo(tales);
  }

  @Test
  void everyTextBeginsWithItsSpecialToken() {
    assertThat(TOKENIZER.encode("")).containsExactly(0);
    assertThat(TOKENIZER.decode(new int[0])).isEmpty();
    assertThat(TOKENIZER.decode(new int[] {0, 1})).isEmpty();
  }

  @ParameterizedTest
  @ValueSource(strings = {"naïve café", "日本語の物語", "🐲🧚‍♀️ fairy", "  spaces   and\n\n\ttabs ",
      "a\uFFFDb", "ﬀ Ω ≠", "\u0000\u0001", "Straße — “quoted” …"})
  void streamedTextEqualsWholeText(String text) {
    var ids = TOKENIZER.encode(text);
    assertThat(TOKENIZER.decode(ids)).isEqualTo(text);
    assertThat(stream(ids)).isEqualTo(text);
  }

  @Test
  void aCharacterCutAcrossTokensComesOutWhole() {
    var ids = TOKENIZER.encode("🐲");
    assertThat(ids.length).as("tokens of one character").isGreaterThan(2);
    var decoder = TOKENIZER.newDecoder();
    for (int i = 0; i < ids.length - 1; i++) {
      assertThat(decoder.accept(ids[i])).isEmpty();
    }
    assertThat(decoder.accept(ids[ids.length - 1])).isEqualTo("🐲");
    assertThat(decoder.finish()).isEmpty();
  }

  @Test
  void aCharacterThatNeverEndsIsReplaced() {
    var ids = TOKENIZER.encode("x🐲");
    var cut = Arrays.copyOf(ids, ids.length - 1);
    assertThat(stream(cut)).isEqualTo(TOKENIZER.decode(cut)).startsWith("x").endsWith("\uFFFD");
  }

  @Test
  void garbageIsHandedOutSoonerOrLater() {
    int stray = TOKENIZER.encode("🐲")[2]; // a continuation byte, again and again
    var decoder = TOKENIZER.newDecoder();
    int characters = 0;
    for (int i = 0; i < 100; i++) {
      characters += decoder.accept(stray).length();
    }
    assertThat(characters).isGreaterThanOrEqualTo(60);
  }

  @Provide
  Arbitrary<int[]> tokens() {
    return Arbitraries.integers().between(0, 4095).array(int[].class).ofMaxSize(60);
  }

  /** The tokens of single bytes follow the two special ones. */
  @Provide
  Arbitrary<int[]> bytes() {
    return Arbitraries.integers().between(2, 257).array(int[].class).ofMaxSize(30);
  }

  @Property(tries = 300)
  void anyTokensStreamToTheirText(@ForAll("tokens") int[] ids) {
    assertThat(stream(ids)).isEqualTo(TOKENIZER.decode(ids));
  }

  @Property(tries = 300)
  void anyBytesStreamToTheirText(@ForAll("bytes") int[] ids) {
    assertThat(stream(ids)).isEqualTo(TOKENIZER.decode(ids));
  }

  @Test
  void aContextKeepsTheSpaceBeforeTheNextWord() {
    var ids = TOKENIZER.encode("Once upon a time");
    var decoder = TOKENIZER.newDecoder(Arrays.copyOf(ids, ids.length - 1));
    assertThat(decoder.accept(ids[ids.length - 1])).isEqualTo(" time");
  }

  @Test
  void textWithAHalfCharacterIsRefused() {
    assertThatThrownBy(() -> TOKENIZER.encode("a\uD83D"))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessageContainingAll("U+D83D", "index 1");
    assertThatThrownBy(() -> TOKENIZER.encode(null)).isInstanceOf(InvalidArgumentException.class);
    assertThatThrownBy(() -> TOKENIZER.decode(new int[] {3, -1}))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContainingAll("ids[1]", "-1");
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "{", "{}", "[]", "null", "{\"version\": \"1.0\"}",
      "{\"version\": \"1.0\", \"model\": {\"type\": \"Nonsense\"}}"})
  void whatIsNoTokenizerIsRefused(String json) {
    assertThatThrownBy(
        () -> Tokenizer.load(json.getBytes(StandardCharsets.UTF_8), "m/tokenizer.json"))
        .isInstanceOf(ModelFormatException.class)
        .message().startsWith("m/tokenizer.json: not a valid tokenizer: ").doesNotContain("\n");
  }

  /** Each of these made the tokenizers library panic, which ends the process. */
  @ParameterizedTest
  @CsvSource(delimiter = '|', quoteCharacter = '`', textBlock = """
      "continuing_subword_prefix":null | "continuing_subword_prefix":"##########" | prefix
      "special_tokens":{ | "special_tokens":{},"others":{ | special_tokens does not define
      "normalizer":null | "normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"} | Precompiled
      "normalizer":null | "normalizer":{"type":"Replace","pattern":{"Regex":""},"content":"y"} | Replace
      "normalizer":null | "normalizer":{"type":"Prepend","prepend":""} | Prepend
      "normalizer":null | "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":""}]} | Prepend
      "pre_tokenizer":{"type":"Sequence" | "pre_tokenizer":{"type":"FixedLength","length":0 | FixedLength
      "decoder":{"type":"ByteLevel" | "decoder":{"type":"Strip","content":"H","start":0,"stop":9 | Strip.stop""")
  void whatWouldEndTheProcessIsRefused(String from, String to, String part) {
    String json;
    try (var source = ModelSource.embedded()) {
      json = new String(Json.write(Json.parse(source.read("tokenizer.json"), "x"), false),
          StandardCharsets.UTF_8);
    }
    assertThat(json).contains(from);
    var changed = json.replace(from, to).getBytes(StandardCharsets.UTF_8);
    assertThatThrownBy(() -> Tokenizer.load(changed, "m/tokenizer.json"))
        .isInstanceOf(ModelFormatException.class)
        .message().startsWith("m/tokenizer.json: not a valid tokenizer: ").contains(part);
  }

  /** The parts that LLaMA 2's tokenizer is made of, which puts a space before every text. */
  @Test
  void aTokenizerThatDropsTheFirstSpaceStreamsItsText() {
    var json = """
        {"version": "1.0", "added_tokens": [],
         "normalizer": {"type": "Sequence", "normalizers": [
           {"type": "Prepend", "prepend": "_"},
           {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]},
         "pre_tokenizer": null, "post_processor": null,
         "decoder": {"type": "Sequence", "decoders": [
           {"type": "Replace", "pattern": {"String": "_"}, "content": " "},
           {"type": "ByteFallback"}, {"type": "Fuse"},
           {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
         "model": {"type": "BPE", "byte_fallback": true, "unk_token": null, "fuse_unk": true,
           "vocab": {"_": 0, "a": 1, "b": 2, "_a": 3, "_b": 4, "<0xF0>": 5, "<0x9F>": 6,
             "<0x90>": 7, "<0xB2>": 8}, "merges": ["_ a", "_ b"]}}""";
    try (var tokenizer = Tokenizer.load(json.getBytes(StandardCharsets.UTF_8), "llama-2")) {
      var text = "a b 🐲🐲 ba";
      var ids = tokenizer.encode(text);
      assertThat(ids).startsWith(3, 4, 0, 5, 6, 7, 8, 5);
      assertThat(tokenizer.decode(ids)).isEqualTo(text);
      var decoder = tokenizer.newDecoder();
      var streamed = new StringBuilder();
      for (int id : ids) {
        streamed.append(decoder.accept(id));
      }
      assertThat(streamed.append(decoder.finish()).toString()).isEqualTo(text);
      assertThat(tokenizer.newDecoder(new int[] {3}).accept(4)).isEqualTo(" b");
    }
  }

  @Test
  void aMissingTokenizerIsReported(@TempDir Path directory) throws IOException {
    Files.writeString(directory.resolve("config.json"), "{}");
    try (var source = ModelSource.directory(directory)) {
      assertThatThrownBy(() -> Tokenizer.load(source)).isInstanceOf(ModelFormatException.class)
          .hasMessageContainingAll("tokenizer.json", "no such file");
    }
  }

  @Test
  void useAfterCloseIsAnException() {
    var tokenizer = load();
    var decoder = tokenizer.newDecoder();
    tokenizer.close();
    tokenizer.close();
    assertThatThrownBy(() -> tokenizer.encode("x")).isInstanceOf(ClosedException.class);
    assertThatThrownBy(() -> tokenizer.decode(new int[] {5})).isInstanceOf(ClosedException.class);
    assertThatThrownBy(() -> decoder.accept(5)).isInstanceOf(ClosedException.class);
  }
}
