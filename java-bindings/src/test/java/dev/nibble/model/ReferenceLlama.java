// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import java.util.Map;

/**
 * A LLaMA in plain Java and double precision, independent of the library: what the tests compare
 * with. Weights are by Hugging Face name, matrices [outputs][inputs] row by row.
 *
 * @param frequencies rotary inverse frequencies, headDim / 2 of them
 */
record ReferenceLlama(Map<String, double[]> weights, int hidden, int layers, int heads,
    int kvHeads, int headDim, double epsilon, double[] frequencies, boolean tied) {

  /** Logits [token][vocabulary] of a text. */
  double[][] logits(int[] tokens) {
    int n = tokens.length;
    var x = new double[n][];
    for (int t = 0; t < n; t++) {
      x[t] = new double[hidden];
      System.arraycopy(w("model.embed_tokens.weight"), tokens[t] * hidden, x[t], 0, hidden);
    }
    for (int layer = 0; layer < layers; layer++) {
      var prefix = "model.layers." + layer + ".";
      var q = new double[n][];
      var k = new double[n][];
      var v = new double[n][];
      for (int t = 0; t < n; t++) {
        var y = norm(x[t], prefix + "input_layernorm");
        q[t] = rotate(linear(y, prefix + "self_attn.q_proj"), t);
        k[t] = rotate(linear(y, prefix + "self_attn.k_proj"), t);
        v[t] = linear(y, prefix + "self_attn.v_proj");
      }
      for (int t = 0; t < n; t++) {
        add(x[t], linear(attend(q[t], k, v, t), prefix + "self_attn.o_proj"));
        var y = norm(x[t], prefix + "post_attention_layernorm");
        var gate = linear(y, prefix + "mlp.gate_proj");
        var up = linear(y, prefix + "mlp.up_proj");
        for (int i = 0; i < gate.length; i++) {
          gate[i] = gate[i] / (1 + Math.exp(-gate[i])) * up[i];
        }
        add(x[t], linear(gate, prefix + "mlp.down_proj"));
      }
    }
    var logits = new double[n][];
    for (int t = 0; t < n; t++) {
      logits[t] = linear(norm(x[t], "model.norm"), tied ? "model.embed_tokens" : "lm_head");
    }
    return logits;
  }

  private double[] attend(double[] q, double[][] k, double[][] v, int last) {
    var output = new double[heads * headDim];
    for (int h = 0; h < heads; h++) {
      int kv = h / (heads / kvHeads) * headDim;
      var p = new double[last + 1];
      double sum = 0;
      for (int t = 0; t <= last; t++) {
        for (int i = 0; i < headDim; i++) {
          p[t] += q[h * headDim + i] * k[t][kv + i];
        }
        sum += p[t] = Math.exp(p[t] / Math.sqrt(headDim)); // small models: no overflow
      }
      for (int t = 0; t <= last; t++) {
        for (int i = 0; i < headDim; i++) {
          output[h * headDim + i] += p[t] / sum * v[t][kv + i];
        }
      }
    }
    return output;
  }

  private double[] rotate(double[] x, int position) {
    int half = headDim / 2;
    for (int h = 0; h < x.length; h += headDim) {
      for (int i = 0; i < half; i++) {
        double cos = Math.cos(position * frequencies[i]);
        double sin = Math.sin(position * frequencies[i]);
        double a = x[h + i];
        double b = x[h + half + i];
        x[h + i] = a * cos - b * sin;
        x[h + half + i] = b * cos + a * sin;
      }
    }
    return x;
  }

  private double[] linear(double[] x, String name) {
    var weight = w(name + ".weight");
    var bias = weights.get(name + ".bias");
    var y = new double[weight.length / x.length];
    for (int n = 0; n < y.length; n++) {
      y[n] = bias == null ? 0 : bias[n];
      for (int i = 0; i < x.length; i++) {
        y[n] += weight[n * x.length + i] * x[i];
      }
    }
    return y;
  }

  private double[] norm(double[] x, String name) {
    double squares = 0;
    for (double value : x) {
      squares += value * value;
    }
    var y = new double[x.length];
    for (int i = 0; i < x.length; i++) {
      y[i] = x[i] / Math.sqrt(squares / x.length + epsilon) * w(name + ".weight")[i];
    }
    return y;
  }

  private static void add(double[] x, double[] y) {
    for (int i = 0; i < x.length; i++) {
      x[i] += y[i];
    }
  }

  private double[] w(String name) {
    return weights.get(name);
  }
}
