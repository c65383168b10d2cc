// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.Tokenizer;
import dev.nibble.model.Generation.StopReason;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.KvCache;
import dev.nibble.tensor.Leases;
import dev.nibble.tensor.TensorArena;
import java.lang.foreign.MemorySegment;

/**
 * One text in progress: the tokens so far, as keys and values in a cache, and the scratch memory
 * of a forward pass, sized once.
 *
 * <p>For one thread at a time: use by a second thread while a call runs throws {@link
 * dev.nibble.ConcurrentUseException} and disturbs nothing. Several sessions of a model may run on
 * different threads. {@link #close} waits for a running call of another thread, and is refused
 * with the same exception from inside the session's own callback; closing twice is harmless, use
 * after close throws {@link dev.nibble.ClosedException}. A session may outlive its model, but then
 * only be closed.
 *
 * <p>After its first calls neither {@link #forward(int)} nor {@link #forward(int[])} allocates.
 *
 * <p>For readers: the forward pass is the method {@code run} below, one native operation a line
 * ({@code dev.nibble.tensor} fills in descriptors and makes the call). From {@code ./nibble
 * generate} to the INT4-FP8 inner loop it is five files: {@code cli/GenerateCommand.java} calls
 * {@link #generate(String, TokenSampler, TextSink, int)} here; {@code block.qkv().run} is {@code
 * nb_matmul} in {@code native/src/operators.cc}, which checks; {@code kernels-cpu/gemm/gemm.cc}
 * deals the work to threads, and {@code kernels-cpu/gemm/gemm_float.cc} multiplies, decoding INT4
 * in registers.
 */
public final class Session implements AutoCloseable {
  private final LlamaModel model;
  private final int capacity;
  private final int vocabulary;
  private final int[] eosTokens;
  private final Leases leases = new Leases("the session");
  private final Context context; // the model's on the CPU, else the session's own
  private final TensorArena arena; // where the context computes
  private final TensorArena host;  // ordinary memory; arena on the CPU
  private final KvCache cache;
  private final BoundOperators operators;
  private final Runnable oneRow = () -> run(1);
  private volatile int position;

  Session(LlamaModel model, int capacity) {
    this.model = model;
    this.capacity = capacity;
    var config = model.config();
    this.vocabulary = config.vocabSize();
    this.eosTokens = config.eosTokens().stream().mapToInt(Integer::intValue).toArray();
    // A GPU's context records graphs and serves one session: sessions do not wait for each other.
    context = model.context().isCpu()
        ? model.context()
        : Context.create(model.context().device(), 1);
    KvCache made = null;
    TensorArena scratch = null;
    TensorArena ordinary = null;
    boolean complete = false;
    try {
      scratch = context.newArena("the session");
      arena = scratch;
      ordinary = context.isCpu() ? arena : new TensorArena("the session");
      host = ordinary;
      made = model.newCache(context, capacity);
      cache = made;
      operators = new BoundOperators(model, context, cache, arena, host);
      complete = true;
    } finally {
      if (!complete) {
        free(null, made, scratch, ordinary);
      }
    }
  }

  private void free(
      BoundOperators operators, KvCache cache, TensorArena arena, TensorArena host) {
    if (operators != null) {
      operators.closeStep();
    }
    if (cache != null) {
      cache.close();
    }
    if (arena != null) {
      arena.close();
    }
    if (host != null) {
      host.close();
    }
    if (context != model.context()) {
      context.close();
    }
  }

  /** The model of this session. */
  public LlamaModel model() {
    return model;
  }

  /** Tokens held: the position of the next one. */
  public int position() {
    return position;
  }

  /** Tokens that fit. */
  public int capacity() {
    return capacity;
  }

  /** Bytes of keys and values. */
  public long cacheBytes() {
    return cache.bytes();
  }

  /** Forgets everything. */
  public void reset() {
    rewind(0);
  }

  /** Forgets the tokens from position on; 0 to {@link #position()}. */
  public void rewind(int position) {
    leases.acquireExclusive();
    try {
      if (position < 0 || position > this.position) {
        throw new InvalidArgumentException(
            "position: " + position + " given, expected 0 to " + this.position);
      }
      this.position = position;
    } finally {
      leases.releaseExclusive();
    }
  }

  /**
   * Appends one token.
   *
   * @return the logits that follow it, F32 [vocabulary], valid until the next call
   * @throws InvalidArgumentException if token is not in the vocabulary or the session is full
   */
  public MemorySegment forward(int token) {
    leases.acquireExclusive();
    try {
      return step(token);
    } finally {
      leases.releaseExclusive();
    }
  }

