// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import dev.nibble.InvalidArgumentException;
import dev.nibble.model.Generation;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.Session;
import dev.nibble.model.TextSink;

/**
 * Text from prompts, one after the other, with settings that stay: a model's session together
 * with how to sample and how much to write.
 *
 * <p>Each text starts from the seed, so that a prompt always gives the same text. Owns its session,
 * not the model. For one thread at a time, like {@link Session}, which also says how closing
 * behaves.
 */
public final class Generator implements AutoCloseable {
  private final Session session;
  private final SamplerOptions options;
  private final int maxTokens;

  /**
   * A generator on a new session of model.
   *
   * @param maxTokens the most tokens of a text, 1 or more
   */
  public Generator(LlamaModel model, SamplerOptions options, int maxTokens) {
    if (maxTokens < 1) {
      throw new InvalidArgumentException("maxTokens: " + maxTokens + " given, expected 1 or more");
    }
    this.options = options;
    this.maxTokens = maxTokens;
    this.session = model.newSession();
  }

  /**
   * Streams the text that follows prompt to sink, until the model ends it, the sink returns false,
   * or the token limit or the context is reached.
   *
   * @throws InvalidArgumentException if the prompt is longer than the context
   */
  public Generation generate(String prompt, TextSink sink) {
    return session.generate(prompt, new Sampler(options), sink, maxTokens);
  }

  /** The text that follows prompt, whole. */
  public String generate(String prompt) {
    var text = new StringBuilder();
    generate(prompt, piece -> {
      text.append(piece);
      return true;
    });
    return text.toString();
  }

  @Override
  public void close() {
    session.close();
  }
}
