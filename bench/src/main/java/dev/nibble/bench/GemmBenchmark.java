// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.io.DataType;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.MatMul;
import dev.nibble.tensor.Projection;
import dev.nibble.tensor.Tensor;
import dev.nibble.tensor.TensorArena;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
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
 * A product through the Java facade, at a shape of the list; weights cycle through copies beyond
 * the caches, as in the native benchmark.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
public class GemmBenchmark {
  /** A kernel of {@code bench/shapes.txt}. */
  @Param({"a8f_w4", "a8i_w4", "a16_w6e3m2", "a8i_w8i"})
  public String kernel;

  /** A matrix of {@code bench/shapes.txt}, {@code "MODEL NAME"}. */
  @Param("llama-3.2-1b gate")
  public String matrix;

  /** Activation rows. */
  @Param({"1", "8", "512"})
  public int rows;

  /** Bytes of weights that the copies have together. */
  @Param("536870912")
  public long coldBytes;

  private final List<AutoCloseable> open = new ArrayList<>();
  private MatMul[] products;
  private int next;

  /** Packs the copies. */
  @Setup
  public void prepare() {
    var list = ShapeList.read(Path.of(System.getProperty("nibble.bench.shapes")));
    var type = list.kernel(kernel);
    var shape = list.matrix(matrix);
    var context = keep(Context.create());
    var arena = keep(new TensorArena());
    var x = arena.allocate(DataType.F32, rows, shape.k());
    var y = arena.allocate(DataType.F32, rows, shape.n());
    x.copyFrom(random(rows * shape.k()));
    var made = new ArrayList<MatMul>();
    try (var values = Tensor.of(random(shape.n() * shape.k()), shape.n(), shape.k());
        var codes = context.quantize(values, type.format())) {
      long bytes = 0;
      do {
        var copy = keep(context.pack(codes));
        bytes += copy.packedBytes();
        made.add(context.bindMatMul(type.activations(), x, null, new Projection(copy, y)));
      } while (bytes < coldBytes);
    }
    products = made.toArray(MatMul[]::new);
  }

  /** One product. */
  @Benchmark
  public void matmul() {
    products[next].run(rows);
    next = next + 1 == products.length ? 0 : next + 1;
  }

  /** Frees everything, the context last. */
  @TearDown
  public void close() throws Exception {
    for (var each : open.reversed()) {
      each.close();
    }
    open.clear();
  }

  private <T extends AutoCloseable> T keep(T resource) {
    open.add(resource);
    return resource;
  }

  private static float[] random(int count) {
    var random = new SplittableRandom(1);
    var values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = random.nextFloat() * 2 - 1;
    }
    return values;
  }
}
