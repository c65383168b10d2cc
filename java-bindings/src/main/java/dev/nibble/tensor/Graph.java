// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.ffi.nibble_h;
import java.lang.foreign.MemorySegment;

/**
 * {@code nb_graph}: a recorded list of operations, run again at the cost of one call (on a GPU a
 * CUDA graph). Made by {@link Context#record}.
 *
 * <p>The results have the same bits as those of the operations one by one. {@link #close} waits for
 * a running launch; closing twice is harmless.
 */
public final class Graph extends Operation implements AutoCloseable {
  private final SequenceBatch batch;
  private final MemorySegment graph;

  Graph(Context context, Operands operands, SequenceBatch batch, MemorySegment graph) {
    this.batch = batch;
    this.graph = graph;
    super("the graph", context, operands);
  }

  /**
   * Runs the operations on the batch as it is set now: with the rows of the recording, at other
   * positions.
   *
   * @throws dev.nibble.InvalidArgumentException if a sequence has other rows, or ends behind the
   *     tokens that the graph was recorded for
   */
  public void launch() {
    begin();
    try {
      Status.check(nibble_h.nb_graph_launch(handle, graph, batch.struct(), batch.size()));
    } finally {
      end();
    }
  }

  @Override
  public void close() {
    if (closeSelf()) {
      Status.check(nibble_h.nb_graph_destroy(graph));
    }
  }
}
