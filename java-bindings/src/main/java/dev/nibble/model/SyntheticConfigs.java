// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.InvalidArgumentException;
import java.util.List;
import java.util.regex.Pattern;

/** Configurations for {@link LlamaModel#synthetic}, by name or by sizes. */
public final class SyntheticConfigs {
  private static final Pattern SIZES = Pattern.compile("\\d{1,7}(x\\d{1,7}){1,5}");
  private static final int HEAD_DIM = 64;
  private static final int CONTEXT = 8192;
  private static final int VOCABULARY = 32_000;

  private SyntheticConfigs() {}

  /**
   * The configuration of a published model ({@code llama-3.2-1b}, {@code llama-3-8b}, {@code
   * llama-2-7b}), or one of the sizes {@code
   * HIDDENxLAYERS[xINTERMEDIATE[xHEADS[xKVHEADS[xVOCABULARY]]]]}. Left out, the intermediate size
   * is 4 times hidden, a head has 64 elements, there are as many key/value heads as heads and
   * 32,000 tokens; the head is tied to the embedding.
   *
   * @throws InvalidArgumentException if the text is neither, or a size is out of range
   */
  public static LlamaConfig of(String text) {
    return switch (text) {
      case "llama-3.2-1b" -> new LlamaConfig(2048, 8192, 16, 32, 8, 64, 128_256, 131_072, 1e-5f,
          500_000, new RopeScaling.Llama3(32, 1, 4, 8192), true, false, false, -1, List.of());
      case "llama-3-8b" -> new LlamaConfig(4096, 14_336, 32, 32, 8, 128, 128_256, 8192, 1e-5f,
          500_000, new RopeScaling.None(), false, false, false, -1, List.of());
      case "llama-2-7b" -> new LlamaConfig(4096, 11_008, 32, 32, 32, 128, 32_000, 4096, 1e-5f,
          10_000, new RopeScaling.None(), false, false, false, -1, List.of());
      default -> ofSizes(text);
    };
  }

  private static LlamaConfig ofSizes(String text) {
    if (!SIZES.matcher(text).matches()) {
      throw new InvalidArgumentException("synthetic model: \"" + text + "\" given, expected"
          + " llama-3.2-1b, llama-3-8b, llama-2-7b or"
          + " HIDDENxLAYERS[xINTERMEDIATE[xHEADS[xKVHEADS[xVOCABULARY]]]]");
    }
    var parts = text.split("x");
    int hidden = Integer.parseInt(parts[0]);
    int intermediate = part(parts, 2, 4 * hidden);
    int heads = part(parts, 3, Math.max(1, hidden / HEAD_DIM));
    int headDim = parts.length > 3 && heads > 0 ? hidden / heads : HEAD_DIM;
    return new LlamaConfig(hidden, intermediate, Integer.parseInt(parts[1]), heads,
        part(parts, 4, heads), headDim, part(parts, 5, VOCABULARY), CONTEXT, 1e-5f, 10_000,
        new RopeScaling.None(), true, false, false, -1, List.of());
  }

  private static int part(String[] parts, int index, int fallback) {
    return index < parts.length ? Integer.parseInt(parts[index]) : fallback;
  }
}
