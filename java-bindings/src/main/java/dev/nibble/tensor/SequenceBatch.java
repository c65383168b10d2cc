// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ffi.nb_sequence;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * The sequences that one pass serves, each with its cache and its own position: {@code
 * nb_sequence[]}. The tokens of a batch stand one sequence after the other in every tensor.
 *
 * <p>{@link #set} changes the positions for the next runs without allocating. Not to be changed
 * while an operation runs on it: that throws {@link dev.nibble.ConcurrentUseException}.
 */
public final class SequenceBatch {
  private static final long START = nb_sequence.start$offset();
  private static final long ROWS = nb_sequence.rows$offset();
  private static final long SIZE = nb_sequence.sizeof();

  private final KvCache[] caches;
  private final MemorySegment struct;
  private final Leases leases = new Leases("the batch of sequences");
  private long totalRows;

  /**
   * A batch in which no sequence has a token yet.
   *
   * @param caches one for each sequence, at least one, all different
   */
  public SequenceBatch(KvCache... caches) {
    if (caches.length == 0) {
      throw new InvalidArgumentException("caches: none given, expected at least one");
    }
    this.caches = caches.clone();
    struct = nb_sequence.allocateArray(caches.length, Arena.ofAuto());
    for (int i = 0; i < caches.length; i++) {
      nb_sequence.cache(nb_sequence.asSlice(struct, i), caches[i].handle());
    }
  }

  /**
   * Sets what sequence i contributes to the next runs.
   *
   * @param start the position of its first token
   * @param rows its number of tokens, 0 or more
   */
  public void set(int i, long start, long rows) {
    long capacity = caches[i].capacity();
    if (start < 0 || rows < 0 || start > capacity - rows) {
      throw new InvalidArgumentException("sequence " + i + ": " + rows + " tokens from position "
          + start + " on, but its cache holds " + capacity);
    }
    leases.acquireExclusive();
    try {
      long offset = i * SIZE;
      totalRows += rows - struct.get(ValueLayout.JAVA_LONG, offset + ROWS);
      struct.set(ValueLayout.JAVA_LONG, offset + START, start);
      struct.set(ValueLayout.JAVA_LONG, offset + ROWS, rows);
    } finally {
      leases.releaseExclusive();
    }
  }

  /** The number of sequences. */
  public int size() {
    return caches.length;
  }

  /** The number of tokens of all sequences together: M of the next runs. */
  public long rows() {
    return totalRows;
  }

  KvCache[] caches() {
    return caches;
  }

  MemorySegment struct() {
    return struct;
  }

  Leases leases() {
    return leases;
  }
}
