// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.InvalidArgumentException;
import dev.nibble.quantize.Scheme;
import java.util.Objects;
import java.util.function.Consumer;

/**
 * How a model is loaded.
 *
 * @param scheme the formats to quantize to and to compute in; null for the checkpoint's own where
 *     it is quantized already, else {@code w4a8}
 * @param threads worker threads, 1 to 1024, or 0 for as many as this process may use; with a GPU
 *     they load the model
 * @param device where the model runs: {@code cpu}, or {@code cuda:N} for an NVIDIA GPU
 * @param progress hears how many bytes of the checkpoint are loaded
 * @param maxContext tokens that a session holds when none are asked for; 0 for the model's own
 *     context, at most {@value #DEFAULT_MAX_CONTEXT}
 * @param packedCache where packed weights are kept for the next load
 * @param warnings hears, one line each, what a checkpoint of another project's format lost where no
 *     format of Nibble's holds its weights exactly; by default they are logged
 */
public record LoadOptions(
    Scheme scheme, int threads, String device, ProgressListener progress, int maxContext,
    PackedCache packedCache, Consumer<String> warnings) {

  /** The most tokens of a session for which nobody chose a size: its cache is memory. */
  public static final int DEFAULT_MAX_CONTEXT = 8192;

  private static final int MAX_THREADS = 1024;

  /** Checks the ranges. */
  public LoadOptions {
    Objects.requireNonNull(device, "device");
    Objects.requireNonNull(progress, "progress");
    Objects.requireNonNull(packedCache, "packedCache");
    Objects.requireNonNull(warnings, "warnings");
    if (threads < 0 || threads > MAX_THREADS) {
      throw new InvalidArgumentException(
          "threads: " + threads + " given, expected 1 to " + MAX_THREADS + ", or 0 for all");
    }
    if (maxContext < 0) {
      throw new InvalidArgumentException(
          "maxContext: " + maxContext + " given, expected at least 1, or 0 for the model's");
    }
  }

  /**
   * The checkpoint's own scheme or {@code w4a8}, on all threads of the CPU, in silence, with the
   * packed cache that {@link PackedCache#automatic} describes.
   */
  public static LoadOptions defaults() {
    return new LoadOptions(
        null, 0, "cpu", ProgressListener.NONE, 0, PackedCache.automatic(), PackedCache.LOG);
  }

  /** {@link #defaults} on a device: {@code cpu}, or {@code cuda:N} for an NVIDIA GPU. */
  public static LoadOptions device(String device) {
    return defaults().withDevice(device);
  }

  /** These options with a scheme. */
  public LoadOptions withScheme(Scheme scheme) {
    return new LoadOptions(
        scheme, threads, device, progress, maxContext, packedCache, warnings);
  }

  /** These options with the scheme of that name. */
  public LoadOptions withScheme(String name) {
    return withScheme(Scheme.of(name));
  }

  /** These options with a number of threads. */
  public LoadOptions withThreads(int threads) {
    return new LoadOptions(
        scheme, threads, device, progress, maxContext, packedCache, warnings);
  }

  /** These options with a device. */
  public LoadOptions withDevice(String device) {
    return new LoadOptions(
        scheme, threads, device, progress, maxContext, packedCache, warnings);
  }

  /** These options with a listener. */
  public LoadOptions withProgress(ProgressListener progress) {
    return new LoadOptions(
        scheme, threads, device, progress, maxContext, packedCache, warnings);
  }

  /** These options with a session size. */
  public LoadOptions withMaxContext(int maxContext) {
    return new LoadOptions(
        scheme, threads, device, progress, maxContext, packedCache, warnings);
  }

  /** These options with a cache of packed weights, or without: {@link PackedCache#off}. */
  public LoadOptions withPackedCache(PackedCache packedCache) {
    return new LoadOptions(
        scheme, threads, device, progress, maxContext, packedCache, warnings);
  }

  /** These options with a listener for warnings. */
  public LoadOptions withWarnings(Consumer<String> warnings) {
    return new LoadOptions(
        scheme, threads, device, progress, maxContext, packedCache, warnings);
  }
}
