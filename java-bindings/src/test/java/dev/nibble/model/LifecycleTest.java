// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ClosedException;
import dev.nibble.ConcurrentUseException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import dev.nibble.generate.Sampler;
import java.util.ArrayList;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Closing, use after close and use from two threads: typed exceptions, never a crash. */
@Timeout(120)
class LifecycleTest {
  private static final int[] TOKENS = Models.expected("golden/gqa-tied").tokens();

  private static LlamaModel load() {
    return LlamaModel.load(Models.resource("golden/gqa-tied"), LoadOptions.defaults());
  }

  @Test
  void closingTwiceIsHarmless() {
    var model = load();
    var session = model.newSession();
    session.forward(TOKENS);
    session.close();
    session.close();
    model.close();
    model.close();
  }

  @Test
  void useAfterCloseNamesWhatIsClosed() {
    var model = load();
    var session = model.newSession();
    session.close();
    assertThatThrownBy(() -> session.forward(1)).isInstanceOf(ClosedException.class)
        .hasMessage("the session is closed");
    assertThatThrownBy(session::reset).isInstanceOf(ClosedException.class);
    model.close();
    assertThatThrownBy(model::newSession).isInstanceOf(ClosedException.class)
        .hasMessageStartingWith("the model").hasMessageEndingWith("gqa-tied is closed");
  }

  @Test
  void sessionOutlivesItsModelOnlyToBeClosed() {
    var model = load();
    var session = model.newSession();
    session.forward(TOKENS);
    model.close();
    assertThatThrownBy(() -> session.forward(1)).isInstanceOf(ClosedException.class)
        .hasMessageContaining("the model");
    assertThatThrownBy(() -> session.forward(TOKENS)).isInstanceOf(ClosedException.class);
    assertThatThrownBy(() -> session.forwardAll(TOKENS, (i, logits) -> {}))
        .isInstanceOf(ClosedException.class);
    session.close();
  }

  @Test
  void logitsOfAClosedSessionAreRefusedByTheJvm() {
    try (var model = load()) {
      var session = model.newSession();
      var logits = session.forward(1);
      session.close();
      assertThatThrownBy(() -> Models.toArray(logits)).isInstanceOf(IllegalStateException.class);
    }
  }

  @Test
  void secondThreadIsRefusedAndTheFirstGoesOn() throws Exception {
    try (var model = load(); var session = model.newSession()) {
      var inside = new CountDownLatch(1);
      var leave = new CountDownLatch(1);
      var seen = new AtomicInteger();
      var first = CompletableFuture.runAsync(() -> session.forwardAll(TOKENS, (i, logits) -> {
        inside.countDown();
        await(leave);
        seen.incrementAndGet();
      }));
      await(inside);
      assertThatThrownBy(() -> session.forward(1)).isInstanceOf(ConcurrentUseException.class)
          .hasMessageContaining("the session serves one call at a time");
      assertThatThrownBy(session::reset).isInstanceOf(ConcurrentUseException.class);
      leave.countDown();
      first.get(60, TimeUnit.SECONDS);
      assertThat(seen).hasValue(TOKENS.length);
      assertThat(session.position()).isEqualTo(TOKENS.length);
    }
  }

  @Test
  void ownCallbackMayNeitherUseNorCloseTheSession() {
    try (var model = load(); var session = model.newSession()) {
      session.forwardAll(new int[] {1}, (i, logits) -> {
        assertThatThrownBy(() -> session.forward(1)).isInstanceOf(ConcurrentUseException.class)
            .hasMessageContaining("inside its own callback");
        assertThatThrownBy(session::close).isInstanceOf(ConcurrentUseException.class)
            .hasMessageContaining("inside its own callback");
      });
      assertThat(session.position()).isEqualTo(1);
    }
  }

  @Test
  void closeWaitsForTheCallInProgress() throws Exception {
    try (var model = load()) {
      var session = model.newSession();
      var inside = new CountDownLatch(1);
      var leave = new CountDownLatch(1);
      var finished = new AtomicInteger();
      var call = CompletableFuture.runAsync(() -> session.forwardAll(TOKENS, (i, logits) -> {
        inside.countDown();
        await(leave);
        Models.toArray(logits); // would fail if the memory were gone
        finished.incrementAndGet();
      }));
      await(inside);
      var closing = CompletableFuture.runAsync(session::close);
      Thread.sleep(50);
      assertThat(closing).isNotDone();
      leave.countDown();
      call.get(60, TimeUnit.SECONDS);
      closing.get(60, TimeUnit.SECONDS);
      assertThat(finished).hasValue(TOKENS.length);
      assertThatThrownBy(() -> session.forward(1)).isInstanceOf(ClosedException.class);
    }
  }

