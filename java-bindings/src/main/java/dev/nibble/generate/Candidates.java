// SPDX-License-Identifier: Apache-2.0
package dev.nibble.generate;

import dev.nibble.InternalException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.random.RandomGenerator;

/**
 * The tokens that a sampler chooses among, in arrays that are reused.
 *
 * <p>Defined to the bit by {@code kernels-cpu/elementwise/sample.h}: weights are integers, so that
 * sums have no order, and {@code nb_sample} chooses the same token on every device.
 *
 * <p>Sorting is partial: the tokens form a heap in O(V), and each one taken costs O(log V). Top-k,
 * top-p and min-p all keep a prefix of the sorted order, so only that prefix is ever taken.
 */
final class Candidates {
  /** The weight of the best token; others have exp((logit - max) / temperature) of it. */
  private static final double BEST = 0x1p40;
  private static final double LOG2_E = 0x1.71547652b82fep+0;
  private static final double LEAST = 41; // powers of two below the best: no weight from there on

  /** floor(ln(2)^k / k! * 2^63): 2^-f = the sum of EXP2[k] (-f)^k. */
  private static final long[] EXP2 = {
    0x8000000000000000L, 0x58B90BFBE8E7BCD5L, 0x1EBFBDFF82C58EA8L, 0x071AC235C1282FE2L,
    0x013B2AB6FBA4E772L, 0x002BB0FFCF14CE62L, 0x00050C244BE1B1E1L, 0x00007FF2FF1622C3L,
    0x00000B160111D2E4L, 0x000000DA929E9CAFL, 0x0000000F267A8AC5L, 0x00000000F465639AL,
    0x000000000E1DEB28L, 0x0000000000C0B0C9L, 0x0000000000098A4BL
  };

  private float[] values = {}; // logits
  private long[] weights = {};
  private int[] heap = {};
  private int[] kept = {};
  private int count;
  private int heapSize;

  /** Copies logits and returns the copy, to be changed in place. */
  float[] load(MemorySegment logits, int count) {
    if (values.length < count) {
      values = new float[count];
      weights = new long[count];
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
  void weigh(float temperature, int best) {
    float max = values[best];
    for (int i = 0; i < count; i++) {
      weights[i] = weight(max, values[i], temperature);
    }
  }

  /** {@code SampleWeight} of sample.h. */
  private static long weight(float max, float value, float temperature) {
    if (value == max) {
      return (long) BEST; // two infinities would make a NaN
    }
    double y = ((double) max - (double) value) / temperature * LOG2_E;
    if (!(y < LEAST)) {
      return 0;
    }
    long q = (long) (y * 0x1p48);
    long x = q << 16;
    long r = EXP2[EXP2.length - 1];
    for (int k = EXP2.length - 2; k >= 0; k--) {
      r = EXP2[k] - Math.unsignedMultiplyHigh(r, x);
    }
    return r >>> (23 + (int) (q >>> 48));
  }

  /** Draws a token from those that top-k, top-p and min-p keep, by their probabilities. */
  int draw(SamplerOptions options, RandomGenerator random) {
    boolean topK = options.topK() > 0 && options.topK() < count;
    if (!topK && options.topP() >= 1 && options.minP() <= 0) {
      return drawAny(random);
    }
    makeHeap();
    int available = 0;
    long total = 0;
    if (topK) {
      for (; available < options.topK(); available++) {
        kept[available] = take();
        total += weights[kept[available]];
      }
    } else {
      for (int i = 0; i < count; i++) {
        total += weights[i];
      }
    }
    long limit = options.topP() < 1
        ? (long) Math.ceil((double) options.topP() * (double) total)
        : Long.MAX_VALUE;
    long least = (long) Math.ceil(options.minP() * BEST);
    int keep = 0;
    long sum = 0;
    while (topK ? keep < available : heapSize > 0) {
      int next = topK ? kept[keep] : heap[0];
      if (keep > 0 && (sum >= limit || weights[next] < least)) {
        break;
      }
      kept[keep++] = topK ? next : take();
      sum += weights[next];
    }
    long left = target(random, sum);
    int i = 0;
    while (left >= weights[kept[i]]) {
      left -= weights[kept[i++]];
    }
    return kept[i];
  }

  private int drawAny(RandomGenerator random) {
    long total = 0;
    for (int i = 0; i < count; i++) {
      total += weights[i];
    }
    long left = target(random, total);
    int i = 0;
    while (left >= weights[i]) {
      left -= weights[i++];
    }
    return i;
  }

  private static long target(RandomGenerator random, long sum) {
    return Math.min((long) (random.nextDouble() * (double) sum), sum - 1);
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
