// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ClosedException;
import dev.nibble.ConcurrentUseException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.model.Generation.StopReason;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.model.Models;
import dev.nibble.model.ProgressListener;
import dev.nibble.model.TokenSampler;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** Text from the embedded model, in the default scheme. */
class GenerationTest {
  private static final String PROMPT = "Once upon a time";
  private static LlamaModel model;

  @BeforeAll
  static void load() {
    model = Models.fable("w4a8");
  }

  @AfterAll
  static void close() {
    model.close();
  }

  private static String generate(Sampler sampler, int maxTokens) {
    var text = new StringBuilder();
    try (var session = model.newSession()) {
      session.generate(PROMPT, sampler, piece -> {
        text.append(piece);
        return true;
      }, maxTokens);
    }
    return text.toString();
  }

  @Test
  void sameSeedSameText() {
    var first = generate(Sampler.topP(0.9f, 0.8f, 42), 60);
    assertThat(first).isNotBlank();
    assertThat(generate(Sampler.topP(0.9f, 0.8f, 42), 60)).isEqualTo(first);
    assertThat(generate(Sampler.topP(0.9f, 0.8f, 43), 60)).isNotEqualTo(first);
  }

  @Test
  void threadsDoNotChangeTheText() {
    var expected = generate(Sampler.greedy(), 60);
    try (var single = LlamaModel.loadEmbedded(
            LoadOptions.defaults().withThreads(1).withScheme("w4a8"));
        var generator = new Generator(single, Sampler.greedy().options(), 60)) {
      assertThat(generator.generate(PROMPT)).isEqualTo(expected);
    }
  }

  @Test
  void piecesAreTheDecodedTokens() {
    var pieces = new ArrayList<String>();
    try (var session = model.newSession()) {
      var result = session.generate(PROMPT, Sampler.greedy(), pieces::add, 30);
      assertThat(result.promptTokens())
          .isEqualTo(model.tokenizer().orElseThrow().encode(PROMPT).length);
      assertThat(result.generatedTokens()).isEqualTo(30);
      assertThat(result.reason()).isEqualTo(StopReason.MAX_TOKENS);
      assertThat(result.firstTokenNanos()).isPositive();
      assertThat(result.decodeTokensPerSecond()).isPositive();
      assertThat(session.position()).isEqualTo(result.promptTokens() + 29);
    }
    assertThat(String.join("", pieces)).isEqualTo(generate(Sampler.greedy(), 30)).startsWith(" ")
        .doesNotContain("\uFFFD");
  }

  @Test
  void sinkStopsIt() {
    var pieces = new ArrayList<String>();
    try (var session = model.newSession()) {
      var result = session.generate(PROMPT, Sampler.greedy(), text -> {
        pieces.add(text);
        return pieces.size() < 3;
      }, 100);
      assertThat(result.reason()).isEqualTo(StopReason.SINK);
      assertThat(pieces).hasSize(3);
      // The session is not poisoned: the next text starts anew.
      assertThat(session.generate(PROMPT, Sampler.greedy(), text -> true, 2).generatedTokens())
          .isEqualTo(2);
    }
  }

  @Test
  void fullContextStopsIt() {
    try (var session = model.newSession(12)) {
      var result = session.generate(PROMPT, Sampler.greedy(), text -> true, 100);
      assertThat(result.reason()).isEqualTo(StopReason.CONTEXT_FULL);
      assertThat(session.position()).isEqualTo(12);
      // The last token is chosen from the last position and needs no room.
      assertThat(result.generatedTokens()).isEqualTo(12 - result.promptTokens() + 1);
      assertThatThrownBy(() -> session.generate(
          "A long prompt that has many more words than this small session has room for",
          Sampler.greedy(), text -> true, 1)).isInstanceOf(InvalidArgumentException.class)
          .hasMessageStartingWith("prompt: ").hasMessageEndingWith("but the context holds 12");
    }
  }

  @Test
  void endOfTextStopsIt() {
    try (var session = model.newSession()) {
      // A sampler that insists on the end token after three others.
      int[] calls = {0};
      var result = session.generate(PROMPT, new TokenSampler() {
        @Override
        public void observe(int token) {}

        @Override
        public int choose(MemorySegment logits) {
          return ++calls[0] == 4 ? 1 : 300;
        }
      }, text -> true, 100);
      assertThat(result.reason()).isEqualTo(StopReason.END_OF_TEXT);
      assertThat(result.generatedTokens()).isEqualTo(4);
    }
  }

  @Test
  void sinkMayNotUseOrCloseTheSessionButMayCloseTheModel() {
    var own = Models.fable("w4a8");
    try (var session = own.newSession()) {
      assertThatThrownBy(() -> session.generate(PROMPT, Sampler.greedy(), text -> {
        assertThatThrownBy(() -> session.forward(1)).isInstanceOf(ConcurrentUseException.class);
        assertThatThrownBy(session::close).isInstanceOf(ConcurrentUseException.class);
        own.close();
        return true;
      }, 5)).isInstanceOf(ClosedException.class);
    }
  }

  @Test
  void nothingToDoIsLegal() {
    try (var session = model.newSession()) {
      var result = session.generate(PROMPT, Sampler.greedy(), text -> true, 0);
      assertThat(result.generatedTokens()).isZero();
      assertThat(result.decodeTokensPerSecond()).isZero();
      assertThatThrownBy(() -> session.generate(PROMPT, Sampler.greedy(), text -> true, -1))
          .isInstanceOf(InvalidArgumentException.class);
      assertThatThrownBy(() -> session.generate(new int[0], Sampler.greedy(), text -> true, 1))
          .isInstanceOf(InvalidArgumentException.class).hasMessageStartingWith("prompt");
    }
  }

  @Test
  void generatorRepeatsItself() {
    try (var generator =
        new Generator(model, Sampler.builder().topK(20).seed(9).options(), 20)) {
      var first = generator.generate(PROMPT);
      assertThat(generator.generate("Another story")).isNotEqualTo(first);
      assertThat(generator.generate(PROMPT)).isEqualTo(first);
    }
    assertThatThrownBy(() -> new Generator(model, Sampler.builder().options(), 0))
        .isInstanceOf(InvalidArgumentException.class);
  }

  @Test
  void perplexityChecksItsArguments() {
    assertThatThrownBy(() -> Perplexity.measure(model, new int[1], 16, ProgressListener.NONE))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("tokens");
    for (int window : new int[] {1, 1025}) {
      assertThatThrownBy(() -> Perplexity.measure(model, new int[9], window, ProgressListener.NONE))
          .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("1024");
    }
    var seen = new ArrayList<Long>();
    var result = Perplexity.measure(model, new int[9], 4, (what, done, total) -> seen.add(done));
    assertThat(result.scoredTokens()).isEqualTo(6); // 3 + 3 + 0
    assertThat(seen).containsExactly(0L, 4L, 8L, 9L);
  }
}