  /** Closes model or session at random moments of another thread's work, many times. */
  @Test
  void closingUnderLoadNeverCrashes() throws Exception {
    for (int round = 0; round < 60; round++) {
      var model = load();
      var session = model.newSession();
      var running = new CountDownLatch(1);
      Callable<Integer> work = () -> {
        int calls = 0;
        while (true) {
          session.reset();
          session.forward(TOKENS);
          session.forward(1);
          calls++;
          running.countDown();
        }
      };
      var result = CompletableFuture.supplyAsync(() -> {
        try {
          return work.call();
        } catch (Exception e) {
          throw new CompletionException(e);
        }
      });
      await(running);
      busyWait(round * 20_000L);
      if (round % 2 == 0) {
        model.close();
        session.close();
      } else {
        session.close();
        model.close();
      }
      assertThatThrownBy(() -> result.get(60, TimeUnit.SECONDS))
          .hasCauseInstanceOf(ClosedException.class);
    }
  }

  @Test
  void severalSessionsOnSeveralThreadsGiveTheSameLogits() throws Exception {
    try (var model = load(); var alone = model.newSession()) {
      var expected = Models.toArray(alone.forward(TOKENS));
      var results = new ArrayList<CompletableFuture<float[]>>();
      for (int i = 0; i < 4; i++) {
        results.add(CompletableFuture.supplyAsync(() -> {
          try (var session = model.newSession()) {
            float[] logits = null;
            for (int repeat = 0; repeat < 20; repeat++) {
              session.reset();
              logits = Models.toArray(session.forward(TOKENS));
            }
            return logits;
          }
        }));
      }
      for (var result : results) {
        assertThat(result.get(60, TimeUnit.SECONDS)).containsExactly(expected);
      }
    }
  }

  @Test
  void virtualThreadsMayUseSessions() throws Exception {
    try (var model = load()) {
      var failures = new AtomicInteger();
      var threads = new ArrayList<Thread>();
      for (int i = 0; i < 8; i++) {
        threads.add(Thread.startVirtualThread(() -> {
          try (var session = model.newSession(64)) {
            session.forward(TOKENS);
          } catch (RuntimeException e) {
            failures.incrementAndGet();
          }
        }));
      }
      for (var thread : threads) {
        thread.join();
      }
      assertThat(failures).hasValue(0);
    }
  }

  @Test
  void tooLongPromptNamesTheNumbers() {
    try (var model = load(); var session = model.newSession(10)) {
      assertThatThrownBy(() -> session.forward(TOKENS))
          .isInstanceOf(InvalidArgumentException.class)
          .hasMessage("tokens: 48 tokens given, but the context holds 10");
      assertThat(session.position()).isZero();
      session.forward(new int[8]);
      assertThatThrownBy(() -> session.forward(new int[3]))
          .hasMessage("tokens: 3 tokens given, but the context of 10 has room for 2 more");
      session.forward(new int[2]);
      assertThatThrownBy(() -> session.forward(1)).isInstanceOf(InvalidArgumentException.class)
          .hasMessageContaining("full").hasMessageContaining("10");
    }
  }

  @Test
  void badTokensAreNamed() {
    try (var model = load(); var session = model.newSession()) {
      assertThatThrownBy(() -> session.forward(new int[] {1, 320}))
          .isInstanceOf(InvalidArgumentException.class)
          .hasMessage("tokens[1] is 320, expected 0 to 319");
      assertThatThrownBy(() -> session.forward(-1)).hasMessage("token is -1, expected 0 to 319");
      assertThatThrownBy(() -> session.forward(new int[0])).hasMessageContaining("at least one");
      assertThat(session.position()).isZero();
      assertThatThrownBy(() -> session.rewind(1)).isInstanceOf(InvalidArgumentException.class);
    }
  }

  @Test
  void modelWithoutTokenizerSaysSo() {
    try (var model = load(); var session = model.newSession()) {
      assertThatThrownBy(() -> session.generate("x", Sampler.greedy(), text -> true, 1))
          .isInstanceOf(UnsupportedException.class).hasMessageContaining("tokenizer.json");
    }
  }

  @Test
  void capacityIsChecked() {
    try (var model = load()) {
      assertThat(model.defaultCapacity()).isEqualTo(512);
      assertThatThrownBy(() -> model.newSession(0)).isInstanceOf(InvalidArgumentException.class);
      assertThatThrownBy(() -> model.newSession(513))
          .hasMessageContaining("513").hasMessageContaining("512");
      assertThatCode(() -> model.newSession(512).close()).doesNotThrowAnyException();
    }
  }

  private static void await(CountDownLatch latch) {
    try {
      if (!latch.await(60, TimeUnit.SECONDS)) {
        throw new AssertionError("waited for a minute");
      }
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  private static void busyWait(long nanos) {
    long end = System.nanoTime() + nanos;
    while (System.nanoTime() < end) {
      Thread.onSpinWait();
    }
  }
}
