// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import static org.assertj.core.api.Assertions.assertThat;

import com.sun.management.ThreadMXBean;
import dev.nibble.generate.Sampler;
import java.lang.management.ManagementFactory;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** After warm-up, the forward pass and the sampler allocate nothing on the Java heap. */
class AllocationTest {
  private static final ThreadMXBean THREADS =
      (ThreadMXBean) ManagementFactory.getThreadMXBean();
  private static final int TOKENS = 100;
  /** The JIT decides when the last temporary is optimized away; rounds until then are warm-up. */
  private static final int MAX_ROUNDS = 300;

  @ParameterizedTest
  @ValueSource(strings = {"f32", "w4a8"})
  void decodingAllocatesNothing(String scheme) {
    var sampler = Sampler.builder().temperature(0.8f).topK(50).topP(0.9f).minP(0.05f)
        .repeatPenalty(1.1f).seed(1).build();
    try (var model = LlamaModel.load(
            Models.resource("golden/gqa-tied"), LoadOptions.defaults().withScheme(scheme));
        var session = model.newSession(TOKENS + 1)) {
      assertReachesZero(() -> {
        session.reset();
        int token = 1;
        for (int i = 0; i < TOKENS; i++) {
          var logits = session.forward(token);
          token = sampler.choose(logits);
          sampler.observe(token);
        }
      });
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"f32", "w4a8"})
  void prefillAllocatesNothing(String scheme) {
    var tokens = new int[40];
    try (var model = LlamaModel.load(
            Models.resource("golden/gqa-tied"), LoadOptions.defaults().withScheme(scheme));
        var session = model.newSession()) {
      assertReachesZero(() -> {
        for (int i = 0; i < 10; i++) {
          session.reset();
          session.forward(tokens);
        }
      });
    }
  }

  /** Greedy and plain sampling have paths of their own. */
  @ParameterizedTest
  @ValueSource(strings = {"greedy", "plain", "topP"})
  void samplersAllocateNothing(String kind) {
    var sampler = switch (kind) {
      case "greedy" -> Sampler.greedy();
      case "plain" -> Sampler.builder().seed(3).build();
      default -> Sampler.topP(0.9f, 0.7f, 3);
    };
    try (var model = LlamaModel.load(
            Models.resource("golden/gqa-tied"), LoadOptions.defaults().withScheme("f32"));
        var session = model.newSession()) {
      var logits = session.forward(3);
      assertReachesZero(() -> {
        for (int i = 0; i < 100; i++) {
          sampler.observe(sampler.choose(logits));
        }
      });
    }
  }

  /** Repeats work until three rounds running allocate nothing. */
  private static void assertReachesZero(Runnable work) {
    long bytes = -1;
    int zeros = 0;
    for (int round = 0; round < MAX_ROUNDS && zeros < 3; round++) {
      long before = THREADS.getCurrentThreadAllocatedBytes();
      work.run();
      bytes = THREADS.getCurrentThreadAllocatedBytes() - before;
      zeros = bytes == 0 ? zeros + 1 : 0;
    }
    assertThat(bytes).as("bytes allocated in the last round").isZero();
    assertThat(zeros).isEqualTo(3);
  }
}
