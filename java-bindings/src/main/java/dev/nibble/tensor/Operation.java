// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.DataType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/**
 * An operator bound to its operands: shapes and types are checked and the native descriptors are
 * written once, so that each run is one downcall and allocates nothing. Runs differ in the number
 * of rows (tokens) only.
 *
 * <p>Each run holds leases on the context, matrices, tensors and caches it reaches; if one of them
 * is closed, it throws {@link dev.nibble.ClosedException}. An operation serves one thread at a time
 * and throws {@link dev.nibble.ConcurrentUseException} otherwise. Its descriptors are collected
 * with it; there is nothing to close but a {@link Graph}.
 *
 * <p>Where all tensors lie on a device, a run returns when it has started there; runs follow one
 * another in order.
 */
public abstract sealed class Operation
    permits MatMul, SwiGluMatMul, SwiGlu, Embedding, RopeAngles, RopeAppend, Attention, Argmax, Sample,
        Penalize, Graph {
  private final Leases self;
  private final Leases[] shared;
  private final Leases[] exclusive;
  private final Context context;
  final MemorySegment handle; // the context's

  /** Collects the operands while a subclass is built. */
  static final class Operands {
    /** Descriptors live as long as any of them is referenced. */
    final Arena arena = Arena.ofAuto();
    private final Set<Leases> shared = new LinkedHashSet<>();
    private final Set<Leases> exclusive = new LinkedHashSet<>();

    /** Registers tensor, which may be null, and returns its descriptor or NULL. */
    MemorySegment add(Tensor tensor) {
      if (tensor != null) {
        shared.add(tensor.leases());
      }
      return Descriptor.of(arena, tensor);
    }

    MemorySegment add(PackedMatrix matrix, String name) {
      if (matrix == null) {
        throw new InvalidArgumentException(name + ": null, expected a matrix");
      }
      shared.add(matrix.leases());
      return matrix.handle();
    }

    /** Registers the weight of norm, which may be null, for K columns. */
    MemorySegment addNorm(Norm norm, long cols) {
      if (norm == null) {
        return MemorySegment.NULL;
      }
      Tensor.check("norm.weight", norm.weight(), DataType.F32, cols);
      return add(norm.weight());
    }

    /** Registers what the call of a graph reaches. */
    void add(Operation operation) {
      shared.addAll(List.of(operation.shared));
      exclusive.addAll(List.of(operation.exclusive));
    }

    void add(Leases leases) {
      shared.add(leases);
    }

    void add(SequenceBatch batch) {
      exclusive.add(batch.leases());
      for (var cache : batch.caches()) {
        exclusive.add(cache.leases());
      }
    }
  }

  Operation(String name, Context context, Operands operands) {
    this.self = new Leases(name);
    this.context = context;
    this.handle = context.handle();
    operands.shared.add(context.leases());
    this.shared = operands.shared.toArray(Leases[]::new);
    this.exclusive = operands.exclusive.toArray(Leases[]::new);
  }

  /** Takes every lease, or none and throws. */
  final void begin() {
    self.acquireExclusive();
    int taken = 0;
    int takenExclusive = 0;
    boolean all = false;
    try {
      for (; taken < shared.length; taken++) {
        shared[taken].acquire();
      }
      for (; takenExclusive < exclusive.length; takenExclusive++) {
        exclusive[takenExclusive].acquireExclusive();
      }
      all = true;
      var recorded = context.recorded();
      if (recorded != null) {
        recorded.add(this);
      }
    } finally {
      if (!all) {
        end(taken, takenExclusive);
      }
    }
  }

  /** Closes the operation itself; true for the first call, after runs have ended. */
  final boolean closeSelf() {
    return self.close();
  }

  /** Returns every lease. */
  final void end() {
    end(shared.length, exclusive.length);
  }

  private void end(int taken, int takenExclusive) {
    for (int i = 0; i < takenExclusive; i++) {
      exclusive[i].releaseExclusive();
    }
    for (int i = 0; i < taken; i++) {
      shared[i].release();
    }
    self.releaseExclusive();
  }

  static void checkRows(long firstRow, long rows, long available, String name) {
    if (firstRow < 0 || rows < 0 || firstRow > available - rows) {
      throw new InvalidArgumentException("rows: " + rows + " from " + firstRow + " on, but " + name
          + " has " + available);
    }
  }
}
