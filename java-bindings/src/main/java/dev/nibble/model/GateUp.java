// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.quantize.ActivationType;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.MatMul;
import dev.nibble.tensor.Projection;
import dev.nibble.tensor.SwiGlu;
import dev.nibble.tensor.SwiGluMatMul;
import dev.nibble.tensor.Tensor;
import java.util.function.Supplier;

/**
 * The first half of a feed-forward block, h = silu(norm(x) Wgate) * (norm(x) Wup): one fused
 * operation where both matrices have one format, else two products and then the rest.
 */
final class GateUp {
  private final SwiGluMatMul fused; // null where the formats differ
  private final MatMul both;
  private final SwiGlu swiGlu;

  /**
   * Binds it.
   *
   * @param hidden the result
   * @param spare a tensor like hidden, asked for only where the formats differ
   */
  GateUp(Context context, ActivationType activations, Tensor x, ModelWeights.Layer w,
      Tensor hidden, Supplier<Tensor> spare) {
    var gate = w.gate();
    var up = w.up();
    if (gate.matrix().format().equals(up.matrix().format())) {
      fused = context.bindSwiGluMatMul(activations, x, w.feedForwardNorm(),
          gate.matrix(), gate.bias(), up.matrix(), up.bias(), hidden);
      both = null;
      swiGlu = null;
    } else {
      var other = spare.get();
      fused = null;
      both = context.bindMatMul(activations, x, w.feedForwardNorm(),
          new Projection(gate.matrix(), gate.bias(), null, hidden),
          new Projection(up.matrix(), up.bias(), null, other));
      swiGlu = context.bindSwiGlu(hidden, other, hidden);
    }
  }

  /** Computes the first rows. */
  void run(long rows) {
    if (fused != null) {
      fused.run(rows);
    } else {
      both.run(rows);
      swiGlu.run(rows);
    }
  }
}
