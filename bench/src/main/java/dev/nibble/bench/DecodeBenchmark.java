// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.model.Session;
import dev.nibble.model.SyntheticConfigs;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/** A whole decode step: one token through a model, behind at most 64 others. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
public class DecodeBenchmark {
  private static final int TOKENS = 64;

  /** A scheme, as {@code --scheme} names it. */
  @Param({"w4a8", "w4a8i"})
  public String scheme;

  /** A shape, as {@code --synthetic} names it. */
  @Param("llama-3.2-1b")
  public String model;

  private LlamaModel loaded;
  private Session session;
  private int vocabulary;

  /** Makes the weights. */
  @Setup
  public void prepare() {
    loaded = LlamaModel.synthetic(
        SyntheticConfigs.of(model), LoadOptions.defaults().withScheme(scheme), 1);
    session = loaded.newSession(TOKENS);
    vocabulary = loaded.config().vocabSize();
  }

  /** One token. */
  @Benchmark
  public MemorySegment decode() {
    if (session.position() == TOKENS) {
      session.reset();
    }
    return session.forward(session.position() * 977 % vocabulary);
  }

  /** Frees the model. */
  @TearDown
  public void close() {
    session.close();
    loaded.close();
  }
}
