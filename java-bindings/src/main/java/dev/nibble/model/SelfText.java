// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.InvalidArgumentException;
import dev.nibble.generate.Sampler;
import dev.nibble.io.DataType;
import dev.nibble.quantize.ActivationType;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.KvCache;
import dev.nibble.tensor.Projection;
import dev.nibble.tensor.SequenceBatch;
import dev.nibble.tensor.Tensor;
import dev.nibble.tensor.TensorArena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;

/**
 * Texts that a model writes by itself, many side by side: what LLM-QAT (arXiv 2305.17888) trains
 * on in place of data. Each starts with the beginning-of-text token and follows the model's
 * unchanged distribution; where a text ends, the next one begins.
 *
 * <p>All texts advance together, one token each a step, so that the weights are read once a step
 * and not once a token.
 */
public final class SelfText {
  private static final int MAX_SIDE_BY_SIDE = 32;

  private SelfText() {}

  /**
   * Writes windows of tokens. The same model, sizes and seed give the same tokens on the same
   * machine.
   *
   * @param windows how many, at least 1
   * @param tokens of each, 1 to the model's context
   * @param progress hears how many tokens are done
   */
  public static int[][] sample(
      LlamaModel model, int windows, int tokens, long seed, ProgressListener progress) {
    if (windows < 1 || tokens < 1 || tokens > model.config().maxPositions()) {
      throw new InvalidArgumentException("windows: " + windows + " of " + tokens
          + " tokens given, expected at least 1 of 1 to " + model.config().maxPositions());
    }
    if (!model.context().isCpu()) {
      throw new InvalidArgumentException(
          "model: on " + model.context().device() + ", expected a model on the CPU");
    }
    var result = new int[windows][tokens];
    long total = (long) windows * tokens;
    for (int first = 0; first < windows; first += MAX_SIDE_BY_SIDE) {
      int count = Math.min(MAX_SIDE_BY_SIDE, windows - first);
      model.leases().acquire();
      try (var pass = new Pass(model, count, tokens)) {
        pass.write(result, first, seed, progress, total);
      } finally {
        model.leases().release();
      }
    }
    progress.progress("", total, total);
    return result;
  }

  /** The forward pass of one token of each of count texts. */
  private static final class Pass implements AutoCloseable {
    private final LlamaModel model;
    private final int count;
    private final int tokens;
    private final TensorArena arena = new TensorArena("the texts");
    private final List<KvCache> caches = new ArrayList<>();
    private final SequenceBatch batch;
    private final MemorySegment ids;
    private final MemorySegment[] logits;
    private final List<Runnable> steps = new ArrayList<>();

    Pass(LlamaModel model, int count, int tokens) {
      this.model = model;
      this.count = count;
      this.tokens = tokens;
      boolean complete = false;
      try {
        var config = model.config();
        for (int i = 0; i < count; i++) {
          caches.add(model.newCache(model.context(), tokens));
        }
        batch = new SequenceBatch(caches.toArray(KvCache[]::new));
        var idTensor = arena.allocate(DataType.I32, count);
        ids = idTensor.segment();
        var logitTensor = arena.allocate(DataType.F32, count, config.vocabSize());
        logits = new MemorySegment[count];
        for (int i = 0; i < count; i++) {
          logits[i] = logitTensor.rows(i, 1).segment();
        }
        bind(model.context(), config, idTensor, logitTensor);
        complete = true;
      } finally {
        if (!complete) {
          close();
        }
      }
    }

    private void bind(Context context, LlamaConfig config, Tensor idTensor,
        Tensor logitTensor) {
      var weights = model.weights();
      ActivationType activations = model.scheme().activations();
      var x = arena.allocate(DataType.F32, count, config.hiddenSize());
      var q = arena.allocate(DataType.F32, count, config.querySize());
      var k = arena.allocate(DataType.F32, count, config.kvSize());
      var v = arena.allocate(DataType.F32, count, config.kvSize());
      var attended = arena.allocate(DataType.F32, count, config.querySize());
      var hidden = arena.allocate(DataType.F32, count, config.intermediateSize());
      var rotation = arena.allocate(DataType.F32, count, config.headDim());
      float scale = (float) (1 / Math.sqrt(config.headDim()));
      var embed = context.bindEmbedding(weights.embedding, idTensor, x);
      steps.add(() -> embed.run(count));
      var angles = context.bindRopeAngles(weights.inverseFrequencies, batch, rotation);
      steps.add(angles::run);
      for (int i = 0; i < config.layers(); i++) {
        var w = weights.layers.get(i);
        var qkv = context.bindMatMul(activations, x, w.attentionNorm(),
            new Projection(w.q().matrix(), w.q().bias(), null, q),
            new Projection(w.k().matrix(), w.k().bias(), null, k),
            new Projection(w.v().matrix(), w.v().bias(), null, v));
        var append = context.bindRopeAppend(i, q, k, v, rotation, batch);
        var attention = context.bindAttention(i, q, scale, batch, attended);
        var output = context.bindMatMul(activations, attended, null,
            new Projection(w.o().matrix(), w.o().bias(), x, x));
        var gateUp = new GateUp(context, activations, x, w, hidden,
            () -> arena.allocate(DataType.F32, count, config.intermediateSize()));
        var down = context.bindMatMul(activations, hidden, null,
            new Projection(w.down().matrix(), w.down().bias(), x, x));
        steps.add(() -> qkv.run(count));
        steps.add(append::run);
        steps.add(attention::run);
        steps.add(() -> output.run(count));
        steps.add(() -> gateUp.run(count));
        steps.add(() -> down.run(count));
      }
      var head = context.bindMatMul(model.scheme().headActivations(), x, weights.finalNorm,
          new Projection(weights.head, logitTensor));
      steps.add(() -> head.run(count));
    }

    /** Writes texts first .. first + count - 1 of result. */
    void write(int[][] result, int first, long seed, ProgressListener progress, long total) {
      var config = model.config();
      var samplers = new Sampler[count];
      for (int i = 0; i < count; i++) {
        // Far apart, so that neighbouring seeds share no text.
        samplers[i] = Sampler.builder().temperature(1f).topK(0).topP(1f)
            .seed(seed * 1_000_003 + first + i).build();
      }
      int begin = Math.max(0, config.bosToken());
      for (int t = 0; t < tokens; t++) {
        progress.progress("calibration text", (long) first * tokens + (long) t * count, total);
        for (int i = 0; i < count; i++) {
          int before = t == 0 ? begin : result[first + i][t - 1];
          int token = t == 0 || config.eosTokens().contains(before)
              ? begin
              : samplers[i].choose(logits[i]);
          result[first + i][t] = token;
          ids.setAtIndex(ValueLayout.JAVA_INT, i, token);
          batch.set(i, t, 1);
        }
        if (t + 1 < tokens) {
          steps.forEach(Runnable::run);
        }
      }
    }

    @Override
    public void close() {
      caches.forEach(KvCache::close);
      arena.close();
    }
  }
}
