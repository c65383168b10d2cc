// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;

/**
 * How a model is quantized after training: the formats it gets, and the methods that choose the
 * numbers in these formats.
 *
 * <table>
 * <caption>The named recipes</caption>
 * <tr><th>name</th><th>formats</th><th>methods</th></tr>
 * <tr><td>a scheme's, such as {@code w4a8}</td><td>{@link Scheme#of(String)}</td>
 * <td>round-to-nearest, as {@code nb_quantize} defines it; no calibration</td></tr>
 * <tr><td>{@code fireq}</td><td>{@code w4a8}: W4 in groups of 128 with E4M3 scales and one factor
 * a matrix, A8F, KV4</td><td>FireQ (arXiv 2505.20839): channel-wise scaling, pre-RoPE and
 * post-RoPE scaling, cache factors; clipping</td></tr>
 * <tr><td>{@code fireq-pow2}</td><td>the same with power-of-two group scales and a factor a
 * row</td><td>the same</td></tr>
 * <tr><td>{@code zeroquant-fp6}, {@code zeroquant-fp6-e2m3}</td><td>{@code w6a16}: W6 E3M2 or E2M3
 * with a scale a row, A16, KV8</td><td>round-to-nearest with coarse scales (ZeroQuant(4+2), arXiv
 * 2312.08583)</td></tr>
 * <tr><td>{@code llm-qat}, {@code llm-qat-kv8}</td><td>W4 with an F32 scale a row, A8I, KV4 or
 * KV8</td><td>symmetric min-max (LLM-QAT, arXiv 2305.17888): what its checkpoints are trained
 * for</td></tr>
 * </table>
 *
 * <p>{@code +gptq} or {@code +awq} behind any name with 4-bit weights adds {@link Compensation}:
 * {@code fireq+gptq}, {@code w4a8+awq}. {@link MixedPrecision#recipe} is for formats that differ
 * between projections. The withers switch single parts off and on, for an
 * ablation; they keep the name, so that {@link #withName} should follow where it is shown.
 *
 * @param name for people and files
 * @param scheme the formats of the result
 * @param compensation how rounding errors make up for each other
 * @param clipping search for the group scale with the smallest output error, weighted by the
 *     second moments of the calibration activations, instead of the one that just holds the
 *     largest weight; W4 only
 * @param tensorScale W4 with E4M3 scales only: one factor for the matrix, chosen so that no group
 *     scale underflows; without, the factor is 1
 * @param channelScaling scale the inputs of the projections, channel by channel, and fold the
 *     inverse into what comes before: norms, the value projection, the up projection
 * @param preRopeScaling scale each pair (i, i + d/2) of keys by its largest norm over the
 *     calibration tokens, folded into the key and query projections; KV4 only
 * @param postRopeChannels the channels with the largest keys, and their partners, of each head are
 *     scaled once more, online, behind the rotation: how many pairs of a head; 0 for none; KV4
 *     only
 * @param cacheFactors one factor a layer for the scales of keys, one for those of values, so that
 *     none underflows; KV4 only
 */
