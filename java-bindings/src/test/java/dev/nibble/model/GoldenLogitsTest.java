// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The F32 forward pass against logits that Hugging Face transformers computed. */
class GoldenLogitsTest {
  /** The bound that the project sets itself for a whole F32 model. */
  private static final double TOLERANCE = 2e-4;

  @ParameterizedTest
  @CsvSource({
    "gqa-tied, 1000", "gqa-tied, 7", "gqa-tied, 1", "mha-untied, 1000", "mha-untied, 16",
    "mha-untied, 1"
  })
  void smallModelsInOneCallInChunksAndTokenByToken(String name, int chunk) {
    var expected = Models.expected("golden/" + name);
    try (var model = LlamaModel.load(
            Models.resource("golden/" + name), LoadOptions.defaults().withScheme("f32"));
        var session = model.newSession(expected.tokens().length)) {
      var rows = Models.logits(session, expected.tokens(), chunk);
      assertThat(rows).hasSize(48);
      int vocabulary = model.config().vocabSize();
      for (int i = 0; i < rows.size(); i++) {
        assertThat(rows.get(i)).hasSize(vocabulary);
        assertThat(Models.difference(rows.get(i), expected.logits(), i * vocabulary))
            .as("token %d", i).isLessThanOrEqualTo(TOLERANCE);
      }
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {256, 100, 1})
  void fable(int chunk) {
    var expected = Models.expected("fable-4m");
    int[] kept = {0, 1, 63, 127, 255};
    try (var model = Models.fable("f32"); var session = model.newSession(256)) {
      var rows = Models.logits(session, expected.tokens(), chunk);
      int vocabulary = model.config().vocabSize();
      for (int i = 0; i < kept.length; i++) {
        assertThat(Models.difference(rows.get(kept[i]), expected.logits(), i * vocabulary))
            .as("token %d", kept[i]).isLessThanOrEqualTo(TOLERANCE);
      }
    }
  }

  @Test
  void fableContinuesLikeTheReference() {
    try (var model = Models.fable("f32"); var session = model.newSession(64)) {
      var tokens = model.tokenizer().orElseThrow()
          .encode("Once upon a time there was a king");
      var logits = Models.toArray(session.forward(tokens));
      var best = new Integer[logits.length];
      Arrays.setAll(best, i -> i);
      Arrays.sort(best, (a, b) -> Float.compare(logits[b], logits[a]));
      var text = model.tokenizer().orElseThrow();
      var words = Arrays.stream(best).limit(5).map(i -> text.decode(new int[] {i})).toList();
      assertThat(words).containsExactly(" who", " and", "'s", " whose", ",");
      assertThat(logits[best[0]]).isCloseTo(11.06f, within(0.01f));
    }
  }

  @Test
  void lastLogitsEqualThoseOfAllTokens() {
    var expected = Models.expected("golden/gqa-tied");
    try (var model = LlamaModel.load(
            Models.resource("golden/gqa-tied"), LoadOptions.defaults().withScheme("f32"));
        var session = model.newSession()) {
      var last = Models.toArray(session.forward(expected.tokens()));
      session.reset();
      var all = Models.logits(session, expected.tokens(), 1000);
      assertThat(Models.difference(last, all.getLast())).isLessThanOrEqualTo(TOLERANCE);
    }
  }

  @Test
  void rewoundTextGoesOnLikeANewOne() {
    var tokens = Models.expected("golden/gqa-tied").tokens();
    try (var model = LlamaModel.load(
            Models.resource("golden/gqa-tied"), LoadOptions.defaults().withScheme("f32"));
        var session = model.newSession(); var fresh = model.newSession()) {
      session.forward(tokens);
      session.rewind(10);
      assertThat(session.position()).isEqualTo(10);
      var after = Models.toArray(session.forward(5));
      fresh.forward(Arrays.copyOf(tokens, 10));
      assertThat(Models.difference(after, Models.toArray(fresh.forward(5))))
          .isLessThanOrEqualTo(TOLERANCE);
    }
  }
}
