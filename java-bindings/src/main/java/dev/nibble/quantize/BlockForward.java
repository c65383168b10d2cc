// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.io.DataType;
import dev.nibble.model.LlamaConfig;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.PackedMatrix;
import dev.nibble.tensor.Tensor;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/**
 * Runs a transformer block over all calibration tokens at once, in F32 but for what the weights of
 * its projections are. Owns its scratch. For one thread.
 */
final class BlockForward implements AutoCloseable {
  final LayerPass pass;
  /** Scratch, F32 [tokens, querySize]: what attention gives. */
  final Tensor attended;
  /** Scratch, F32 [tokens, intermediateSize]: what the down projection takes. */
  final Tensor inner;

  private final Context context;

  BlockForward(Context context, LlamaConfig config, Calibration calibration) {
    this.context = context;
    pass = new LayerPass(context, config, calibration);
    attended = Tensor.allocate(DataType.F32, pass.tokens(), config.querySize());
    inner = Tensor.allocate(DataType.F32, pass.tokens(), config.intermediateSize());
  }

  /**
   * Runs a block with other projections in place of its own; those of {@code gate_proj} and {@code
   * up_proj} of one format.
   *
   * @param weights norms and biases
   * @param projections all seven, by their names in {@link LayerWeights}
   * @param states F32 [tokens, hidden]: what goes in, then what comes out
   */
  void run(LayerWeights weights, Map<String, PackedMatrix> projections, Tensor states) {
    var linears = new LinkedHashMap<String, LayerPass.Linear>();
    projections.forEach((name, matrix) ->
        linears.put(name, new LayerPass.Linear(matrix, weights.bias(name))));
    var qkv = new LayerPass.Linear[] {linears.get(LayerWeights.Q), linears.get(LayerWeights.K),
        linears.get(LayerWeights.V)};
    pass.attention(weights, qkv, ActivationType.F32, KvType.F32, null, states, null, attended);
    pass.addProjection(LayerWeights.O, linears.get(LayerWeights.O), ActivationType.F32, attended,
        states);
    pass.gateUp(weights, linears.get(LayerWeights.GATE), linears.get(LayerWeights.UP),
        ActivationType.F32, states, inner);
    pass.addProjection(LayerWeights.DOWN, linears.get(LayerWeights.DOWN), ActivationType.F32, inner,
        states);
  }

  /**
   * Runs a block as it is, and gathers what its projections see. No more of its weights are packed
   * at a time than a step needs.
   *
   * @param states F32 [tokens, hidden]: what goes in, then what comes out
   * @param step hears before each step what it is
   */
  void run(LayerWeights weights, Tensor states, LayerStatistics statistics, Consumer<String> step) {
    step.accept("attention");
    pass.normed(weights, LayerWeights.ATTENTION_NORM, states,
        rows -> statistics.add(rows, statistics.qkvInputs));
    withFloats(weights, List.of(LayerWeights.Q, LayerWeights.K, LayerWeights.V), linears ->
        pass.attention(weights, linears, ActivationType.F32, KvType.F32, null, states,
            statistics::add, attended));
    pass.chunks(attended, rows -> statistics.add(rows, statistics.outputInputs));
    withFloats(weights, List.of(LayerWeights.O), linears -> pass.addProjection(
        LayerWeights.O, linears[0], ActivationType.F32, attended, states));
    step.accept("feed-forward");
    pass.normed(weights, LayerWeights.FEED_FORWARD_NORM, states,
        rows -> statistics.add(rows, statistics.feedForwardInputs));
    withFloats(weights, List.of(LayerWeights.GATE, LayerWeights.UP), linears ->
        pass.gateUp(weights, linears[0], linears[1], ActivationType.F32, states, inner));
    pass.chunks(inner, rows -> statistics.add(rows, statistics.downInputs));
    withFloats(weights, List.of(LayerWeights.DOWN), linears -> pass.addProjection(
        LayerWeights.DOWN, linears[0], ActivationType.F32, inner, states));
  }

  /** Lets use run projections of a block in F32. */
  void withFloats(
      LayerWeights weights, List<String> names, Consumer<LayerPass.Linear[]> use) {
    var packed = LayerPass.packFloats(context, weights, names.toArray(String[]::new));
    try {
      var linears = new LayerPass.Linear[packed.size()];
      for (int i = 0; i < linears.length; i++) {
        linears[i] = new LayerPass.Linear(packed.get(i), weights.bias(names.get(i)));
      }
      use.accept(linears);
    } finally {
      packed.forEach(PackedMatrix::close);
    }
  }

  @Override
  public void close() {
    attended.close();
    inner.close();
    pass.close();
  }
}
