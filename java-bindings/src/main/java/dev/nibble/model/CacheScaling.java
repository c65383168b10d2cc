// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.io.CheckpointNames;
import dev.nibble.io.DataType;
import dev.nibble.io.TensorStore;
import dev.nibble.quantize.KvType;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.KvCache;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;

/**
 * What a calibrated model says about its key/value cache: the tensors {@link
 * CheckpointNames#KEY_FACTORS}, {@link CheckpointNames#VALUE_FACTORS} and {@link
 * CheckpointNames#KEY_SCALES}, each of which may be absent (null).
 */
record CacheScaling(float[] keyFactors, float[] valueFactors, float[][] keyScales) {
  static final CacheScaling NONE = new CacheScaling(null, null, null);

  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT.withOrder(ByteOrder.LITTLE_ENDIAN);

  /**
   * Reads what store has.
   *
   * @throws dev.nibble.ModelFormatException naming the tensor and what was expected of it
   */
  static CacheScaling read(TensorStore store, LlamaConfig config) {
    int layers = config.layers();
    var scales = read(store, CheckpointNames.KEY_SCALES, layers, config.kvHeads(),
        config.headDim());
    float[][] byLayer = null;
    if (scales != null) {
      byLayer = new float[layers][];
      for (int i = 0; i < layers; i++) {
        byLayer[i] = Arrays.copyOfRange(scales, i * config.kvSize(), (i + 1) * config.kvSize());
      }
    }
    return new CacheScaling(read(store, CheckpointNames.KEY_FACTORS, layers),
        read(store, CheckpointNames.VALUE_FACTORS, layers), byLayer);
  }

  private static float[] read(TensorStore store, String name, long... shape) {
    if (!store.has(name)) {
      return null;
    }
    var info = store.info(name);
    if (info.dataType() != DataType.F32 || !Arrays.equals(info.shape(), shape)) {
      throw info.problem(info.dataType().safetensorsName() + " " + info.shapeText()
          + ", expected F32 " + Arrays.toString(shape));
    }
    var bytes = new byte[Math.toIntExact(info.byteLength())];
    store.read(name, MemorySegment.ofArray(bytes));
    var values = new float[bytes.length / Float.BYTES];
    for (int i = 0; i < values.length; i++) {
      values[i] = MemorySegment.ofArray(bytes).get(FLOAT.withByteAlignment(1), 4L * i);
      if (!(values[i] >= Float.MIN_NORMAL && values[i] <= Float.MAX_VALUE)) {
        throw info.problem(
            "element " + i + " is " + values[i] + ", expected a normal positive number");
      }
    }
    return values;
  }

  /** An empty cache; scales and factors that its type has no use for are left out. */
  KvCache newCache(Context context, KvType type, LlamaConfig config, int capacity) {
    boolean kv4 = type == KvType.KV4;
    var cache = context.newKvCache(new KvCache.Options(type, config.layers(), config.kvHeads(),
        config.headDim(), capacity, 0, kv4 ? keyFactors : null, kv4 ? valueFactors : null));
    boolean complete = false;
    try {
      for (int i = 0; keyScales != null && kv4 && i < keyScales.length; i++) {
        cache.setKeyScales(i, keyScales[i]);
      }
      complete = true;
      return cache;
    } finally {
      if (!complete) {
        cache.close();
      }
    }
  }
}
