// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ffi.nb_kv_cache_options;
import dev.nibble.ffi.nibble_h;
import dev.nibble.quantize.KvType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Objects;

/**
 * Keys and values of one sequence, in all layers, quantized to one {@link KvType}. Made by {@link
 * Context#newKvCache}.
 *
 * <p>One call at a time may use a cache; a second one throws {@link
 * dev.nibble.ConcurrentUseException}. {@link #close} waits for the call that uses it, then frees
 * it; closing twice is harmless. A cache may outlive the context it was made with.
 */
public final class KvCache implements AutoCloseable {

  /**
   * What a cache holds.
   *
   * @param type how keys and values are stored
   * @param layers 1 or more
   * @param kvHeads key/value heads of a layer, 1 or more
   * @param headDim elements of a head, even, 16 to 256
   * @param capacity tokens, 1 or more
   * @param groupSize KV4 only: elements of a head that share one E4M3 scale, a multiple of 16 that
   *     divides headDim, or 0 for the whole head
   * @param keyFactors KV4 only: one factor per layer, or null for 1
   * @param valueFactors the same for values
   */
  public record Options(
      KvType type,
      int layers,
      int kvHeads,
      int headDim,
      long capacity,
      int groupSize,
      float[] keyFactors,
      float[] valueFactors) {

    /** Checks what can be checked without the device. */
    public Options {
      Objects.requireNonNull(type, "type");
      if (layers < 1 || kvHeads < 1 || capacity < 1) {
        throw new InvalidArgumentException("KV cache: " + layers + " layers, " + kvHeads
            + " heads, capacity " + capacity + " given, expected at least 1 of each");
      }
      checkFactors("keyFactors", keyFactors, layers);
      checkFactors("valueFactors", valueFactors, layers);
    }

    /** A cache with one group a head and factors of 1. */
    public Options(KvType type, int layers, int kvHeads, int headDim, long capacity) {
      this(type, layers, kvHeads, headDim, capacity, 0, null, null);
    }

    private static void checkFactors(String name, float[] factors, int layers) {
      if (factors != null && factors.length != layers) {
        throw new InvalidArgumentException(name + ": " + factors.length
            + " given, expected one for each of " + layers + " layers");
      }
    }

    MemorySegment toNative(Arena arena) {
      var struct = nb_kv_cache_options.allocate(arena);
      nb_kv_cache_options.struct_size(struct, nb_kv_cache_options.sizeof());
      nb_kv_cache_options.type(struct, type.nativeId());
      nb_kv_cache_options.layers(struct, layers);
      nb_kv_cache_options.kv_heads(struct, kvHeads);
      nb_kv_cache_options.head_dim(struct, headDim);
      nb_kv_cache_options.capacity(struct, capacity);
      nb_kv_cache_options.group_size(struct, groupSize);
      nb_kv_cache_options.key_factors(struct, copy(arena, keyFactors));
      nb_kv_cache_options.value_factors(struct, copy(arena, valueFactors));
      return struct;
    }

    private static MemorySegment copy(Arena arena, float[] factors) {
      return factors == null
          ? MemorySegment.NULL
          : arena.allocateFrom(ValueLayout.JAVA_FLOAT, factors);
    }
  }

  private final MemorySegment handle;
  private final Options options;
  private final long bytes;
  private final Leases leases = new Leases("the KV cache");

  KvCache(MemorySegment handle, Options options) {
    this.handle = handle;
    this.options = options;
    this.bytes = nibble_h.nb_kv_cache_bytes(handle);
  }

  /**
   * Sets the scales of a layer's keys behind the rotation (FireQ's post-RoPE scaling, arXiv
   * 2505.20839): from now on rotated keys are divided by them before they are stored, and rotated
   * queries multiplied, as {@code nb_kv_cache_set_key_scales} defines it.
   *
   * @param layer 0-based; it must hold no tokens
   * @param scales [kvHeads, headDim], positive normal numbers; null for ones
   * @throws dev.nibble.UnsupportedException if the cache is not on the CPU
   */
  public void setKeyScales(int layer, float[] scales) {
    leases.acquireExclusive();
    try (var arena = Arena.ofConfined()) {
      var struct = scales == null
          ? MemorySegment.NULL
          : Descriptor.of(arena, nibble_h.NB_F32(),
              arena.allocateFrom(ValueLayout.JAVA_FLOAT, scales), options.kvHeads(),
              options.headDim());
      if (scales != null && scales.length != options.kvHeads() * options.headDim()) {
        throw new InvalidArgumentException("scales: " + scales.length + " given, expected one for"
            + " each of " + options.kvHeads() + " heads of " + options.headDim());
      }
      Status.check(nibble_h.nb_kv_cache_set_key_scales(handle, layer, struct));
    } finally {
      leases.releaseExclusive();
    }
  }

  /** What the cache was made with. */
  public Options options() {
    return options;
  }

  /** Tokens that fit. */
  public long capacity() {
    return options.capacity();
  }

  /** Bytes of native memory. */
  public long bytes() {
    return bytes;
  }

  /** Tokens held in layer, 0-based. */
  public long length(int layer) {
    Objects.checkIndex(layer, options.layers());
    leases.acquire();
    try {
      return nibble_h.nb_kv_cache_length(handle, layer);
    } finally {
      leases.release();
    }
  }

  @Override
  public void close() {
    if (leases.close()) {
      Status.check(nibble_h.nb_kv_cache_destroy(handle));
    }
  }

  MemorySegment handle() {
    return handle;
  }

  Leases leases() {
    return leases;
  }
}