  /**
   * Appends tokens, at least one.
   *
   * @return the logits that follow the last one, F32 [vocabulary], valid until the next call
   * @throws InvalidArgumentException if a token is not in the vocabulary or they do not fit; the
   *     session is unchanged then
   */
  public MemorySegment forward(int[] tokens) {
    leases.acquireExclusive();
    try {
      return append(tokens);
    } finally {
      leases.releaseExclusive();
    }
  }

  /**
   * Appends tokens and hands the logits that follow each of them to visitor, in order. The
   * visitor must not use this session.
   *
   * @throws InvalidArgumentException if a token is not in the vocabulary or they do not fit; the
   *     session is unchanged then
   */
  public void forwardAll(int[] tokens, LogitsVisitor visitor) {
    leases.acquireExclusive();
    try {
      check(tokens, "tokens");
      int most = operators.maxLogitsRows();
      for (int done = 0; done < tokens.length; ) {
        int rows = Math.min(operators.maxRows(), tokens.length - done);
        runChunk(tokens, done, rows);
        for (int row = 0; row < rows; row += most) {
          int count = Math.min(most, rows - row);
          var logits = logits(row, count);
          for (int i = 0; i < count; i++) {
            visitor.visit(done + row + i, logits[i]);
          }
        }
        done += rows;
      }
    } finally {
      leases.releaseExclusive();
    }
  }

  /** {@link #generate(int[], TokenSampler, TextSink, int)} with the tokens of a text. */
  public Generation generate(
      String prompt, TokenSampler sampler, TextSink sink, int maxTokens) {
    return generate(model.requireTokenizer().encode(prompt), sampler, sink, maxTokens);
  }

  /**
   * Forgets what was, reads prompt and streams the text that follows, until the model ends it, the
   * sink returns false, maxTokens are chosen or the session is full.
   *
   * @param prompt tokens, at least one; a text's first is usually {@code config().bosToken()}
   * @param sampler chooses each token
   * @param sink receives each piece of text on this thread; it must not use this session
   * @param maxTokens 0 or more
   * @throws InvalidArgumentException if the prompt is longer than the session's capacity
   * @throws dev.nibble.UnsupportedException if the model has no tokenizer
   */
  public Generation generate(
      int[] prompt, TokenSampler sampler, TextSink sink, int maxTokens) {
    if (maxTokens < 0) {
      throw new InvalidArgumentException("maxTokens: " + maxTokens + " given, expected 0 or more");
    }
    var decoder = model.requireTokenizer().newDecoder(prompt);
    leases.acquireExclusive();
    try {
      position = 0;
      return stream(prompt, sampler, decoder, sink, maxTokens);
    } finally {
      leases.releaseExclusive();
    }
  }

  private Generation stream(int[] prompt, TokenSampler sampler, Tokenizer.Decoder decoder,
      TextSink sink, int maxTokens) {
    long start = System.nanoTime();
    check(prompt, "prompt");
    for (int token : prompt) {
      sampler.observe(token);
    }
    var device = operators.onDevice() && sampler instanceof DeviceSampler s ? s : null;
    var choice = device == null ? null : operators.choice(device.settings());
    var logits = choice == null ? append(prompt) : appendAndChoose(prompt, choice, device);
    long first = 0;
    long last = 0;
    int count = 0;
    var reason = StopReason.MAX_TOKENS;
    while (count < maxTokens) {
      int token = choice == null ? sampler.choose(logits) : fetch(choice);
      sampler.observe(token);
      last = System.nanoTime();
      first = count == 0 ? last : first;
      count++;
      if (endsText(token)) {
        reason = StopReason.END_OF_TEXT;
        break;
      }
      var text = decoder.accept(token);
      if (!text.isEmpty() && !sink.accept(text)) {
        reason = StopReason.SINK;
        break;
      }
      if (count < maxTokens) {
        if (position == capacity) {
          reason = StopReason.CONTEXT_FULL;
          break;
        }
        if (choice == null) {
          logits = step(token);
        } else {
          stepAndChoose(choice, device);
        }
      }
    }
    var rest = decoder.finish();
    if (reason != StopReason.SINK && !rest.isEmpty()) {
      sink.accept(rest);
    }
    return new Generation(prompt.length, count, count == 0 ? 0 : first - start, last - first,
        reason);
  }

  private boolean endsText(int token) {
    for (int eos : eosTokens) {
      if (eos == token) {
        return true;
      }
    }
    return false;
  }

