// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.io.DataType;
import dev.nibble.quantize.KvType;
import dev.nibble.tensor.Attention;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.KvCache;
import dev.nibble.tensor.SequenceBatch;
import dev.nibble.tensor.Tensor;
import dev.nibble.tensor.TensorArena;
import java.util.SplittableRandom;
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

/**
 * Decode attention through the Java facade at Llama-3.2-1B's heads; the layers' caches together
 * exceed the processor's.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
public class AttentionBenchmark {
  private static final int HEADS = 32;
  private static final int KV_HEADS = 8;
  private static final int HEAD_DIM = 64;

  /** The cache's type. */
  @Param({"KV4", "KV8", "KV16"})
  public KvType cache;

  /** Tokens in the cache. */
  @Param("4096")
  public int tokens;

  /** Layers, each with keys and values of its own. */
  @Param("64")
  public int layers;

  private Context context;
  private TensorArena arena;
  private KvCache keysAndValues;
  private Attention[] operations;
  private int next;

  /** Fills the caches. */
  @Setup
  public void prepare() {
    context = Context.create();
    arena = new TensorArena();
    keysAndValues = context.newKvCache(
        new KvCache.Options(cache, layers, KV_HEADS, HEAD_DIM, tokens));
    var batch = new SequenceBatch(keysAndValues);
    var q = random(tokens, HEADS * HEAD_DIM);
    var k = random(tokens, KV_HEADS * HEAD_DIM);
    var v = random(tokens, KV_HEADS * HEAD_DIM);
    batch.set(0, 0, tokens);
    for (int layer = 0; layer < layers; layer++) {
      context.bindRopeAppend(layer, q, k, v, null, batch).run();
    }
    var y = arena.allocate(DataType.F32, 1, HEADS * HEAD_DIM);
    var one = q.rows(0, 1);
    operations = new Attention[layers];
    for (int layer = 0; layer < layers; layer++) {
      operations[layer] = context.bindAttention(layer, one, 0.125f, batch, y);
    }
    batch.set(0, tokens - 1, 1);
  }

  /** One query token against one layer's cache. */
  @Benchmark
  public void decode() {
    operations[next].run();
    next = next + 1 == layers ? 0 : next + 1;
  }

  /** Frees everything. */
  @TearDown
  public void close() {
    keysAndValues.close();
    arena.close();
    context.close();
  }

  private Tensor random(int rows, int cols) {
    var random = new SplittableRandom(cols);
    var values = new float[rows * cols];
    for (int i = 0; i < values.length; i++) {
      values[i] = random.nextFloat() * 2 - 1;
    }
    var tensor = arena.allocate(DataType.F32, rows, cols);
    tensor.copyFrom(values);
    return tensor;
  }
}
