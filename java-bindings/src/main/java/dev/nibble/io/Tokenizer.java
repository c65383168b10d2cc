// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import dev.nibble.ClosedException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.util.Arrays;
import java.util.Map;

/**
 * Text to token ids and back, as a Hugging Face {@code tokenizer.json} says, through DJL's
 * binding of Hugging Face's tokenizers library.
 *
 * <p>Safe for use from any thread; calls on one tokenizer run one after the other. Nothing is
 * sent anywhere: DJL's start-up call to its vendor and its downloads are switched off before its
 * first class loads, by its own system properties, unless the application has set them.
 */
public final class Tokenizer implements AutoCloseable {

  static {
    setDefault("OPT_OUT_TRACKING", "true");
    setDefault("ai.djl.offline", "true");
    setDefault("RUST_FLAVOR", "cpu");
    // Without a logging backend on the class path SLF4J would say so on stderr.
    setDefault("slf4j.internal.verbosity", "ERROR");
  }

  /** No truncation and no padding, whatever the file says: a prompt is one sequence, whole. */
  private static final Map<String, String> OPTIONS =
      Map.of("truncation", "false", "padding", "false", "addSpecialTokens", "true");

  private final HuggingFaceTokenizer tokenizer;
  private final String file;
  private boolean closed;

  private Tokenizer(HuggingFaceTokenizer tokenizer, String file) {
    this.tokenizer = tokenizer;
    this.file = file;
  }

  private static void setDefault(String property, String value) {
    if (System.getProperty(property) == null) {
      System.setProperty(property, value);
    }
  }

  /**
   * Loads {@code tokenizer.json} of a model.
   *
   * @throws ModelFormatException if the model has none, or it is not a valid tokenizer
   * @throws UnsupportedException if the tokenizers library has no build for this machine
   */
  public static Tokenizer load(ModelSource source) {
    var file = source.describe(CheckpointNames.TOKENIZER);
    if (!source.has(CheckpointNames.TOKENIZER)) {
      throw Problem.in(file, "no such file, so text cannot become tokens");
    }
    return load(source.read(CheckpointNames.TOKENIZER), file);
  }

  /**
   * Loads the bytes of a {@code tokenizer.json}.
   *
   * @param json the file's content
   * @param file what to call it in messages
   * @throws ModelFormatException if it is not a valid tokenizer
   * @throws UnsupportedException if the tokenizers library has no build for this machine
   */
  public static Tokenizer load(byte[] json, String file) {
    TokenizerFile.check(json, file);
    try {
      return new Tokenizer(
          HuggingFaceTokenizer.newInstance(new ByteArrayInputStream(json), OPTIONS), file);
    } catch (LinkageError e) {
      throw new UnsupportedException(file + ": the tokenizers library cannot be loaded: "
          + Problem.printable(String.valueOf(e.getMessage())), e);
    } catch (IOException | RuntimeException e) {
      if (e.getClass().getName().equals("ai.djl.engine.EngineException")) {
        throw new UnsupportedException(file + ": the tokenizers library cannot be loaded: "
            + Problem.printable(String.valueOf(e.getMessage())), e);
      }
      throw new ModelFormatException(file + ": not a valid tokenizer: "
          + Problem.printable(String.valueOf(e.getMessage())), e);
    }
  }

  /**
   * The tokens of a text, with the special tokens that the file's post-processor adds, such as
   * the one that begins a text.
   *
   * @throws InvalidArgumentException for null, or text that is not well-formed UTF-16
   * @throws ModelFormatException if the parts of the file turn out not to fit together
   */
  public synchronized int[] encode(String text) {
    requireOpen();
    if (text == null) {
      throw new InvalidArgumentException("text: must not be null");
    }
    requireWellFormed(text);
    long[] ids;
    try {
      ids = tokenizer.encode(text, true, false).getIds();
    } catch (RuntimeException e) {
      // All the caller's part is checked above: the file's parts do not fit together.
      throw new ModelFormatException(file + ": cannot make tokens of the text: "
          + Problem.printable(String.valueOf(e.getMessage())), e);
    }
    var tokens = new int[ids.length];
    for (int i = 0; i < ids.length; i++) {
      if (ids[i] < 0 || ids[i] > Integer.MAX_VALUE) {
        throw Problem.in(file, "a token has the id " + ids[i] + ", expected at most "
            + Integer.MAX_VALUE);
      }
      tokens[i] = (int) ids[i];
    }
    return tokens;
  }