  private MemorySegment step(int token) {
    if (position >= capacity) {
      throw new InvalidArgumentException("token: the session is full, all " + capacity
          + " tokens of its capacity are used");
    }
    checkToken("token", token);
    model.leases().acquire();
    try {
      operators.setToken(0, token);
      operators.sendTokens(1);
      operators.sequence.set(0, position, 1);
      if (operators.onDevice()) {
        operators.launchStep(oneRow, position, null);
        position++;
        return operators.lastLogits();
      }
      run(1);
      position++;
      return operators.logits(0);
    } finally {
      model.leases().release();
    }
  }

  /** Takes tokens through all layers; returns the row of the last one in the last run. */
  private int appendAll(int[] tokens) {
    check(tokens, "tokens");
    int rows = 0;
    for (int done = 0; done < tokens.length; done += rows) {
      rows = Math.min(operators.maxRows(), tokens.length - done);
      runChunk(tokens, done, rows);
    }
    return rows - 1;
  }

  private MemorySegment append(int[] tokens) {
    int last = appendAll(tokens);
    model.leases().acquire();
    try {
      return operators.logits(last);
    } finally {
      model.leases().release();
    }
  }

  // On a device that chooses tokens itself: each choice is made there, stays there as the next
  // step's token, and is fetched for the text.

  private MemorySegment appendAndChoose(int[] prompt, DeviceChoice choice, DeviceSampler sampler) {
    int last = appendAll(prompt);
    model.leases().acquire();
    try {
      choice.send(sampler);
      operators.choose(last, choice);
      return null; // the logits stay where they are
    } finally {
      model.leases().release();
    }
  }

  private void stepAndChoose(DeviceChoice choice, DeviceSampler sampler) {
    model.leases().acquire();
    try {
      choice.send(sampler);
      operators.sequence.set(0, position, 1);
      operators.launchStep(oneRow, position, choice);
      position++;
    } finally {
      model.leases().release();
    }
  }

  private int fetch(DeviceChoice choice) {
    model.leases().acquire();
    try {
      return choice.fetch();
    } finally {
      model.leases().release();
    }
  }

  /** The forward pass: takes rows tokens of the sequence, as it is set, through all layers. */
  private void run(int rows) {
    operators.embed.run(rows);           // x = embedding[tokens]
    operators.angles.run();              // cosines and sines of these positions
    for (var block : operators.blocks) {
      block.qkv().run(rows);             // q, k, v = norm(x) Wq, norm(x) Wk, norm(x) Wv
      block.ropeAppend().run();          // rotate q and k; append k and v to the cache
      block.attention().run();           // a = softmax(q k / sqrt(d)) v over the cache
      block.attentionOutput().run(rows); // x = x + a Wo
      block.gateUp().run(rows);          // h = silu(norm(x) Wgate) * (norm(x) Wup)
      block.down().run(rows);            // x = x + h Wdown
    }                                    // logits = norm(x) Whead, where they are asked for
  }

  private void runChunk(int[] tokens, int offset, int rows) {
    model.leases().acquire();
    try {
      for (int i = 0; i < rows; i++) {
        operators.setToken(i, tokens[offset + i]);
      }
      operators.sendTokens(rows);
      operators.sequence.set(0, position, rows);
      run(rows);
      position += rows;
    } finally {
      model.leases().release();
    }
  }

  private MemorySegment[] logits(int firstRow, int rows) {
    model.leases().acquire();
    try {
      return operators.logits(firstRow, rows);
    } finally {
      model.leases().release();
    }
  }

  private void check(int[] tokens, String what) {
    if (tokens.length == 0) {
      throw new InvalidArgumentException(what + ": none given, expected at least one token");
    }
    if (tokens.length > capacity - position) {
      throw new InvalidArgumentException(what + ": " + tokens.length + " tokens given, but "
          + (position == 0
              ? "the context holds " + capacity
              : "the context of " + capacity + " has room for " + (capacity - position) + " more"));
    }
    for (int i = 0; i < tokens.length; i++) {
      if (tokens[i] < 0 || tokens[i] >= vocabulary) {
        checkToken(what + "[" + i + "]", tokens[i]);
      }
    }
  }

  private void checkToken(String what, int token) {
    if (token < 0 || token >= vocabulary) {
      throw new InvalidArgumentException(
          what + " is " + token + ", expected 0 to " + (vocabulary - 1));
    }
  }

  @Override
  public void close() {
    if (leases.close()) {
      free(operators, cache, arena, host);
    }
  }
}
