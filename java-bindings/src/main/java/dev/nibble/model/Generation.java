// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

/**
 * What a generation did, and how fast.
 *
 * @param promptTokens tokens of the prompt
 * @param generatedTokens tokens chosen, one that ended the text included
 * @param firstTokenNanos from the call until the first token was chosen
 * @param decodeNanos from then until the last token was chosen
 * @param reason why it stopped
 */
public record Generation(
    int promptTokens,
    int generatedTokens,
    long firstTokenNanos,
    long decodeNanos,
    StopReason reason) {

  /** Why a generation stopped. */
  public enum StopReason {
    /** The model chose a token that ends the text. */
    END_OF_TEXT,
    /** As many tokens as were asked for. */
    MAX_TOKENS,
    /** The session is full. */
    CONTEXT_FULL,
    /** The sink said so. */
    SINK
  }

  /** Time to first token, in seconds. */
  public double firstTokenSeconds() {
    return firstTokenNanos / 1e9;
  }

  /** Tokens a second after the first one; 0 if there was no second one. */
  public double decodeTokensPerSecond() {
    return generatedTokens < 2 || decodeNanos == 0
        ? 0
        : (generatedTokens - 1) * 1e9 / decodeNanos;
  }

  /** Prompt tokens a second until the first token. */
  public double prefillTokensPerSecond() {
    return firstTokenNanos == 0 ? 0 : promptTokens * 1e9 / firstTokenNanos;
  }
}
