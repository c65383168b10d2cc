// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.NativeMemoryException;
import dev.nibble.io.DataType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * Native memory for several tensors that live and die together, such as a session's scratch: one
 * arena, one lease a call.
 *
 * <p>Thread-safe. {@link #close} waits for calls that use a tensor of this arena, then frees them
 * all; closing twice is harmless.
 */
public final class TensorArena implements AutoCloseable {
  /** Enough for any vector register and one cache line. */
  private static final long ALIGNMENT = 64;

  private final Arena arena = Arena.ofShared();
  private final Leases leases;

  /** An empty arena. */
  public TensorArena() {
    this("the tensor memory");
  }

  /**
   * An empty arena with a name.
   *
   * @param what the arena as messages call it, for example {@code the session}
   */
  public TensorArena(String what) {
    leases = new Leases(what);
  }

  /**
   * A new dense tensor of zeros.
   *
   * @param shape 1 to 4 sizes, each 0 or more
   * @throws InvalidArgumentException if the shape is not legal or its bytes overflow
   * @throws NativeMemoryException if the system has not that much memory
   */
  public Tensor allocate(DataType type, long... shape) {
    long bytes = Tensor.bytesOf(type, shape);
    leases.acquire();
    try {
      MemorySegment segment = arena.allocate(bytes, ALIGNMENT);
      return new Tensor(type, shape.clone(), segment, leases, null);
    } catch (OutOfMemoryError e) {
      throw new NativeMemoryException(
          "tensor " + Tensor.describe(type, shape) + ": " + bytes + " bytes of native memory", e);
    } finally {
      leases.release();
    }
  }

  /** What calls hold while they use tensors of this arena. */
  Leases leases() {
    return leases;
  }

  @Override
  public void close() {
    if (leases.close()) {
      arena.close();
    }
  }
}
