// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.ClosedException;
import dev.nibble.ConcurrentUseException;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.concurrent.locks.LockSupport;

/**
 * Counts the calls that use a closeable resource, so that closing waits for them and nothing is
 * freed under a call.
 *
 * <p>The linker keeps alive only the segments passed to a downcall directly, not what a struct or
 * a native handle points to; every call therefore holds a lease on each resource it reaches. A
 * shared lease may be held by any number of calls, an exclusive one by a single call.
 *
 * <p>Thread-safe; taking and returning a lease allocates nothing. Every {@code acquire} is paired
 * with one {@code release} in a {@code finally} block.
 */
public sealed class Leases permits BorrowedLeases {
  // The state word: bit 31 closed, bit 30 held exclusively, the rest counts shared leases.
  private static final int CLOSED = 1 << 31;
  private static final int EXCLUSIVE = 1 << 30;
  private static final long WAIT_NANOS = 20_000;
  private static final VarHandle STATE;

  static {
    try {
      STATE = MethodHandles.lookup().findVarHandle(Leases.class, "state", int.class);
    } catch (ReflectiveOperationException e) {
      throw new ExceptionInInitializerError(e);
    }
  }

  private final String what;
  private volatile int state;
  private volatile Thread owner;

  /**
   * Leases on a resource that is open.
   *
   * @param what the resource as messages call it, for example {@code the session}
   */
  public Leases(String what) {
    this.what = what;
  }

  /**
   * Takes a shared lease.
   *
   * @throws ClosedException if the resource is closed or closing
   * @throws ConcurrentUseException if another call holds it exclusively
   */
  public void acquire() {
    while (true) {
      int current = state;
      if (current < 0) {
        throw closed();
      }
      if ((current & EXCLUSIVE) != 0) {
        throw inUse();
      }
      if (STATE.compareAndSet(this, current, current + 1)) {
        return;
      }
    }
  }

  /** Returns a shared lease. */
  public void release() {
    STATE.getAndAdd(this, -1);
  }

  /**
   * Takes the exclusive lease.
   *
   * @throws ClosedException if the resource is closed or closing
   * @throws ConcurrentUseException if any other lease is held
   */
  public void acquireExclusive() {
    while (true) {
      int current = state;
      if (current < 0) {
        throw closed();
      }
      if (current != 0) {
        throw inUse();
      }
      if (STATE.compareAndSet(this, 0, EXCLUSIVE)) {
        owner = Thread.currentThread();
        return;
      }
    }
  }

  /** Returns the exclusive lease. */
  public void releaseExclusive() {
    owner = null;
    STATE.getAndAdd(this, -EXCLUSIVE);
  }

  /**
   * Closes: later calls fail, running ones are waited for. After the one call that gets
   * {@code true} no lease is held, and the caller frees the resource; others get {@code false}
   * and do nothing.
   *
   * @throws ConcurrentUseException if the calling thread itself holds the exclusive lease, as in
   *     a callback; nothing is changed then
   */
  public boolean close() {
    if (owner == Thread.currentThread()) {
      throw new ConcurrentUseException(
          what + " cannot be closed from inside its own callback; return from the callback first");
    }
    if (((int) STATE.getAndBitwiseOr(this, CLOSED) & CLOSED) != 0) {
      return false;
    }
    for (int spins = 0; (state & ~CLOSED) != 0; spins++) {
      if (spins < 100) {
        Thread.onSpinWait();
      } else {
        LockSupport.parkNanos(this, WAIT_NANOS);
      }
    }
    return true;
  }

  /** Whether {@link #close} was called. */
  public boolean isClosed() {
    return state < 0;
  }

  ClosedException closed() {
    return new ClosedException(what + " is closed");
  }

  private ConcurrentUseException inUse() {
    Thread user = owner;
    return new ConcurrentUseException(what + " serves one call at a time and is in use"
        + (user == Thread.currentThread() ? " by this thread (called from inside its own callback)"
            : user == null ? "" : " by thread \"" + user.getName() + "\""));
  }
}