  /**
   * The text of tokens, without special tokens. Ids that the tokenizer does not have add nothing;
   * bytes that are not UTF-8 become U+FFFD.
   *
   * @throws InvalidArgumentException for null or a negative id
   */
  public String decode(int[] ids) {
    if (ids == null) {
      throw new InvalidArgumentException("ids: must not be null");
    }
    return decode(ids, ids.length);
  }

  private synchronized String decode(int[] ids, int count) {
    requireOpen();
    if (count == 0) {
      return "";
    }
    var longs = new long[count];
    for (int i = 0; i < count; i++) {
      if (ids[i] < 0) {
        throw new InvalidArgumentException("ids[" + i + "]: " + ids[i] + ", expected at least 0");
      }
      longs[i] = ids[i];
    }
    try {
      return tokenizer.decode(longs, true);
    } catch (RuntimeException e) {
      throw new ModelFormatException(file + ": cannot make text of the tokens: "
          + Problem.printable(String.valueOf(e.getMessage())), e);
    }
  }

  /** A decoder for a text that begins with the first token it is given. */
  public Decoder newDecoder() {
    return new Decoder(new int[0]);
  }

  /**
   * A decoder for tokens that continue a text.
   *
   * @param context the tokens before, or their last few: where a tokenizer drops the space at the
   *     start of a text, they keep it
   */
  public Decoder newDecoder(int[] context) {
    int kept = Math.min(context.length, Decoder.CONTEXT);
    return new Decoder(Arrays.copyOfRange(context, context.length - kept, context.length));
  }

  private static void requireWellFormed(String text) {
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      if (!Character.isSurrogate(c)) {
        continue;
      }
      if (Character.isHighSurrogate(c) && i + 1 < text.length()
          && Character.isLowSurrogate(text.charAt(i + 1))) {
        i++;
      } else {
        throw new InvalidArgumentException(
            String.format("text: unpaired surrogate U+%04X at index %d", (int) c, i));
      }
    }
  }

  private void requireOpen() {
    if (closed) {
      throw new ClosedException("the tokenizer is closed");
    }
  }

  /** Frees the native tokenizer; a second call does nothing. */
  @Override
  public synchronized void close() {
    if (!closed) {
      closed = true;
      tokenizer.close();
    }
  }

  /**
   * Turns tokens into text one at a time. A token may end inside a UTF-8 character, and what a
   * token adds may depend on the one before it (spaces), so each step decodes the last few tokens
   * together and hands out what is new, once it ends on a whole character. For one thread.
   */
  public final class Decoder {

    static final int CONTEXT = 8;

    /**
     * Tokens held back at most. A character has 4 bytes and each token at least one, so a longer
     * run is bytes that are no text, and is handed out as it stands.
     */
    private static final int MAX_PENDING = 32;

    private static final char REPLACEMENT = '\uFFFD';

    /** Tokens whose text is out already, then those held back. */
    private int[] window = new int[CONTEXT + MAX_PENDING];
    private int done;
    private int count;
    private String doneText;

    private Decoder(int[] context) {
      System.arraycopy(context, 0, window, 0, context.length);
      done = count = context.length;
      doneText = decode(window, done);
    }

    /**
     * Takes the next token.
     *
     * @return the text that is complete now; empty while a character is still incomplete
     * @throws InvalidArgumentException for a negative id
     * @throws ClosedException after the tokenizer was closed
     */
    public String accept(int id) {
      if (count == window.length) {
        window = Arrays.copyOf(window, window.length * 2);
      }
      window[count++] = id;
      var text = decode(window, count);
      boolean pending = !text.isEmpty() && text.charAt(text.length() - 1) == REPLACEMENT;
      if (pending && count - done < MAX_PENDING) {
        return "";
      }
      var fresh = added(text);
      if (fresh.isEmpty()) {
        // A special token: it has no text, and keeping it would let the window grow for ever.
        count--;
        return "";
      }
      advance();
      return fresh;
    }

    /** Ends the text: whatever is still held back, with U+FFFD for an incomplete character. */
    public String finish() {
      if (count == done) {
        return "";
      }
      var fresh = added(decode(window, count));
      advance();
      return fresh;
    }

    private String added(String text) {
      return text.startsWith(doneText) ? text.substring(doneText.length())
          : text.substring(Math.min(text.length(), doneText.length()));
    }

    /** Keeps the tokens just handed out as the context of the next ones. */
    private void advance() {
      System.arraycopy(window, done, window, 0, count - done);
      count -= done;
      done = count;
      doneText = decode(window, done);
    }
  }
}
