// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.ModelSource;
import dev.nibble.io.Tokenizer;
import dev.nibble.model.LlamaConfig;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.model.PackedCache;
import dev.nibble.model.ProgressListener;
import dev.nibble.model.SelfText;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.List;

/**
 * The tokens that show a quantizer what a model's activations look like: windows of one length,
 * each a text of its own. Immutable.
 *
 * <p>They come from a text ({@link #ofText}) or from the model itself ({@link #sampled}), the
 * data-free way of LLM-QAT (arXiv 2305.17888).
 */
public final class Calibration {

  /** Tokens altogether, if not told otherwise. */
  public static final int DEFAULT_TOKENS = 16_384;
  /** Tokens of a window, if not told otherwise and the model's context is not shorter. */
  public static final int DEFAULT_WINDOW = 512;

  /** The seed of {@link #sampled(ModelSource, int, int, long, int, ProgressListener)}, usually. */
  public static final long DEFAULT_SEED = 1;

  /** Models with more parameters write their texts in 8 bits: in F32 they may not fit. */
  private static final long LARGE_MODEL = 500_000_000;

  private final int[][] windows;

  private Calibration(int[][] windows) {
    this.windows = windows;
  }

  /**
   * Calibration with these windows.
   *
   * @param windows at least one, all of one length of at least 2
   */
  public static Calibration ofWindows(List<int[]> windows) {
    if (windows.isEmpty()) {
      throw new InvalidArgumentException("calibration: no window given, expected at least one");
    }
    int length = windows.getFirst().length;
    for (var window : windows) {
      if (window.length != length || length < 2) {
        throw new InvalidArgumentException("calibration: a window of " + window.length
            + " tokens given, expected one length for all, at least 2");
      }
    }
    return new Calibration(windows.stream().map(int[]::clone).toArray(int[][]::new));
  }

  /**
   * Windows cut from tokens without overlap: as many whole ones as fit, at most {@code
   * maxTokens} altogether, spread evenly over the text.
   *
   * @param name what the text is called in messages
   * @throws InvalidArgumentException if the text is shorter than one window
   */
  public static Calibration ofTokens(String name, int[] tokens, int maxTokens, int window) {
    if (window < 2) {
      throw new InvalidArgumentException(
          "calibration window: " + window + " tokens given, expected at least 2");
    }
    if (maxTokens < window) {
      throw new InvalidArgumentException("calibration tokens: " + maxTokens
          + " given, expected at least one window of " + window);
    }
    if (tokens.length < window) {
      throw new InvalidArgumentException(name + ": " + tokens.length
          + " tokens, but calibration needs at least one window of " + window);
    }
    int available = tokens.length / window;
    int count = Math.min(available, maxTokens / window);
    var windows = new int[count][];
    for (int i = 0; i < count; i++) {
      int start = (int) ((long) i * available / count) * window;
      windows[i] = Arrays.copyOfRange(tokens, start, start + window);
    }
    return new Calibration(windows);
  }

  /**
   * Windows of a text, as {@link #ofTokens} cuts them.
   *
   * @throws InvalidArgumentException if the text is shorter than one window
   */
  public static Calibration ofText(
      String name, String text, Tokenizer tokenizer, int maxTokens, int window) {
    return ofTokens(name, tokenizer.encode(text), maxTokens, window);
  }

  /**
   * Windows that the model writes itself, each from the beginning of a text on, drawn from its
   * unchanged distribution: the same model, sizes and seed give the same windows on the same
   * machine. Takes as long as decoding that many tokens, all windows side by side.
   *
   * @param maxTokens tokens altogether; at least one window
   * @param window 2 to the model's context
   * @param progress hears how many tokens are done
   */
  public static Calibration sampled(
      LlamaModel model, int maxTokens, int window, long seed, ProgressListener progress) {
    if (window < 2 || window > model.config().maxPositions()) {
      throw new InvalidArgumentException("calibration window: " + window
          + " tokens given, expected 2 to " + model.config().maxPositions()
          + ", the model's max_position_embeddings");
    }
    if (maxTokens < window) {
      throw new InvalidArgumentException("calibration tokens: " + maxTokens
          + " given, expected at least one window of " + window);
    }
    return new Calibration(SelfText.sample(model, maxTokens / window, window, seed, progress));
  }

  /**
   * The same of a model that is not loaded yet: it is loaded for this, in F32, or in INT8 where it
   * has more than 500 million parameters.
   *
   * @param threads to use; 0 for all that this process may use
   */
  public static Calibration sampled(ModelSource source, int maxTokens, int window, long seed,
      int threads, ProgressListener progress) {
    boolean large = LlamaConfig.read(source).parameters() > LARGE_MODEL;
    var options = LoadOptions.defaults().withScheme(large ? "w8a8" : "f32").withThreads(threads)
        .withPackedCache(PackedCache.off());
    try (var model = LlamaModel.load(source, options)) {
      return sampled(model, maxTokens, window, seed, progress);
    }
  }

  /** The number of windows. */
  public int windows() {
    return windows.length;
  }

  /** Tokens of each window. */
  public int windowTokens() {
    return windows[0].length;
  }

  /** Tokens of all windows together. */
  public long tokens() {
    return (long) windows.length * windowTokens();
  }

  /** A copy of window i. */
  public int[] window(int i) {
    return windows[i].clone();
  }

  /** A digest of the tokens, 32 bytes: the same windows have the same, others another. */
  public byte[] fingerprint() {
    try {
      var digest = MessageDigest.getInstance("SHA-256");
      var bytes = ByteBuffer.allocate(4 * windowTokens());
      for (var window : windows) {
        bytes.clear();
        bytes.asIntBuffer().put(window);
        digest.update(bytes);
      }
      digest.update(ByteBuffer.allocate(4).putInt(0, windowTokens()));
      return digest.digest();
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError("every Java platform has SHA-256", e);
    }
  }
}
