// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Which numbers a model runs on: the weights of its projections, what their inputs are rounded
 * to, how keys and values are kept, and the weights of the embedding and the output head.
 *
 * <table>
 * <caption>The named schemes</caption>
 * <tr><th>name</th><th>projections</th><th>activations</th><th>cache</th>
 * <th>embedding, head</th></tr>
 * <tr><td>f32</td><td>F32</td><td>F32</td><td>f32</td><td>F32</td></tr>
 * <tr><td>bf16</td><td>BF16</td><td>A16</td><td>KV16</td><td>BF16</td></tr>
 * <tr><td>w4a8</td><td>W4, G = 128, E4M3 scales</td><td>A8F</td><td>KV4</td>
 * <td>W8 per row</td></tr>
 * <tr><td>w4a8i</td><td>W4, G = 128, E4M3 scales</td><td>A8I</td><td>KV4</td>
 * <td>W8 per row</td></tr>
 * <tr><td>w6a16</td><td>W6 E3M2 per row</td><td>A16</td><td>KV8</td><td>W8 per row</td></tr>
 * <tr><td>w6a8</td><td>W6 E3M2 per row</td><td>A8F</td><td>KV8</td><td>W8 per row</td></tr>
 * <tr><td>w8a8</td><td>W8 I8 per row</td><td>A8I</td><td>KV8</td><td>W8 per row</td></tr>
 * </table>
 *
 * <p>{@code w4a8} has the types of FireQ (arXiv 2505.20839), {@code w4a8i} those of LLM-QAT (arXiv
 * 2305.17888), {@code w6a16} those of ZeroQuant(4+2) (arXiv 2312.08583). The withers override one
 * part and give the result the name {@code custom}, unless it equals a named scheme.
 *
 * @param name a name of the table, or {@code custom}
 * @param projections the attention and feed-forward matrices
 * @param activations the input of every projection; see {@link #headActivations} for the head
 * @param cache keys and values
 * @param embedding the embedding and the output head
 * @param exceptions the projections that have a format of their own (mixed precision), by the name
 *     of their tensor, {@code model.layers.0.mlp.down_proj.weight}; no named scheme has any
 */
public record Scheme(
    String name,
    WeightFormat projections,
    ActivationType activations,
    KvType cache,
    WeightFormat embedding,
    Map<String, WeightFormat> exceptions) {

  private static final String CUSTOM = "custom";

  private static final List<Scheme> TABLE = List.of(
      named("f32", WeightFormat.F32, ActivationType.F32, KvType.F32, WeightFormat.F32),
      named("bf16", WeightFormat.BF16, ActivationType.A16, KvType.KV16, WeightFormat.BF16),
      named("w4a8", WeightFormat.W4, ActivationType.A8F, KvType.KV4, WeightFormat.W8),
      named("w4a8i", WeightFormat.W4, ActivationType.A8I, KvType.KV4, WeightFormat.W8),
      named("w6a16", WeightFormat.W6, ActivationType.A16, KvType.KV8, WeightFormat.W8),
      named("w6a8", WeightFormat.W6, ActivationType.A8F, KvType.KV8, WeightFormat.W8),
      named("w8a8", WeightFormat.W8, ActivationType.A8I, KvType.KV8, WeightFormat.W8));

  /**
   * Checks that every part is there and that a kernel exists for the projections. Exceptions that
   * are none are dropped.
   *
   * @throws InvalidArgumentException for a null part
   * @throws UnsupportedException naming the combinations that have a kernel
   */
  public Scheme {
    if (name == null || projections == null || activations == null || cache == null
        || embedding == null || exceptions == null) {
      throw new InvalidArgumentException("scheme: no part may be null");
    }
    requireKernel("", projections, activations);
    var kept = new TreeMap<String, WeightFormat>();
    for (var entry : exceptions.entrySet()) {
      requireKernel(entry.getKey() + ": ", entry.getValue(), activations);
      if (!entry.getValue().equals(projections)) {
        kept.put(entry.getKey(), entry.getValue());
      }
    }
    exceptions = Collections.unmodifiableMap(kept);
  }

  private static void requireKernel(
      String where, WeightFormat format, ActivationType activations) {
    if (!activations.hasKernelFor(format.code())) {
      throw new UnsupportedException(where + "weights " + format.code().option()
          + " with activations " + activations.id() + ": no kernel; activations f32, a16 and a8f"
          + " go with any weights, a8i with w4, w6e2m3 and w8");
    }
  }

  private static Scheme named(String name, WeightFormat projections, ActivationType activations,
      KvType cache, WeightFormat embedding) {
    return new Scheme(name, projections, activations, cache, embedding, Map.of());
  }

  /** The names of the table above, in its order. */
  public static List<String> names() {
    return TABLE.stream().map(Scheme::name).toList();
  }

  /** The scheme used when none is asked for: {@code w4a8}. */
  public static Scheme defaultScheme() {
    return of("w4a8");
  }

  /**
   * The scheme of that name.
   *
   * @throws InvalidArgumentException naming the schemes that exist
   */
  public static Scheme of(String name) {
    for (var scheme : TABLE) {
      if (scheme.name.equals(name)) {
        return scheme;
      }
    }
    throw new InvalidArgumentException("scheme: unknown name \"" + name + "\", expected one of "
        + String.join(", ", names()));
  }

  /**
   * A scheme from its parts, with the name of the table where all parts agree with one.
   *
   * @throws UnsupportedException naming the combinations that have a kernel
   */
  public static Scheme of(WeightFormat projections, ActivationType activations, KvType cache,
      WeightFormat embedding) {
    for (var scheme : TABLE) {
      if (scheme.projections.equals(projections) && scheme.activations == activations
          && scheme.cache == cache && scheme.embedding.equals(embedding)) {
        return scheme;
      }
    }
    return named(CUSTOM, projections, activations, cache, embedding);
  }

  /** The format of a projection, by the name of its tensor. */
  public WeightFormat formatOf(String projection) {
    return exceptions.getOrDefault(projection, projections);
  }

  /** This scheme with a format of its own for each of these projections, and for no other. */
  public Scheme withExceptions(Map<String, WeightFormat> exceptions) {
    var without = of(projections, activations, cache, embedding);
    var with = new Scheme(CUSTOM, projections, activations, cache, embedding, exceptions);
    return with.exceptions.isEmpty() ? without : with;
  }

  /** This scheme with other projection weights. */
  public Scheme withProjections(WeightFormat projections) {
    return of(projections, activations, cache, embedding).withExceptions(exceptions);
  }

  /** This scheme with other activations. */
  public Scheme withActivations(ActivationType activations) {
    return of(projections, activations, cache, embedding).withExceptions(exceptions);
  }

  /** This scheme with another cache. */
  public Scheme withCache(KvType cache) {
    return of(projections, activations, cache, embedding).withExceptions(exceptions);
  }

  /** This scheme with another embedding and output head. */
  public Scheme withEmbedding(WeightFormat embedding) {
    return of(projections, activations, cache, embedding).withExceptions(exceptions);
  }

  /**
   * What the input of the output head is rounded to: {@link #activations} where a kernel exists
   * for the head's weights, else {@link ActivationType#A16} (A8I against a 16-bit or FP8 head).
   */
  public ActivationType headActivations() {
    return activations.hasKernelFor(embedding.code()) ? activations : ActivationType.A16;
  }

  /** For people, in one line. */
  public String describe() {
    return name + " (weights " + projections.describe()
        + (exceptions.isEmpty() ? "" : ", " + exceptions.size() + " of their own")
        + "; activations " + activations.id()
        + "; cache " + cache.id() + "; embedding " + embedding.describe() + ")";
  }
}
