// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.NativeMemoryException;
import dev.nibble.io.DataType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;

/**
 * Memory for several tensors that live and die together, such as a session's scratch: one arena,
 * one lease a call. The memory is ordinary native memory, or a device's ({@link
 * Context#newArena}).
 *
 * <p>Thread-safe. {@link #close} waits for calls that use a tensor of this arena, then frees them
 * all; closing twice is harmless. An arena may outlive the context it was made with.
 */
public final class TensorArena implements AutoCloseable {
  /** Enough for any vector register and one cache line. */
  private static final long ALIGNMENT = 64;

  private final Arena arena = Arena.ofShared(); // without a device
  private final Context device; // or null
  private final List<MemorySegment> onDevice = new ArrayList<>();
  private final Leases leases;

  /** An empty arena of ordinary memory. */
  public TensorArena() {
    this("the tensor memory");
  }

  /**
   * An empty arena of ordinary memory with a name.
   *
   * @param what the arena as messages call it, for example {@code the session}
   */
  public TensorArena(String what) {
    this(what, null);
  }

  /** An empty arena in the memory of device, or ordinary memory for null. */
  TensorArena(String what, Context device) {
    this.device = device;
    leases = new Leases(what);
  }

  /**
   * A new dense tensor: of zeros in ordinary memory, of anything in a device's.
   *
   * @param shape 1 to 4 sizes, each 0 or more
   * @throws InvalidArgumentException if the shape is not legal or its bytes overflow
   * @throws NativeMemoryException if the system or the device has not that much memory
   */
  public Tensor allocate(DataType type, long... shape) {
    long bytes = Tensor.bytesOf(type, shape);
    leases.acquire();
    try {
      var segment = device == null ? arena.allocate(bytes, ALIGNMENT) : allocateOnDevice(bytes);
      return new Tensor(type, shape.clone(), segment, device, leases, null);
    } catch (OutOfMemoryError e) {
      throw new NativeMemoryException(
          "tensor " + Tensor.describe(type, shape) + ": " + bytes + " bytes of native memory", e);
    } finally {
      leases.release();
    }
  }

  /** Memory that native code alone may touch. */
  private MemorySegment allocateOnDevice(long bytes) {
    var memory = device.allocateMemory(bytes);
    synchronized (onDevice) {
      onDevice.add(memory);
    }
    return memory.reinterpret(bytes);
  }

  /** What calls hold while they use tensors of this arena. */
  Leases leases() {
    return leases;
  }

  @Override
  public void close() {
    if (leases.close()) {
      arena.close();
      for (var memory : onDevice) {
        Context.freeMemory(memory);
      }
    }
  }
}