public record Recipe(
    String name,
    Scheme scheme,
    Compensation compensation,
    boolean clipping,
    boolean tensorScale,
    boolean channelScaling,
    boolean preRopeScaling,
    int postRopeChannels,
    boolean cacheFactors) {

  /** Pairs of channels of a head that FireQ scales behind the rotation, if not told otherwise. */
  public static final int DEFAULT_POST_ROPE_CHANNELS = 4;

  private static final String LLM_QAT = "llm-qat";
  private static final List<String> CALIBRATED =
      List.of("fireq", "fireq+gptq", "fireq+awq", "fireq-pow2", "zeroquant-fp6",
          "zeroquant-fp6-e2m3", LLM_QAT, LLM_QAT + "-kv8");

  /**
   * Checks that the parts fit the formats.
   *
   * @throws InvalidArgumentException for a null part or a negative number of channels
   * @throws UnsupportedException for a method that the formats have no use for
   */
  public Recipe {
    Objects.requireNonNull(name, "name");
    Objects.requireNonNull(scheme, "scheme");
    Objects.requireNonNull(compensation, "compensation");
    if (postRopeChannels < 0 || postRopeChannels > 128) {
      throw new InvalidArgumentException(
          "postRopeChannels: " + postRopeChannels + " given, expected 0 to 128");
    }
    boolean w4 = scheme.projections().code() == CodeType.I4
        || scheme.exceptions().values().stream().anyMatch(format -> format.code() == CodeType.I4);
    if (!w4 && (clipping || compensation != Compensation.NONE)) {
      throw new UnsupportedException("recipe " + name + ": "
          + (clipping ? "clipping" : compensation.id()) + " is for 4-bit weights, not for "
          + scheme.projections().describe());
    }
    boolean kv4 = scheme.cache() == KvType.KV4;
    if (!kv4 && (preRopeScaling || postRopeChannels > 0 || cacheFactors)) {
      throw new UnsupportedException("recipe " + name + ": "
          + (preRopeScaling ? "pre-RoPE scaling" : postRopeChannels > 0 ? "post-RoPE scaling"
              : "a cache factor")
          + " is for a 4-bit cache, not for " + scheme.cache().id());
    }
  }

  /** The names of the table: the schemes' first, then those of calibrated recipes. */
  public static List<String> names() {
    var names = new ArrayList<>(Scheme.names());
    names.addAll(CALIBRATED);
    return List.copyOf(names);
  }

  /**
   * The recipe of that name.
   *
   * @param name one of the table, with or without {@code +gptq} or {@code +awq}
   * @throws InvalidArgumentException naming the recipes that exist
   * @throws UnsupportedException for {@code +gptq} or {@code +awq} without 4-bit weights
   */
  public static Recipe of(String name) {
    int plus = name.indexOf('+');
    var recipe = base(plus < 0 ? name : name.substring(0, plus), name);
    if (plus < 0) {
      return recipe;
    }
    for (var compensation : Compensation.values()) {
      if (compensation != Compensation.NONE && compensation.id().equals(name.substring(plus + 1))) {
        var calibrated = recipe.withName(name).withCompensation(compensation);
        return compensation == Compensation.AWQ ? calibrated.withClipping(true) : calibrated;
      }
    }
    throw unknown(name);
  }

  private static Recipe base(String base, String name) {
    var w4a8 = Scheme.of("w4a8");
    var w6a16 = Scheme.of("w6a16");
    return switch (base) {
      case "fireq" -> fireq(base, w4a8);
      case "fireq-pow2" ->
          fireq(base, w4a8.withProjections(WeightFormat.W4.withScale(ScaleType.POW2)));
      case "zeroquant-fp6" -> plain(base, w6a16);
      case "zeroquant-fp6-e2m3" ->
          plain(base, w6a16.withProjections(WeightFormat.of(CodeType.E2M3)));
      case LLM_QAT -> plain(base, llmQat(KvType.KV4));
      case LLM_QAT + "-kv8" -> plain(base, llmQat(KvType.KV8));
      default -> {
        if (!Scheme.names().contains(base)) {
          throw unknown(name);
        }
        yield plain(base, Scheme.of(base));
      }
    };
  }

  private static InvalidArgumentException unknown(String name) {
    return new InvalidArgumentException("recipe: unknown name \"" + name + "\", expected one of "
        + String.join(", ", names()) + "; +gptq or +awq may follow where weights have 4 bits");
  }

  private static Scheme llmQat(KvType cache) {
    return Scheme.of(new WeightFormat(CodeType.I4, ScaleType.F32, 0), ActivationType.A8I, cache,
        WeightFormat.W8);
  }

  private static Recipe fireq(String name, Scheme scheme) {
    return new Recipe(name, scheme, Compensation.NONE, true, true, true, true,
        DEFAULT_POST_ROPE_CHANNELS, true);
  }

  /** Round-to-nearest to a scheme, with the scheme's name: no calibration. */
  public static Recipe of(Scheme scheme) {
    return plain(scheme.name(), scheme);
  }

  private static Recipe plain(String name, Scheme scheme) {
    return new Recipe(name, scheme, Compensation.NONE, false, true, false, false, 0, false);
  }

  /**
   * Whether any part looks at activations. Without, the result is what {@link Quantizer} writes,
   * and a {@link Calibration} is not needed.
   */
  public boolean needsCalibration() {
    return compensation != Compensation.NONE || clipping || channelScaling || preRopeScaling
        || postRopeChannels > 0 || cacheFactors || !tensorScale;
  }

  /** This recipe under another name. */
  public Recipe withName(String name) {
    return new Recipe(name, scheme, compensation, clipping, tensorScale, channelScaling,
        preRopeScaling, postRopeChannels, cacheFactors);
  }

  /** This recipe with other formats. */
  public Recipe withScheme(Scheme scheme) {
    return new Recipe(name, scheme, compensation, clipping, tensorScale, channelScaling,
        preRopeScaling, postRopeChannels, cacheFactors);
  }

  /** This recipe with another compensation. */
  public Recipe withCompensation(Compensation compensation) {
    return new Recipe(name, scheme, compensation, clipping, tensorScale, channelScaling,
        preRopeScaling, postRopeChannels, cacheFactors);
  }

  /** This recipe with or without the search for the best group scales. */
  public Recipe withClipping(boolean clipping) {
    return new Recipe(name, scheme, compensation, clipping, tensorScale, channelScaling,
        preRopeScaling, postRopeChannels, cacheFactors);
  }

  /** This recipe with or without a factor a matrix for its E4M3 scales. */
  public Recipe withTensorScale(boolean tensorScale) {
    return new Recipe(name, scheme, compensation, clipping, tensorScale, channelScaling,
        preRopeScaling, postRopeChannels, cacheFactors);
  }

  /** This recipe with or without channel-wise scaling. */
  public Recipe withChannelScaling(boolean channelScaling) {
    return new Recipe(name, scheme, compensation, clipping, tensorScale, channelScaling,
        preRopeScaling, postRopeChannels, cacheFactors);
  }

  /** This recipe with or without pre-RoPE scaling. */
  public Recipe withPreRopeScaling(boolean preRopeScaling) {
    return new Recipe(name, scheme, compensation, clipping, tensorScale, channelScaling,
        preRopeScaling, postRopeChannels, cacheFactors);
  }

  /** This recipe with post-RoPE scaling of so many pairs of a head; 0 for none. */
  public Recipe withPostRopeChannels(int postRopeChannels) {
    return new Recipe(name, scheme, compensation, clipping, tensorScale, channelScaling,
        preRopeScaling, postRopeChannels, cacheFactors);
  }

  /** This recipe with or without cache factors. */
  public Recipe withCacheFactors(boolean cacheFactors) {
    return new Recipe(name, scheme, compensation, clipping, tensorScale, channelScaling,
        preRopeScaling, postRopeChannels, cacheFactors);
  }

  /** For people, in one line. */
  public String describe() {
    return name + ": " + scheme.describe();
  }
}
