// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.PackedMatrix;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Weights of a checkpoint whose matrices come from a cache of packed ones where it has them. What
 * it lacks is packed from the checkpoint, and the cache written anew at the end. Vectors are small
 * and always the checkpoint's. For one thread.
 */
final class CachedWeights implements WeightSource {
  private final CheckpointWeights checkpoint;
  private final PackedCacheFile cache;
  private final Context context;
  private final Map<String, PackedMatrix> matrices = new LinkedHashMap<>();
  private boolean complete = true;

  /** Takes over the checkpoint, which is closed with this; the cache stays the caller's. */
  CachedWeights(CheckpointWeights checkpoint, PackedCacheFile cache, Context context) {
    this.checkpoint = checkpoint;
    this.cache = cache;
    this.context = context;
  }

  @Override
  public PackedMatrix matrix(String name, int rows, int cols, WeightFormat format) {
    var matrix = cache.read(context, name, rows, cols, format);
    if (matrix == null) {
      complete = false;
      matrix = checkpoint.matrix(name, rows, cols, format);
    } else {
      checkpoint.skip(name, format);
    }
    matrices.put(name, matrix);
    return matrix;
  }

  @Override
  public float[] vector(String name, int size) {
    return checkpoint.vector(name, size);
  }

  /** Writes the cache if it lacked anything; the matrices must still be open. */
  @Override
  public void finish() {
    checkpoint.finish();
    if (!complete) {
      cache.write(context, matrices);
    }
  }

  @Override
  public void close() {
    checkpoint.close();
  }
}
