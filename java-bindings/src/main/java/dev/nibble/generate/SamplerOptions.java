// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import dev.nibble.InvalidArgumentException;

/**
 * The settings of a {@link Sampler}.
 *
 * @param temperature 0 for the likeliest token always; 1 for the model's own probabilities; up to
 *     100
 * @param topK keep the k likeliest tokens; 0 for all
 * @param topP keep the likeliest tokens that together have this probability; above 0, 1 for all
 * @param minP drop tokens less likely than this fraction of the likeliest; 0 for none, to 1
 * @param repeatPenalty divides positive logits of recent tokens and multiplies negative ones; 1
 *     for none, above 0, to 100
 * @param repeatWindow how many tokens are recent, 1 to 1,048,576
 * @param seed decides the random sequence
 */
public record SamplerOptions(
    float temperature,
    int topK,
    float topP,
    float minP,
    float repeatPenalty,
    int repeatWindow,
    long seed) {

  private static final float MAX_TEMPERATURE = 100;
  private static final float MAX_PENALTY = 100;
  private static final int MAX_WINDOW = 1 << 20;

  /** Checks the ranges. */
  public SamplerOptions {
    require(temperature >= 0 && temperature <= MAX_TEMPERATURE, "temperature", temperature,
        "0 to 100");
    require(topK >= 0, "top-k", topK, "1 or more, or 0 for all");
    require(topP > 0 && topP <= 1, "top-p", topP, "above 0, at most 1");
    require(minP >= 0 && minP <= 1, "min-p", minP, "0 to 1");
    require(repeatPenalty > 0 && repeatPenalty <= MAX_PENALTY, "repeat-penalty", repeatPenalty,
        "above 0, at most 100");
    require(repeatWindow >= 1 && repeatWindow <= MAX_WINDOW, "repeat-window", repeatWindow,
        "1 to " + MAX_WINDOW);
  }

  private static void require(boolean legal, String name, Object value, String expected) {
    if (!legal) {
      throw new InvalidArgumentException(name + ": " + value + " given, expected " + expected);
    }
  }

  /** Collects settings; the defaults are the model's own probabilities and seed 0. */
  public static final class Builder {
    private float temperature = 1;
    private int topK;
    private float topP = 1;
    private float minP;
    private float repeatPenalty = 1;
    private int repeatWindow = 64;
    private long seed;

    Builder() {}

    /** See {@link SamplerOptions#temperature}. */
    public Builder temperature(float temperature) {
      this.temperature = temperature;
      return this;
    }

    /** See {@link SamplerOptions#topK}. */
    public Builder topK(int topK) {
      this.topK = topK;
      return this;
    }

    /** See {@link SamplerOptions#topP}. */
    public Builder topP(float topP) {
      this.topP = topP;
      return this;
    }

    /** See {@link SamplerOptions#minP}. */
    public Builder minP(float minP) {
      this.minP = minP;
      return this;
    }

    /** See {@link SamplerOptions#repeatPenalty}. */
    public Builder repeatPenalty(float repeatPenalty) {
      this.repeatPenalty = repeatPenalty;
      return this;
    }

    /** See {@link SamplerOptions#repeatWindow}. */
    public Builder repeatWindow(int repeatWindow) {
      this.repeatWindow = repeatWindow;
      return this;
    }

    /** See {@link SamplerOptions#seed}. */
    public Builder seed(long seed) {
      this.seed = seed;
      return this;
    }

    /** The settings. */
    public SamplerOptions options() {
      return new SamplerOptions(
          temperature, topK, topP, minP, repeatPenalty, repeatWindow, seed);
    }

    /** A sampler with these settings. */
    public Sampler build() {
      return new Sampler(options());
    }
  }
}
