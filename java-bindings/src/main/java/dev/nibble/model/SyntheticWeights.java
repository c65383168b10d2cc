// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.PackedMatrix;
import dev.nibble.tensor.QuantizedWeights;
import dev.nibble.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.random.RandomGenerator;
import java.util.random.RandomGeneratorFactory;

/**
 * Random weights made in memory, for measuring speed: a block of rows is drawn and quantized, then
 * repeated to fill the matrix, so that billions of weights take seconds. The values keep the
 * variance of their input, as in a model at its start; what such a model says means nothing.
 */
final class SyntheticWeights implements WeightSource {
  private static final int BLOCK_ROWS = 64;

  private final Context context;
  private final ProgressListener progress;
  private final long parameters;
  private final RandomGenerator random;
  private long done;

  SyntheticWeights(
      Context context, LlamaConfig config, long seed, ProgressListener progress) {
    this.context = context;
    this.progress = progress;
    this.parameters = config.parameters();
    this.random = RandomGeneratorFactory.of("L64X128MixRandom").create(seed);
  }

  @Override
  public PackedMatrix matrix(String name, int rows, int cols, WeightFormat format) {
    progress.progress(name, done, parameters);
    int blockRows = Math.min(rows, BLOCK_ROWS);
    float bound = (float) Math.sqrt(3.0 / cols);
    try (var block = Tensor.of(uniform(blockRows * cols, bound), blockRows, cols);
        var codes = context.quantize(block, format);
        var all = QuantizedWeights.allocate(format, rows, cols)) {
      repeat(codes.codes(), all.codes());
      repeat(codes.codesHigh(), all.codesHigh());
      repeat(codes.scales(), all.scales());
      repeat(codes.factors(), all.factors());
      done += (long) rows * cols;
      return context.pack(all);
    }
  }

  private float[] uniform(int count, float bound) {
    var values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (random.nextFloat() * 2 - 1) * bound;
    }
    return values;
  }

  /** All parts but a single factor have whole rows, so a block's bytes repeat. */
  private static void repeat(MemorySegment block, MemorySegment all) {
    for (long offset = 0; offset < all.byteSize(); offset += block.byteSize()) {
      long bytes = Math.min(block.byteSize(), all.byteSize() - offset);
      MemorySegment.copy(block, 0, all, offset, bytes);
    }
  }

  @Override
  public float[] vector(String name, int size) {
    done += size;
    if (name.endsWith(".bias")) {
      return uniform(size, 0.01f);
    }
    var ones = new float[size];
    Arrays.fill(ones, 1);
    return ones;
  }

  @Override
  public void finish() {
    progress.progress("", parameters, parameters);
  }

  @Override
  public void close() {}
}
