// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import dev.nibble.InternalException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.random.RandomGenerator;

/**
 * The tokens that a sampler chooses among, in arrays that are reused.
 *
 * <p>Sorting is partial: the tokens form a heap in O(V), and each one taken costs O(log V). Top-k,
 * top-p and min-p all keep a prefix of the sorted order, so only that prefix is ever taken.
 */
final class Candidates {
  private float[] values = {}; // logits
  private double[] weights = {}; // exp((logit - max) / temperature), so that the best has 1
  private int[] heap = {};
  private int[] kept = {};
  private int count;
  private int heapSize;

  /** Copies logits and returns the copy, to be changed in place. */
  float[] load(MemorySegment logits, int count) {
    if (values.length < count) {
      values = new float[count];
      weights = new double[count];
      heap = new int[count];
      kept = new int[count];
    }
    this.count = count;
    MemorySegment.copy(logits, ValueLayout.JAVA_FLOAT, 0, values, 0, count);
    return values;
  }

  /** The token with the largest logit, the first of equals. */
  int best() {
    int best = -1;
    float max = Float.NEGATIVE_INFINITY;
    for (int i = 0; i < count; i++) {
      float value = values[i];
      if (!(value < Float.POSITIVE_INFINITY)) {
        throw new InternalException("logits[" + i + "] is " + value
            + ", expected a number: the model's arithmetic broke down");
      }
      if (value > max) {
        max = value;
        best = i;
      }
    }
    return Math.max(best, 0);
  }

  /** Fills weights; best is the token with the largest logit. */
  void toProbabilities(float temperature, int best) {
    double max = values[best];
    for (int i = 0; i < count; i++) {
      weights[i] = i == best ? 1 : Math.exp((values[i] - max) / temperature);
    }
  }

  /** Draws a token from those that top-k, top-p and min-p keep, by their probabilities. */
  int draw(SamplerOptions options, RandomGenerator random) {
    boolean topK = options.topK() > 0 && options.topK() < count;
    if (!topK && options.topP() >= 1 && options.minP() <= 0) {
      return drawAny(random);
    }
    makeHeap();
    int keep = 0;
    double total;
    if (topK) {
      total = 0;
      for (; keep < options.topK(); keep++) {
        kept[keep] = take();
        total += weights[kept[keep]];
      }
      keep = prefix(options, total, keep);
    } else {
      total = 0;
      for (int i = 0; i < count; i++) {
        total += weights[i];
      }
      keep = takePrefix(options, total);
    }
    double sum = 0;
    for (int i = 0; i < keep; i++) {
      sum += weights[kept[i]];
    }
    double left = random.nextDouble() * sum;
    for (int i = 0; i < keep - 1; i++) {
      left -= weights[kept[i]];
      if (left < 0) {
        return kept[i];
      }
    }
    return kept[keep - 1];
  }

  /** How many of the first available kept tokens top-p and min-p leave; at least one. */
  private int prefix(SamplerOptions options, double total, int available) {
    double mass = 0;
    int keep = 0;
    while (keep < available && wants(options, total, mass, kept[keep], keep)) {
      mass += weights[kept[keep++]];
    }
    return keep;
  }

  /** Takes tokens from the heap for as long as top-p and min-p want one more. */
  private int takePrefix(SamplerOptions options, double total) {
    double mass = 0;
    int keep = 0;
    while (heapSize > 0 && wants(options, total, mass, heap[0], keep)) {
      kept[keep] = take();
      mass += weights[kept[keep++]];
    }
    return keep;
  }

  private boolean wants(
      SamplerOptions options, double total, double mass, int token, int position) {
    return position == 0
        || (mass < options.topP() * total && weights[token] >= options.minP());
  }

  private int drawAny(RandomGenerator random) {
    double total = 0;
    for (int i = 0; i < count; i++) {
      total += weights[i];
    }
    double left = random.nextDouble() * total;
    int last = 0;
    for (int i = 0; i < count; i++) {
      if (weights[i] > 0) {
        last = i;
        left -= weights[i];
        if (left < 0) {
          return i;
        }
      }
    }
    return last;
  }

  private void makeHeap() {
    heapSize = count;
    for (int i = 0; i < count; i++) {
      heap[i] = i;
    }
    for (int i = count / 2 - 1; i >= 0; i--) {
      siftDown(i);
    }
  }

  /** Removes and returns the best token of the heap. */
  private int take() {
    int top = heap[0];
    heap[0] = heap[--heapSize];
    siftDown(0);
    return top;
  }

  private void siftDown(int start) {
    int parent = start;
    int moving = heap[start];
    while (true) {
      int child = 2 * parent + 1;
      if (child >= heapSize) {
        break;
      }
      if (child + 1 < heapSize && before(heap[child + 1], heap[child])) {
        child++;
      }
      if (!before(heap[child], moving)) {
        break;
      }
      heap[parent] = heap[child];
      parent = child;
    }
    heap[parent] = moving;
  }

  private boolean before(int a, int b) {
    return values[a] > values[b] || (values[a] == values[b] && a < b);
  }
}
